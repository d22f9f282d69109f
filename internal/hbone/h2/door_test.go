package h2

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"github.com/ambit-mesh/ambit/internal/hbone"
	"github.com/ambit-mesh/ambit/internal/hbone/door"
	"github.com/ambit-mesh/ambit/internal/spiffe"
)

// clientHello is the beginning of a handshake.
func clientHello(t *testing.T) []byte {
	t.Helper()
	near, far := net.Pipe()
	defer far.Close()
	var hello [4 << 10]byte
	var client sync.WaitGroup
	defer client.Wait()
	client.Go(func() {
		defer near.Close()
		tls.Client(near, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}}).Handshake()
	})
	n, err := far.Read(hello[:])
	if err != nil {
		t.Fatal(err)
	}
	far.Close()
	return hello[:n]
}

// connectFrom makes n connections from an address, each of which says something
// and then nothing more. They live until the returned function is called.
func (s *served) connectFrom(from netip.Addr, n int, say []byte) (hangUp func()) {
	s.t.Helper()
	d := &net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(from, 0)), Timeout: patience}
	conns := make([]net.Conn, 0, n)
	for range n {
		c, err := d.Dial("tcp", s.addr.String())
		if err != nil {
			continue // turned away already
		}
		c.Write(say)
		conns = append(conns, c)
	}
	return func() {
		for _, c := range conns {
			c.Close()
		}
	}
}

// dialGood makes a tunnel from another address.
func (s *served) dialGood(ctx context.Context) (hbone.Tunnel, error) {
	from := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}
	return NewDialer(Config{Credentials: s.creds, Connect: func(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
		return from.DialContext(ctx, "tcp", to.String())
	}}).Dial(ctx, hbone.Target{Address: s.addr, Self: otherID, Accept: []spiffe.ID{serverID}})
}

func TestHalfOpenHandshakes(t *testing.T) {
	for _, tt := range []struct {
		name      string
		hello     bool
		addresses int
		each      int
		timeout   time.Duration
		told      []Abuse
	}{
		{"of one address are bounded", false, 1, 300, time.Minute, []Abuse{AbuseHandshakes}},
		{"of one address are bounded after their first message too", true, 1, 300, time.Minute, []Abuse{AbuseHandshakes}},
		{"are cut after a while", false, 1, 10, 3 * time.Second, []Abuse{AbuseSlow}},
		{"are cut after their first message too", true, 1, 10, 3 * time.Second, []Abuse{AbuseSlow}},
		{"of many addresses make room for others", true, 20, 64, time.Minute, []Abuse{AbuseSlow}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var told reasons
			s := serve(t, ServerConfig{Handler: holding, Tuning: Tuning{HandshakeTimeout: tt.timeout, Abused: told.add}})
			var say []byte
			if tt.hello {
				say = clientHello(t)
			}
			s.besides(func() {
				for i := range tt.addresses {
					defer s.connectFrom(netip.AddrFrom4([4]byte{127, 1, 0, byte(1 + i)}), tt.each, say)()
				}
				// Not only who is in already: newcomers get in.
				for range 5 {
					tn, err := s.dialGood(t.Context())
					if err != nil {
						t.Fatal(err)
					}
					tn.Close()
				}
				for _, a := range tt.told {
					until(t, string(a), func() bool { return told.of(a) > 0 })
				}
				if n := s.srv.door.Waiting(); n > tt.addresses*64 || n > 512 {
					t.Errorf("%d handshakes wait", n)
				}
			})
		})
	}
}

// TestPendingHandshakesHoldLittle: what all places of a pod hold is known.
func TestPendingHandshakesHoldLittle(t *testing.T) {
	const handshakes, each = 200, 64 << 10
	s := serve(t, ServerConfig{Handler: holding, PeerHandshakes: handshakes, Tuning: Tuning{HandshakeTimeout: time.Minute}})
	before := inUse()
	hangUp := s.connectFrom(netip.MustParseAddr("127.0.0.1"), handshakes, clientHello(t))
	defer hangUp()
	until(t, "handshakes", func() bool { return s.srv.door.Waiting() == handshakes })
	if more := inUse() - before; more > handshakes*each {
		t.Errorf("a handshake holds %d bytes", more/handshakes)
	} else {
		t.Logf("a handshake holds %d bytes", more/handshakes)
	}
}

// inUse is heap and stacks after a collection.
func inUse() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapInuse + m.StackInuse)
}

