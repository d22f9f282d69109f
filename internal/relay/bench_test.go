package relay_test

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"syscall"
	"testing"
	"time"

	"github.com/ambit-mesh/ambit/internal/certs/certstest"
	"github.com/ambit-mesh/ambit/internal/hbone"
	"github.com/ambit-mesh/ambit/internal/hbone/h2"
	"github.com/ambit-mesh/ambit/internal/relay"
	"github.com/ambit-mesh/ambit/internal/spiffe"
)

// cpu is the processor time of this process.
func cpu() time.Duration {
	var u syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// pump sends b.N chunks from one socket to the other.
func pump(b *testing.B, from, to *net.TCPConn) {
	const chunk = 256 << 10
	b.SetBytes(chunk)
	received := make(chan error, 1)
	go func() {
		_, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, io.LimitReader(struct{ io.Reader }{to}, int64(b.N)*chunk), make([]byte, chunk))
		received <- err
	}()
	buf := make([]byte, chunk)
	begin := cpu()
	b.ResetTimer()
	for range b.N {
		if _, err := from.Write(buf); err != nil {
			b.Fatal(err)
		}
	}
	if err := <-received; err != nil {
		b.Fatal(err)
	}
	b.StopTimer()
	b.ReportMetric((cpu()-begin).Seconds()/(float64(b.N)*chunk/1e9), "cpu-s/GB")
}

func sockets(b *testing.B) (*net.TCPConn, *net.TCPConn) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		b.Fatal(err)
	}
	d, err := l.Accept()
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { c.Close(); d.Close() })
	return c.(*net.TCPConn), d.(*net.TCPConn)
}

// BenchmarkTunnel is two relays with a tunnel between them, all in this process.
func BenchmarkTunnel(b *testing.B) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	id := certstest.ID("shop", "front")
	creds := certstest.New(b).Credentials(b, id)
	client, a := sockets(b)
	server, z := sockets(b)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	srv := h2.NewServer(h2.ServerConfig{
		Listener: l, Credentials: creds,
		Self: func(context.Context) (spiffe.ID, error) { return id, nil },
		Handler: func(in hbone.Incoming) {
			if s, err := in.Accept(nil); err == nil {
				relay.Run(ctx, s, z, nil)
			}
		},
	})
	served := make(chan error, 1)
	go func() { served <- srv.Serve(ctx) }()
	defer func() { cancel(); <-served }()
	tunnel, err := h2.NewDialer(h2.Config{Credentials: creds}).Dial(ctx, hbone.Target{
		Address: l.Addr().(*net.TCPAddr).AddrPort(), Self: id, Accept: []spiffe.ID{id},
	})
	if err != nil {
		b.Fatal(err)
	}
	defer tunnel.Close()
	s, _, err := tunnel.Open(ctx, hbone.Request{Authority: "a:1"})
	if err != nil {
		b.Fatal(err)
	}
	go relay.Run(ctx, a, s, nil)
	pump(b, client, server)
}

// BenchmarkTLS is the same with crypto/tls and a loop of 64 KiB.
func BenchmarkTLS(b *testing.B) {
	ctx := context.Background()
	id := certstest.ID("shop", "front")
	creds := certstest.New(b).Credentials(b, id)
	client, a := sockets(b)
	server, z := sockets(b)
	m, n := sockets(b)
	cc, err := creds.Client(ctx, id, []spiffe.ID{id})
	if err != nil {
		b.Fatal(err)
	}
	sc, err := creds.Server(ctx, id)
	if err != nil {
		b.Fatal(err)
	}
	loop := func(dst io.Writer, src io.Reader) {
		io.CopyBuffer(struct{ io.Writer }{dst}, struct{ io.Reader }{src}, make([]byte, 64<<10))
	}
	go loop(tls.Client(m, cc), a)
	go loop(z, tls.Server(n, sc))
	pump(b, client, server)
}

// BenchmarkPlain is the same with two loops of 64 KiB.
func BenchmarkPlain(b *testing.B) {
	client, a := sockets(b)
	server, z := sockets(b)
	m, n := sockets(b)
	loop := func(dst io.Writer, src io.Reader) {
		io.CopyBuffer(struct{ io.Writer }{dst}, struct{ io.Reader }{src}, make([]byte, 64<<10))
	}
	go loop(m, a)
	go loop(z, n)
	pump(b, client, server)
}
