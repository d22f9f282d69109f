package eavesdrop

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/ambit-mesh/ambit/internal/certs/certstest"
	"github.com/ambit-mesh/ambit/internal/hbone"
	"github.com/ambit-mesh/ambit/internal/hbone/h2"
	"github.com/ambit-mesh/ambit/internal/spiffe"
)

var (
	alice = spiffe.ID{TrustDomain: "cluster.local", Namespace: "shop", ServiceAccount: "alice"}
	bob   = spiffe.ID{TrustDomain: "cluster.local", Namespace: "shop", ServiceAccount: "bob"}
)

const marker = "MARKER-that-nobody-else-should-read"

// tapped records what passes a connection.
type tapped struct {
	net.Conn
	mu   sync.Mutex
	seen bytes.Buffer
}

func (c *tapped) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.note(p[:n])
	return n, err
}

func (c *tapped) Write(p []byte) (int, error) {
	c.note(p)
	return c.Conn.Write(p)
}

func (c *tapped) note(p []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.seen.Write(p)
}

func (c *tapped) bytes() []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	return bytes.Clone(c.seen.Bytes())
}

func TestTheTunnelCannotBeRead(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	ca := certstest.New(t)
	to := serveEcho(t, ctx, ca)
	var tap *tapped
	dialer := h2.NewDialer(h2.Config{
		Credentials: ca.Credentials(t),
		Connect: func(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
			c, err := new(net.Dialer).DialContext(ctx, "tcp", to.String())
			tap = &tapped{Conn: c}
			return tap, err
		},
	})
	tunnel, err := dialer.Dial(ctx, hbone.Target{Address: to, Self: alice, Accept: []spiffe.ID{bob}})
	if err != nil {
		t.Fatal(err)
	}
	defer tunnel.Close()
	stream, _, err := tunnel.Open(ctx, hbone.Request{Authority: to.String(), Header: map[string]string{hbone.HeaderBaggage: marker}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Write([]byte(marker)); err != nil {
		t.Fatal(err)
	}
	if err := stream.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(stream)
	if err != nil || string(got) != marker {
		t.Fatalf("the server sent back %q, %v", got, err)
	}
	wire := tap.bytes()
	if len(wire) < 2*len(marker) {
		t.Fatalf("only %d bytes were heard: the tap proves nothing", len(wire))
	}
	for _, secret := range []string{marker, "CONNECT", "PRI * HTTP/2.0", bob.String(), alice.String()} {
		if bytes.Contains(wire, []byte(secret)) {
			t.Errorf("%q can be read on the wire", secret)
		}
	}
	if tlsHandshake := byte(22); wire[0] != tlsHandshake {
		t.Errorf("the connection begins with byte %d, not with a TLS handshake", wire[0])
	}
}

// serveEcho serves tunnels whose streams send back what they receive.
func serveEcho(t *testing.T, ctx context.Context, ca *certstest.CA) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := h2.NewServer(h2.ServerConfig{
		Listener: l, Credentials: ca.Credentials(t), Self: func(context.Context) (spiffe.ID, error) { return bob, nil },
		Handler: func(in hbone.Incoming) {
			s, err := in.Accept(nil)
			if err != nil {
				return
			}
			defer s.Close()
			if _, err := io.Copy(s, s); err == nil {
				_ = s.CloseWrite() // the client tells if it did not get everything
			}
		},
	})
	ctx, stop := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- server.Serve(ctx) }()
	t.Cleanup(func() {
		stop()
		<-done
	})
	return l.Addr().(*net.TCPAddr).AddrPort()
}
