package extauthz

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"
	"unicode/utf8"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	auth "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/internal/policy"
	"github.com/ambit-mesh/ambit/internal/spiffe"
)

func (a *Asker) askGRPC(ctx context.Context, p *mesh.Provider, q *Question) (Answer, error) {
	conn, err := a.grpcConn(p)
	if err != nil {
		return Answer{}, err
	}
	in, err := auth.NewAuthorizationClient(conn).Check(ctx, grpcQuestion(p, q), grpc.WaitForReady(false))
	if err != nil {
		return Answer{}, err
	}
	switch {
	case in.GetErrorResponse() != nil:
		return Answer{}, errors.New("it answered with an error")
	case in.GetStatus().GetCode() != int32(codes.OK):
		return grpcDenied(in.GetDeniedResponse()), nil
	case in.GetDeniedResponse() != nil:
		return Answer{}, errors.New("it answered OK and a denial at once")
	}
	return grpcAllowed(in.GetOkResponse()), nil
}

func grpcQuestion(p *mesh.Provider, q *Question) *auth.CheckRequest {
	c := &auth.AttributeContext{Source: peer(q.Source, q.SourceID), Destination: peer(q.Destination, spiffe.ID{})}
	if q.SNI != "" {
		c.TlsSession = &auth.AttributeContext_TLSSession{Sni: q.SNI}
	}
	c.Request = &auth.AttributeContext_Request{Time: timestamppb.New(q.Time)}
	if q.Method != "" {
		c.Request.Http = grpcRequest(p, q)
	}
	return &auth.CheckRequest{Attributes: c}
}

func grpcRequest(p *mesh.Provider, q *Question) *auth.AttributeContext_HttpRequest {
	target := q.Path
	if q.Query != "" {
		target += "?" + q.Query
	}
	out := &auth.AttributeContext_HttpRequest{
		Id: q.ID, Method: q.Method, Path: target, Host: q.Host, Scheme: "http", Size: q.Size, Protocol: protocol(q.Proto),
		Headers: map[string]string{":method": q.Method, ":path": target, ":authority": q.Host, ":scheme": "http"},
	}
	for name, values := range q.Header {
		out.Headers[strings.ToLower(name)] = text(strings.Join(values, ","))
	}
	if p.MaxBody > 0 {
		out.Headers[strings.ToLower(headerPartial)] = fmt.Sprint(q.Partial)
		if p.PackAsBytes {
			out.RawBody = q.Body
		} else {
			out.Body = text(string(q.Body))
		}
	}
	return out
}

// text is valid as protobuf's: what is no UTF-8 is replaced, as Envoy does.
func text(s string) string {
	if utf8.ValidString(s) {
		return s
	}
	return strings.ToValidUTF8(s, "!")
}

// protocol is Envoy's name of one.
func protocol(proto string) string {
	if proto == "HTTP/2.0" {
		return "HTTP/2"
	}
	return proto
}

func peer(a netip.AddrPort, id spiffe.ID) *auth.AttributeContext_Peer {
	return &auth.AttributeContext_Peer{Principal: id.String(), Address: &core.Address{Address: &core.Address_SocketAddress{
		SocketAddress: &core.SocketAddress{Address: a.Addr().Unmap().String(), PortSpecifier: &core.SocketAddress_PortValue{PortValue: uint32(a.Port())}},
	}}}
}

func grpcAllowed(in *auth.OkHttpResponse) Answer {
	out := Answer{Allow: true}
	edit(&out.Edit, in.GetHeaders())
	edit(&out.Response, in.GetResponseHeadersToAdd())
	for _, name := range in.GetHeadersToRemove() {
		if writable(name) {
			out.Edit.Remove = append(out.Edit.Remove, name)
		}
	}
	for _, p := range in.GetQueryParametersToSet() {
		out.Edit.SetQuery = append(out.Edit.SetQuery, mesh.Header{Name: p.GetKey(), Value: p.GetValue()})
	}
	out.Edit.RemoveQuery = in.GetQueryParametersToRemove()
	return out
}

func grpcDenied(in *auth.DeniedHttpResponse) Answer {
	out := Answer{Cause: policy.CauseRefused, Status: int(in.GetStatus().GetCode()), Body: []byte(in.GetBody())}
	if out.Status < 200 || out.Status > 599 { // none is given, or none that ends a request
		out.Status = http.StatusForbidden
	}
	var e Edit
	edit(&e, in.GetHeaders())
	out.Header = http.Header{}
	e.Header(out.Header)
	return out
}

// edit reads options of headers. Unlike elsewhere in Envoy's API, a field is
// replaced if nothing is said.
func edit(to *Edit, options []*core.HeaderValueOption) {
	for _, o := range options {
		value := o.GetHeader().GetValue()
		if raw := o.GetHeader().GetRawValue(); len(raw) > 0 {
			value = string(raw)
		}
		h := &to.Set
		switch {
		case o.GetAppend().GetValue():
			h = &to.Append
		case o.GetAppendAction() == core.HeaderValueOption_ADD_IF_ABSENT:
			h = &to.Absent
		}
		add(h, o.GetHeader().GetKey(), value)
	}
}

// reconnect looks for a provider that was gone more often than gRPC does by
// default, since requests are denied meanwhile.
var reconnect = grpc.ConnectParams{
	Backoff:           backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: time.Second},
	MinConnectTimeout: 5 * time.Second,
}

// grpcConn finds or makes the connection to a provider. The mesh encrypts it.
func (a *Asker) grpcConn(p *mesh.Provider) (*grpc.ClientConn, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed {
		return nil, errClosed
	}
	at := addressOf(p)
	if c, ok := a.grpc[at]; ok {
		return c, nil
	}
	c, err := grpc.NewClient("passthrough:///"+at.authority(),
		grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDisableServiceConfig(), grpc.WithNoProxy(), grpc.WithConnectParams(reconnect),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return a.dial(ctx, p) }))
	if err != nil {
		return nil, err
	}
	a.grpc[at] = c
	return c, nil
}