// TestTenThousandConnectionsASecond: they come as fast as they can be made, and
// are mostly turned away at the price of an accept.
func TestTenThousandConnectionsASecond(t *testing.T) {
	var told reasons
	var refused atomic.Int64
	start := time.Now()
	s := serve(t, ServerConfig{
		Handler: holding, Refused: func(netip.AddrPort, error) { refused.Add(1) },
		Tuning: Tuning{Abused: told.add},
	})
	s.besides(func() {
		begin := time.Now()
		var all sync.WaitGroup
		for range 4 {
			all.Go(func() {
				for range 2500 {
					c, err := net.Dial("tcp", s.addr.String())
					if err != nil {
						continue // the backlog is full
					}
					c.Close()
				}
			})
		}
		all.Wait()
		t.Logf("%.0f connections/s", 10_000/time.Since(begin).Seconds())
	})
	if told.of(AbuseRate)+told.of(AbuseHandshakes) == 0 {
		t.Errorf("told of %v", told.count)
	}
	took := time.Since(start)
	if n := refused.Load(); n > door.LinesAtOnce+door.LinesASecond*int64(took/time.Second+1) {
		t.Errorf("%d lines about connections that failed in %v", n, took)
	}
}

func TestTunnelsOfOneAddressAreBounded(t *testing.T) {
	var told reasons
	s := serve(t, ServerConfig{Handler: holding, PeerTunnels: 3, Tuning: Tuning{Abused: told.add}})
	s.besides(func() {
		var open []*rawPeer
		for range 3 {
			p := s.dialRaw()
			p.connect(1)
			open = append(open, p)
		}
		cfg, err := s.creds.Client(t.Context(), clientID, []spiffe.ID{serverID})
		if err != nil {
			t.Fatal(err)
		}
		if c, err := tls.Dial("tcp", s.addr.String(), cfg); err == nil {
			c.Close()
			t.Error("a fourth got in")
		}
		open[0].conn.NetConn().Close()
		until(t, "a place is free", func() bool {
			c, err := tls.Dial("tcp", s.addr.String(), cfg)
			if err == nil {
				c.Close()
			}
			return err == nil
		})
		for _, p := range open {
			p.conn.NetConn().Close()
		}
	})
	if told.of(AbuseConnections) == 0 {
		t.Errorf("told of %v", told.count)
	}
}

// writeSlowly opens a stream and begins a frame as long as it may be, of which
// the last byte never comes.
func (p *rawPeer) writeSlowly() {
	p.connect(1)
	io.WriteString(p.conn, string([]byte{byte(payloadLen >> 16), byte(payloadLen >> 8 & 0xff), byte(payloadLen & 0xff), 1, 0, 0, 0, 0, 3}))
	p.conn.Write(make([]byte, payloadLen-1))
}

// TestSlowWritersHoldLittle: a peer that sends a header block byte by byte has a
// tunnel, and no more than the block's bound of memory.
func TestSlowWritersHoldLittle(t *testing.T) {
	const peers, each = 50, 768 << 10 // both ends are in this process
	s := serve(t, ServerConfig{Handler: holding})
	before := inUse()
	s.besides(func() {
		for range peers {
			p := s.dialRaw()
			defer p.conn.NetConn().Close()
			p.writeSlowly()
		}
		until(t, "tunnels", func() bool { return len(s.srv.all()) > peers/2 })
		if more := inUse() - before; more > peers*each {
			t.Errorf("%d slow writers hold %d bytes", peers, more)
		} else {
			t.Logf("a slow writer holds %d bytes", more/peers)
		}
	})
}

// TestSlowWritersAreCut: who cannot answer a ping in the middle of a block that
// does not end is cut.
func TestSlowWritersAreCut(t *testing.T) {
	s := serve(t, ServerConfig{Handler: holding, Tuning: Tuning{PingInterval: time.Second, PingTimeout: 4 * time.Second}})
	s.besides(func() {
		var slow []*rawPeer
		for range 5 {
			p := s.dialRaw()
			defer p.conn.NetConn().Close()
			p.writeSlowly()
			slow = append(slow, p)
		}
		for _, p := range slow {
			if _, err := p.next(func(http2.Frame) bool { return false }); errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("it is not cut: %v", err)
			}
		}
	})
}

func TestARefusalThatIsTurnedAwayIsSeenAtOnce(t *testing.T) {
	s := serve(t, ServerConfig{Handler: holding, PeerHandshakes: 1})
	hangUp := s.connectFrom(netip.MustParseAddr("127.0.0.1"), 1, nil)
	defer hangUp()
	until(t, "a handshake", func() bool { return s.srv.door.Waiting() == 1 })
	c, err := net.Dial("tcp", s.addr.String())
	if err != nil {
		return // before the dial was over
	}
	defer c.Close()
	c.SetReadDeadline(time.Now().Add(patience))
	if _, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("read: %v", err)
	}
}
