package xds

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
)

// maxMessage bounds a decoded response: all of a large mesh comes in one.
const maxMessage = 200 << 20

// Window is how much of a response may be on its way unread, in bytes. All of a mesh comes
// at once, and a server that had to ask again and again whether it may go on would
// keep its others waiting; the whole is held until it is decoded anyway.
const Window = 4 << 20

// dial prepares a connection with the roots as they are now. It connects when
// the stream is opened.
func (c *Client) dial() (*grpc.ClientConn, error) {
	pem, err := os.ReadFile(c.cfg.RootFile)
	if err != nil {
		return nil, fmt.Errorf("reading trusted roots: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("no certificate in %s", c.cfg.RootFile)
	}
	name := c.cfg.ServerName
	if name == "" {
		name, _, _ = net.SplitHostPort(c.cfg.Address)
	}
	opts := []grpc.DialOption{
		grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{MinVersion: tls.VersionTLS13, RootCAs: roots, ServerName: name})),
		grpc.WithContextDialer(c.cfg.Dial),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 30 * time.Second, Timeout: 10 * time.Second}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(c.cfg.MaxMessage)),
		grpc.WithStaticStreamWindowSize(Window), grpc.WithStaticConnWindowSize(Window),
		grpc.WithConnectParams(grpc.ConnectParams{MinConnectTimeout: 5 * time.Second}),
		grpc.WithDisableServiceConfig(),
		grpc.WithNoProxy(),
	}
	if c.cfg.TokenFile != "" {
		opts = append(opts, grpc.WithPerRPCCredentials(tokenFile(c.cfg.TokenFile)))
	}
	conn, err := grpc.NewClient("passthrough:///"+c.cfg.Address, opts...)
	if err != nil {
		return nil, fmt.Errorf("dialling %s: %w", c.cfg.Address, err)
	}
	return conn, nil
}

func dialTCP(ctx context.Context, address string) (net.Conn, error) {
	d := net.Dialer{Timeout: 5 * time.Second, KeepAliveConfig: net.KeepAliveConfig{
		Enable: true, Idle: 300 * time.Second, Interval: 75 * time.Second, Count: 9,
	}}
	return d.DialContext(ctx, "tcp", address)
}

// tokenFile is a bearer token read anew for each stream, since the kubelet
// replaces it.
type tokenFile string

// GetRequestMetadata implements credentials.PerRPCCredentials.
func (f tokenFile) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	token, err := os.ReadFile(string(f))
	if err != nil {
		return nil, fmt.Errorf("reading token: %w", err)
	}
	return map[string]string{"authorization": "Bearer " + strings.TrimSpace(string(token))}, nil
}

// RequireTransportSecurity keeps the token off connections without TLS.
func (tokenFile) RequireTransportSecurity() bool { return true }

// The bounds of the pause between connections.
const (
	firstPause = 10 * time.Millisecond
	maxPause   = 15 * time.Second
)

// backoff doubles from firstPause to maxPause. Up to a fifth is added at
// random, so that the nodes of a cluster do not come back as one.
type backoff struct{ last time.Duration }

func (b *backoff) reset() { b.last = 0 }

func (b *backoff) next() time.Duration {
	b.last = min(max(2*b.last, firstPause), maxPause)
	return min(b.last+rand.N(b.last/5+1), maxPause)
}
