package h3

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/ambit-mesh/ambit/internal/hbone"
)

// move makes a tunnel's client go on from another socket.
func move(t *testing.T, tn *tunnel, to string) {
	t.Helper()
	pc, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.ParseIP(to)})
	if err != nil {
		t.Fatal(err)
	}
	tr := &quic.Transport{Conn: pc}
	t.Cleanup(func() { tr.Close(); pc.Close() })
	path, err := tn.conn.AddPath(tr)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := path.Probe(ctx); err != nil {
		t.Fatal(err)
	}
	if err := path.Switch(); err != nil {
		t.Fatal(err)
	}
}

func TestATunnelDoesNotFollowItsPeerToAnotherAddress(t *testing.T) {
	here := netip.MustParseAddr("127.0.0.1")
	for _, tt := range []struct {
		name, to string
		stays    bool
	}{
		{"another address ends it", "127.0.0.9", false},
		{"another port of the same address does not", "127.0.0.1", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := serve(t, ServerConfig{})
			dialled, err := s.dial(clientID, here)
			if err != nil {
				t.Fatal(err)
			}
			tn := dialled.(*tunnel)
			defer tn.Close()
			long, _, err := tn.Open(t.Context(), hbone.Request{Authority: "a:1"})
			if err != nil {
				t.Fatal(err)
			}
			if err := ask(t.Context(), tn, long); err != nil {
				t.Fatal(err)
			}
			move(t, tn, tt.to)
			srv := s.srv.all()[0]
			for end := time.Now().Add(patience); ; {
				err = ask(t.Context(), tn, long)
				moved := addrPort(srv.conn.RemoteAddr()) != srv.peer.Remote
				if err != nil || tt.stays && moved || time.Now().After(end) {
					break
				}
			}
			if tt.stays != (err == nil) {
				t.Errorf("after the move: %v", err)
			}
			if gone := errors.Is(srv.reason(), errMoved); gone == tt.stays {
				t.Errorf("the server's reason: %v", srv.reason())
			}
		})
	}
}

func TestWhoShowsNoCertificateGetsNothing(t *testing.T) {
	s := serve(t, ServerConfig{})
	cfg := s.clientTLS()
	cfg.Certificates, cfg.GetClientCertificate = nil, nil
	c, err := s.dialQUIC(cfg)
	if err == nil { // a client's handshake is over before it is judged
		select {
		case <-c.Context().Done():
			err = context.Cause(c.Context())
		case <-time.After(patience):
		}
	}
	if alert, ok := errors.AsType[*quic.TransportError](err); !ok || !alert.Remote || !alert.ErrorCode.IsCryptoError() {
		t.Errorf("it ended with %v", err)
	}
	if n := len(s.srv.all()); n != 0 {
		t.Errorf("it has %d tunnels", n)
	}
}

// tickets is a client's cache of sessions.
type tickets struct {
	tls.ClientSessionCache
	given atomic.Int64
}

func (c *tickets) Put(key string, s *tls.ClientSessionState) {
	if s != nil {
		c.given.Add(1)
	}
	c.ClientSessionCache.Put(key, s)
}

func TestNothingIsResumedOrSaidEarly(t *testing.T) {
	s := serve(t, ServerConfig{})
	cache := &tickets{ClientSessionCache: tls.NewLRUClientSessionCache(10)}
	cfg := s.clientTLS()
	cfg.SessionTicketsDisabled = false
	cfg.ServerName = "reviews" // the cache's key
	cfg.ClientSessionCache = cache
	for range 3 {
		c, err := s.dialQUIC(cfg)
		if err != nil {
			t.Fatal(err)
		}
		p := &rawPeer{t, c}
		p.uni(appendFrame([]byte{uniControl}, frameSettings, nil))
		q := p.stream(connectTo("a:1"))
		if got := status(t, q); got != "200" {
			t.Errorf("status %s", got)
		}
		if state := c.ConnectionState(); state.TLS.DidResume || state.Used0RTT {
			t.Error("a session was resumed")
		}
		c.CloseWithError(0, "")
	}
	if n := cache.given.Load(); n > 0 {
		t.Errorf("%d tickets were given", n)
	}
}

func TestTheHandshakeIsOfTLS13WithAHybridKeyExchange(t *testing.T) {
	s := serve(t, ServerConfig{})
	c, err := s.dialQUIC(s.clientTLS())
	if err != nil {
		t.Fatal(err)
	}
	defer c.CloseWithError(0, "")
	if state := c.ConnectionState().TLS; state.Version != tls.VersionTLS13 || state.CurveID != tls.X25519MLKEM768 {
		t.Errorf("version %x, key exchange %v", state.Version, state.CurveID)
	}
}
