package h2

import (
	"context"
	"io"
	"net"
	"net/netip"
	"sync"
	"testing"

	"github.com/ambit-mesh/ambit/internal/h2spectest"
	"github.com/ambit-mesh/ambit/internal/hbone"
	"github.com/ambit-mesh/ambit/internal/hbone/head"
)

// h2specExceptions are the cases of h2spec that the engine does not pass, with
// the reason; docs/security.md says so too.
var h2specExceptions = map[string]string{
	"http2/4.2/3":     "the frame is within the size that the engine's SETTINGS allow, which the case does not read",
	"http2/5.3.1/1":   "RFC 9113 did away with priorities: they are ignored, and count as frames that carry nothing",
	"http2/5.3.1/2":   "likewise",
	"http2/8.1.2.6/1": "a CONNECT has no content-length: what follows is the tunnelled connection's, and other methods are answered 400",
	"http2/8.1.2.6/2": "likewise",
}

// anyMethod takes the requests that h2spec makes for CONNECTs to one place, once
// the engine's own rules have found nothing malformed in them. The engine itself
// answers them 400, and then most cases would have nothing to look at.
func anyMethod(b *head.Block) (hbone.Request, int, string, string) {
	r, status, reason, malformed := b.Request()
	if status == hbone.StatusBadRequest && b.Pseudo[":method"] != "CONNECT" {
		return hbone.Request{Authority: "h2spec:1"}, 0, "", ""
	}
	return r, status, reason, malformed
}

// inClear is a connection in place of its TLS.
type inClear struct{ *net.TCPConn }

// plainServer is the engine on a plaintext listener, as nothing in the product
// is: for a test program that knows no mutual TLS.
func plainServer(t *testing.T) netip.AddrPort {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var tuning Tuning
	tuning.fill(100)
	ctx, cancel := context.WithCancel(context.Background())
	var conns sync.WaitGroup
	conns.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			conns.Go(func() { servePlain(ctx, c.(*net.TCPConn), tuning) })
		}
	})
	t.Cleanup(func() { l.Close(); cancel(); conns.Wait() })
	return addrPort(l.Addr())
}

func servePlain(ctx context.Context, c *net.TCPConn, tuning Tuning) {
	stop := context.AfterFunc(ctx, func() { c.Close() }) // h2spec leaves some open
	defer stop()
	tn := newTunnel(inClear{c}, newWire(c), tuning, false)
	tn.requestOf = anyMethod
	tn.handler = func(in hbone.Incoming) {
		s, err := in.Accept(nil)
		if err != nil {
			return
		}
		io.Copy(io.Discard, struct{ io.Reader }{s})
		io.WriteString(s, "hello, world\n")
		s.CloseWrite()
	}
	tn.start()
	<-tn.ended_
	tn.work.Wait()
	tn.cancel()
	tn.serving.Wait()
}

// TestH2Spec runs h2spec v2.2.1, tests that nobody here wrote.
func TestH2Spec(t *testing.T) {
	at := plainServer(t)
	h2spectest.Run(t, at, h2specExceptions)
}
