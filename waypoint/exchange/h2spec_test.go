package exchange

import (
	"io"
	"net"
	"net/http"
	"net/netip"
	"testing"

	"github.com/ambit-mesh/ambit/internal/h2spectest"
)

// h2specExceptions are the cases of h2spec that the engine does not pass, with
// the reason; docs/routing.md says so too.
var h2specExceptions = map[string]string{
	"http2/3.5/2":     "the port speaks HTTP/1.1 too: what is no preface is answered 400 in HTTP/1.1, and the connection is closed",
	"http2/4.2/3":     "the frame is within the size that the engine's SETTINGS allow, which the case does not read",
	"http2/6.5.3/1":   "a SETTINGS frame that says one thing twice is taken for an attack: the connection is closed",
	"http2/8.1.2.2/1": "a malformed request is answered 400 before its stream ends, as RFC 9113, 8.1.1 allows; no backend sees it",
	"http2/8.1.2.2/2": "likewise",
}

// plainEngine serves HTTP on a plaintext listener, as no waypoint does: for
// test programs that know no tunnels.
func plainEngine(t *testing.T, h http.Handler) netip.AddrPort {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	e := NewEngine(EngineConfig{Handler: h})
	done := make(chan struct{})
	go func() { // ends with the listener
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go e.Serve(c, &Arrival{}) // ends with the engine
		}
	}()
	t.Cleanup(func() { l.Close(); <-done; e.Close() })
	return l.Addr().(*net.TCPAddr).AddrPort()
}

// TestH2Spec runs h2spec v2.2.1, tests that nobody here wrote.
func TestH2Spec(t *testing.T) {
	at := plainEngine(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		io.WriteString(w, "hello, world\n")
	}))
	h2spectest.Run(t, at, h2specExceptions)
}
