package advanced

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// httpCaller makes each request by a connection of its own.
type httpCaller struct {
	request   *Request
	fields    []field
	transport *http.Transport
}

func newHTTPCaller(r *Request, secure bool, fields []field) *httpCaller {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(!r.HTTP2)
	protocols.SetHTTP2(r.HTTP2)
	protocols.SetUnencryptedHTTP2(r.HTTP2 && !secure)
	return &httpCaller{request: r, fields: fields, transport: &http.Transport{
		DisableKeepAlives: true, DisableCompression: true, Protocols: protocols,
		// The server's certificate is one that we made ourselves, and no test is about it.
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true},
	}}
}

func (c *httpCaller) close() { c.transport.CloseIdleConnections() }

func (c *httpCaller) call(ctx context.Context) (reply, error) {
	var body io.Reader
	if c.request.Message != "" {
		body = strings.NewReader(c.request.Message)
	}
	req, err := http.NewRequestWithContext(ctx, c.request.Method, c.request.URL, body)
	if err != nil {
		return reply{}, err
	}
	for _, f := range c.fields {
		if strings.EqualFold(f.name, "Host") {
			req.Host = f.value
			continue
		}
		// Not Add, which would change the case.
		req.Header[f.name] = append(req.Header[f.name], f.value)
	}
	// The transport by itself, since a client follows redirects.
	resp, err := c.transport.RoundTrip(req)
	if err != nil {
		return reply{}, err
	}
	defer resp.Body.Close()
	said, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return reply{}, fmt.Errorf("read the answer: %w", err)
	}
	return reply{status: strconv.Itoa(resp.StatusCode), headers: resp.Header, body: string(said)}, nil
}

// grpcCaller makes all its calls by one connection.
type grpcCaller struct {
	conn    *grpc.ClientConn
	header  metadata.MD
	message string
}

func newGRPCCaller(host, message string, fields []field) (*grpcCaller, error) {
	c := &grpcCaller{header: metadata.MD{}, message: message}
	options := []grpc.DialOption{grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithNoProxy(), grpc.WithDisableServiceConfig()}
	for _, f := range fields {
		if strings.EqualFold(f.name, "Host") {
			options = append(options, grpc.WithAuthority(f.value))
			continue
		}
		c.header.Append(f.name, f.value)
	}
	var err error
	c.conn, err = grpc.NewClient("passthrough:///"+host, options...)
	return c, err
}

func (c *grpcCaller) close() { c.conn.Close() }

func (c *grpcCaller) call(ctx context.Context) (reply, error) {
	var header metadata.MD
	out := new(wrapperspb.StringValue)
	err := c.conn.Invoke(metadata.NewOutgoingContext(ctx, c.header), fullMethod, wrapperspb.String(c.message), out, grpc.Header(&header))
	if err != nil {
		return reply{}, err
	}
	return reply{headers: header, body: out.GetValue()}, nil
}

// tcpCaller sends the message and reads until the server ends.
type tcpCaller struct{ addr, message string }

func (c tcpCaller) close() {}

func (c tcpCaller) call(ctx context.Context) (reply, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", c.addr)
	if err != nil {
		return reply{}, err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	if _, err := io.WriteString(conn, c.message+"\n"); err != nil {
		return reply{}, err
	}
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		return reply{}, err
	}
	said, err := io.ReadAll(io.LimitReader(conn, 1<<20))
	if err != nil {
		return reply{}, fmt.Errorf("read the answer: %w", err)
	}
	if !strings.HasSuffix(string(said), c.message+"\n") {
		return reply{}, fmt.Errorf("%q did not come back, but %q", c.message, said)
	}
	return reply{body: string(said)}, nil
}
