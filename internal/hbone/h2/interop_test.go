package h2

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"sync"
	"testing"

	"golang.org/x/net/http2"

	"github.com/ambit-mesh/ambit/internal/certs"
	"github.com/ambit-mesh/ambit/internal/certs/certstest"
	"github.com/ambit-mesh/ambit/internal/hbone"
	"github.com/ambit-mesh/ambit/internal/spiffe"
)

// foreign is a server of TLS connections that are not ours; handle runs one.
func foreign(t *testing.T, handle func(*tls.Conn)) (netip.AddrPort, *certs.Manager) {
	t.Helper()
	creds := certstest.New(t).Credentials(t, clientID, serverID)
	cfg, err := creds.Server(context.Background(), serverID)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var conns sync.WaitGroup
	conns.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			conns.Go(func() {
				defer c.Close()
				tc := tls.Server(c, cfg)
				if tc.Handshake() == nil {
					handle(tc)
				}
			})
		}
	})
	t.Cleanup(func() { l.Close(); conns.Wait() })
	return addrPort(l.Addr()), creds
}

func dialForeign(t *testing.T, handle func(*tls.Conn)) hbone.Tunnel {
	t.Helper()
	addr, creds := foreign(t, handle)
	tunnel, err := NewDialer(Config{Credentials: creds}).Dial(t.Context(), hbone.Target{Address: addr, Self: clientID, Accept: []spiffe.ID{serverID}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tunnel.Close() })
	return tunnel
}

const interopBytes = 8 << 20

func noise(seed byte) io.Reader {
	return io.LimitReader(rand.NewChaCha8([32]byte{seed}), interopBytes)
}

func digest(r io.Reader) (string, error) {
	h := sha256.New()
	_, err := io.Copy(h, struct{ io.Reader }{r})
	return string(h.Sum(nil)), err
}

func TestOurClientWithTheServerOfXNet(t *testing.T) {
	var srv http2.Server
	tunnel := dialForeign(t, func(c *tls.Conn) {
		srv.ServeConn(c, &http2.ServeConnOpts{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method != "CONNECT" || r.Header.Get("Baggage") != "k=v" {
				t.Errorf("request %s %v", r.Method, r.Header)
			}
			if r.Host == "deny:1" {
				w.Header().Set(hbone.HeaderReason, "because")
				w.WriteHeader(401)
				return
			}
			w.Header().Set(hbone.HeaderBaggage, "a=b")
			w.WriteHeader(200)
			w.(http.Flusher).Flush()
			if r.Host == "early:1" {
				return // without reading: END_STREAM, then RST_STREAM(NO_ERROR)
			}
			buf := make([]byte, 32<<10)
			for {
				n, err := r.Body.Read(buf)
				if _, err := w.Write(buf[:n]); err != nil {
					return
				}
				w.(http.Flusher).Flush()
				if err != nil {
					return
				}
			}
		})})
	})
	header := map[string]string{"baggage": "k=v"}
	for range 3 {
		s, resp, err := tunnel.Open(t.Context(), hbone.Request{Authority: "a:1", Header: header})
		if err != nil || resp.Header[hbone.HeaderBaggage] != "a=b" {
			t.Fatalf("answer %v, %v", resp, err)
		}
		go func() { s.ReadFrom(noise(1)); s.CloseWrite() }()
		want, _ := digest(noise(1))
		if got, err := digest(s); got != want || err != nil {
			t.Errorf("echo differs, or %v", err)
		}
		s.Close()
	}
	_, _, err := tunnel.Open(t.Context(), hbone.Request{Authority: "deny:1", Header: header})
	if e, ok := errors.AsType[*hbone.StatusError](err); !ok || e.Response.Status != 401 || e.Response.Header[hbone.HeaderReason] != "because" {
		t.Errorf("refusal: %v", err)
	}
	s, _, err := tunnel.Open(t.Context(), hbone.Request{Authority: "early:1", Header: header})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(s); len(got) > 0 || err != nil {
		t.Errorf("read %q, %v, want a clean end", got, err)
	}
	s.Close()
}

