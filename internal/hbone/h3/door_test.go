package h3

import (
	"context"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/ambit-mesh/ambit/internal/hbone/door"
)

// deaf is a socket that hears of nothing but, perhaps, a Retry.
type deaf struct {
	net.PacketConn
	hearsRetry bool

	retries        atomic.Int64
	sent, received atomic.Int64 // bytes
}

func (c *deaf) WriteTo(p []byte, to net.Addr) (int, error) {
	c.sent.Add(int64(len(p)))
	return c.PacketConn.WriteTo(p, to)
}

func (c *deaf) ReadFrom(p []byte) (int, net.Addr, error) {
	for {
		n, from, err := c.PacketConn.ReadFrom(p)
		if err != nil {
			return n, from, err
		}
		c.received.Add(int64(n))
		if n > 0 && p[0]&0xf0 == 0xf0 { // a long header of type 3
			c.retries.Add(1)
			if c.hearsRetry {
				return n, from, nil
			}
		}
	}
}

// halfOpen begins n handshakes from an address, of which none goes on. They live
// until the returned function is called.
func (s *served) halfOpen(from netip.Addr, n int, hearsRetry bool) (*deaf, func()) {
	s.t.Helper()
	pc, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(from, 0)))
	if err != nil {
		s.t.Fatal(err)
	}
	c := &deaf{PacketConn: pc, hearsRetry: hearsRetry}
	tr := &quic.Transport{Conn: c}
	ctx, cancel := context.WithCancel(context.Background())
	var dials sync.WaitGroup
	for range n {
		dials.Go(func() {
			tr.Dial(ctx, net.UDPAddrFromAddrPort(s.addr), s.clientTLS(), &quic.Config{HandshakeIdleTimeout: time.Minute})
		})
	}
	return c, func() {
		cancel()
		dials.Wait()
		tr.Close()
		pc.Close()
	}
}

func TestHalfOpenHandshakes(t *testing.T) {
	here := netip.MustParseAddr("127.0.0.1")
	for _, tt := range []struct {
		name       string
		hearsRetry bool
		each       int
		timeout    time.Duration
		most       int
		told       door.Abuse
	}{
		{"from an address that nobody has shown to be its own are few", false, 200, 8 * time.Second, 8, ""},
		{"from an address that is its own are bounded", true, 200, 8 * time.Second, 64, door.Handshakes},
		{"are cut after a while", false, 5, 2 * time.Second, 8, door.Slow},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := serve(t, ServerConfig{Tuning: Tuning{HandshakeTimeout: tt.timeout}})
			s.besides(func() {
				c, hangUp := s.halfOpen(here, tt.each, tt.hearsRetry)
				defer hangUp()
				if tt.told != "" {
					until(t, string(tt.told), func() bool { return s.told.of(tt.told) > 0 })
				} else {
					until(t, "doubts", func() bool { return c.retries.Load() > 0 })
				}
				if n := s.srv.door.Waiting(); n > tt.most {
					t.Errorf("%d handshakes wait, want %d", n, tt.most)
				}
				if sent, received := c.sent.Load(), c.received.Load(); received > 3*sent {
					t.Errorf("%d bytes were answered with %d", sent, received)
				}
				// Not only who is in already: newcomers get in, and if the address was
				// used by another, those at that address too.
				froms := []netip.Addr{netip.MustParseAddr("127.0.0.3")}
				if !tt.hearsRetry {
					froms = append(froms, here)
				}
				for _, from := range froms {
					tn, err := s.dial(otherID, from)
					if err != nil {
						t.Fatalf("from %s: %v", from, err)
					}
					tn.Close()
				}
			})
		})
	}
}

func TestTunnelsOfOneAddressAreBounded(t *testing.T) {
	s := serve(t, ServerConfig{PeerTunnels: 3})
	here := netip.MustParseAddr("127.0.0.1")
	s.besides(func() {
		for range 3 {
			tn, err := s.dial(clientID, here)
			if err != nil {
				t.Fatal(err)
			}
			defer tn.Close()
		}
		if tn, err := s.dial(clientID, here); err == nil {
			tn.Close()
			t.Error("a fourth got in")
		}
	})
	if s.told.of(door.Connections) == 0 {
		t.Errorf("told of %v", s.told.count)
	}
}

func TestATunnelOnWhichNothingIsAskedIsClosed(t *testing.T) {
	s := serve(t, ServerConfig{FirstStreamTimeout: 50 * time.Millisecond})
	tn, err := s.dial(clientID, netip.MustParseAddr("127.0.0.1"))
	if err != nil {
		t.Fatal(err)
	}
	defer tn.Close()
	select {
	case <-tn.Done():
	case <-time.After(patience):
		t.Error("it is not closed")
	}
}