func TestTheClientOfXNetWithOurServer(t *testing.T) {
	s := serve(t, ServerConfig{Handler: func(in hbone.Incoming) {
		if in.Request().Authority == "deny:1" {
			in.Reject(401, "because")
			return
		}
		echoHandler(in)
	}})
	cfg, err := s.creds.Client(t.Context(), clientID, []spiffe.ID{serverID})
	if err != nil {
		t.Fatal(err)
	}
	c, err := tls.Dial("tcp", s.addr.String(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	cc, err := new(http2.Transport).NewClientConn(c)
	if err != nil {
		t.Fatal(err)
	}
	defer cc.Close()
	ask := func(authority string, body io.ReadCloser) *http.Response {
		t.Helper()
		resp, err := cc.RoundTrip(&http.Request{Method: "CONNECT", Host: authority, URL: &url.URL{Host: authority}, Body: body, ContentLength: -1, Header: http.Header{}})
		if err != nil {
			t.Fatal(err)
		}
		return resp
	}
	for range 3 {
		resp := ask("a:1", io.NopCloser(noise(2)))
		want, _ := digest(noise(2))
		if got, err := digest(resp.Body); got != want || err != nil || resp.StatusCode != 200 {
			t.Errorf("status %d, echo differs, or %v", resp.StatusCode, err)
		}
		resp.Body.Close()
	}
	r, w := io.Pipe()
	resp := ask("deny:1", r)
	if resp.StatusCode != 401 || resp.Header.Get(hbone.HeaderReason) != "because" {
		t.Errorf("answer %v", resp)
	}
	w.Close()
	resp.Body.Close()
}

// rawServer is a server of frames; handle runs after the SETTINGS.
func rawServer(t *testing.T, handle func(p *rawPeer)) hbone.Tunnel {
	t.Helper()
	return dialForeign(t, func(c *tls.Conn) {
		p := newRawPeer(t, c)
		if _, err := io.ReadFull(c, make([]byte, len(http2.ClientPreface))); err != nil {
			return
		}
		p.WriteSettings(http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 10}, http2.Setting{ID: http2.SettingMaxFrameSize, Val: 1 << 20})
		handle(p)
	})
}

// requested waits for a CONNECT.
func (p *rawPeer) requested() uint32 {
	f, err := p.next(func(f http2.Frame) bool { _, ok := f.(*http2.MetaHeadersFrame); return ok })
	if err != nil {
		return 0
	}
	return f.Header().StreamID
}

// rest reads until the peer leaves.
func (p *rawPeer) rest() { p.next(func(http2.Frame) bool { return false }) }

func TestWhatServersMayAnswer(t *testing.T) {
	for _, tt := range []struct {
		name string
		do   func(p *rawPeer, id uint32)
		open error // that Open gives; nil is a stream
		got  string
		read error
	}{
		{"an interim answer first", func(p *rawPeer, id uint32) {
			p.headers(id, false, ":status", "103", "link", "x")
			p.headers(id, false, ":status", "200")
			p.WriteData(id, true, []byte("x"))
		}, nil, "x", nil},
		{"trailers", func(p *rawPeer, id uint32) {
			p.headers(id, false, ":status", "200")
			p.WriteData(id, false, []byte("x"))
			p.headers(id, true, "grpc-status", "0")
		}, nil, "x", nil},
		{"an end with the answer", func(p *rawPeer, id uint32) { p.headers(id, true, ":status", "200") }, nil, "", nil},
		{"NO_ERROR is an orderly end", func(p *rawPeer, id uint32) {
			p.headers(id, false, ":status", "200")
			p.WriteData(id, false, []byte("x"))
			p.WriteRSTStream(id, http2.ErrCodeNo)
		}, nil, "x", nil},
		{"CANCEL without an end is a reset", func(p *rawPeer, id uint32) {
			p.headers(id, false, ":status", "200")
			p.WriteData(id, false, []byte("x"))
			p.WriteRSTStream(id, http2.ErrCodeCancel)
		}, nil, "x", hbone.ErrReset},
		{"CANCEL after the end takes nothing back", func(p *rawPeer, id uint32) {
			p.headers(id, false, ":status", "200")
			p.WriteData(id, true, []byte("x"))
			p.WriteRSTStream(id, http2.ErrCodeCancel)
		}, nil, "x", nil},
		{"a reset instead of an answer", func(p *rawPeer, id uint32) { p.WriteRSTStream(id, http2.ErrCodeInternal) }, hbone.ErrReset, "", nil},
		{"a stream refused may be tried elsewhere", func(p *rawPeer, id uint32) { p.WriteRSTStream(id, http2.ErrCodeRefusedStream) }, hbone.ErrDraining, "", nil},
		{"a stream above the GOAWAY may be tried elsewhere", func(p *rawPeer, id uint32) { p.WriteGoAway(0, http2.ErrCodeNo, nil) }, hbone.ErrDraining, "", nil},
		{"a connection that is lost", func(p *rawPeer, id uint32) { p.conn.Close() }, hbone.ErrReset, "", nil},
		{"no status", func(p *rawPeer, id uint32) { p.headers(id, false, "x", "y") }, hbone.ErrReset, "", nil},
		{"a push", func(p *rawPeer, id uint32) {
			p.WritePushPromise(http2.PushPromiseParam{StreamID: id, PromiseID: 2, EndHeaders: true, BlockFragment: p.block(":method", "GET")})
		}, hbone.ErrReset, "", nil},
		{"frames as long as we allow, padded ones too", func(p *rawPeer, id uint32) {
			p.headers(id, false, ":status", "200")
			p.WriteData(id, false, bytes.Repeat([]byte("a"), frameLen))
			p.WriteDataPadded(id, true, bytes.Repeat([]byte("a"), 1000), make([]byte, 255))
		}, nil, string(bytes.Repeat([]byte("a"), frameLen+1000)), nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tunnel := rawServer(t, func(p *rawPeer) {
				if id := p.requested(); id != 0 {
					tt.do(p, id)
					p.rest()
				}
			})
			s, _, err := tunnel.Open(t.Context(), hbone.Request{Authority: "a:1"})
			if !errors.Is(err, tt.open) {
				t.Fatalf("Open: %v, want %v", err, tt.open)
			}
			if err != nil {
				return
			}
			if got, err := io.ReadAll(s); string(got) != tt.got || !errors.Is(err, tt.read) {
				t.Errorf("read %d bytes, %v, want %d, %v", len(got), err, len(tt.got), tt.read)
			}
			s.Close()
		})
	}
}

func TestTheCapacityIsTheSmallerOfBoth(t *testing.T) {
	tunnel := rawServer(t, func(p *rawPeer) { p.rest() })
	if got := tunnel.Capacity(); got != 10 {
		t.Errorf("capacity %d, want the peer's 10", got)
	}
}

func TestAnOrderlyGoAwayClosesTheTunnelAfterItsLastStream(t *testing.T) {
	closed := make(chan bool)
	tunnel := rawServer(t, func(p *rawPeer) {
		id := p.requested()
		p.headers(id, false, ":status", "200")
		p.WriteGoAway(id, http2.ErrCodeNo, nil)
		p.WriteData(id, true, []byte("last"))
		p.rest()
		close(closed)
	})
	s, _, err := tunnel.Open(t.Context(), hbone.Request{Authority: "a:1"})
	if err != nil {
		t.Fatal(err)
	}
	<-tunnel.Done()
	if got, err := io.ReadAll(s); string(got) != "last" || err != nil {
		t.Errorf("read %q, %v", got, err)
	}
	select {
	case <-closed:
		t.Error("closed with a stream open")
	default:
	}
	s.CloseWrite()
	<-closed
}

func TestThePeersWindowsAreKept(t *testing.T) {
	const streamWindow = 1000
	got := make(chan int, 10)
	tunnel := dialForeign(t, func(c *tls.Conn) {
		p := newRawPeer(t, c)
		io.ReadFull(c, make([]byte, len(http2.ClientPreface)))
		p.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: streamWindow})
		id := p.requested()
		p.headers(id, false, ":status", "200")
		count := func(until int) {
			for n := 0; n < until; {
				n += len(want[*http2.DataFrame](p).Data())
				if n >= until {
					got <- n
				}
			}
		}
		count(streamWindow)
		p.WriteWindowUpdate(id, 70_000) // now the tunnel's 65,535 is what counts
		count(65535 - streamWindow)
		p.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
		p.WriteWindowUpdate(0, 1<<20)
		count(70_000 - (65535 - streamWindow) - streamWindow)
		p.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: streamWindow})
		count(streamWindow)
		p.rest()
	})
	s, _, err := tunnel.Open(t.Context(), hbone.Request{Authority: "a:1"})
	if err != nil {
		t.Fatal(err)
	}
	var writing sync.WaitGroup
	writing.Go(func() { s.Write(make([]byte, 1<<20)) })
	for _, want := range []int{streamWindow, 65535 - streamWindow, 70_000 - 65535, streamWindow} {
		if n := <-got; n != want {
			t.Errorf("%d bytes came, want %d", n, want)
		}
	}
	s.Reset()
	writing.Wait()
}
