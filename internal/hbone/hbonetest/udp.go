package hbonetest

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"
	"testing"
	"time"

	"github.com/ambit-mesh/ambit/internal/hbone"
)

// echoDatagrams sends back what it receives, until the peer's end.
func echoDatagrams(in hbone.Incoming, s hbone.Stream) {
	for {
		p, err := s.ReceiveDatagram(in.Context())
		if errors.Is(err, io.EOF) {
			s.CloseWrite()
		}
		if err != nil {
			return
		}
		if s.SendDatagram(in.Context(), p) != nil {
			return
		}
	}
}

// openUDP opens a stream of datagrams that must be accepted.
func (r *rig) openUDP() hbone.Stream {
	r.t.Helper()
	s, _, err := r.tunnel.Open(within(r.t), hbone.Request{Protocol: hbone.ProtocolUDP, Authority: "10.0.0.7:53"})
	if err != nil {
		r.t.Fatal(err)
	}
	return s
}

// flows runs a test from both ends of a stream of datagrams.
func flows(f func(t *testing.T, here, there hbone.Stream)) func(*testing.T, Transport) {
	return func(t *testing.T, tr Transport) {
		for _, name := range []string{"client", "server"} {
			t.Run(name, func(t *testing.T) {
				h, next := handing(t)
				r := newRig(t, tr, h)
				here := r.openUDP()
				there := next()
				if name == "server" {
					here, there = there, here
				}
				do(t, name, func() { f(t, here, there) })
				until(t, "streams are gone", func() bool { return r.tunnel.Streams() == 0 })
			})
		}
	}
}

// exchange sends p until it comes back, as a program does that speaks UDP.
func exchange(t *testing.T, s hbone.Stream, p []byte) {
	t.Helper()
	for range 10 {
		if err := s.SendDatagram(within(t), p); err != nil {
			t.Fatalf("%d bytes: %v", len(p), err)
		}
		ctx, cancel := context.WithTimeout(within(t), Patience/10)
		for {
			got, err := s.ReceiveDatagram(ctx)
			if bytes.Equal(got, p) && err == nil {
				cancel()
				return
			}
			if err != nil {
				break // or a copy of another came late
			}
		}
		cancel()
	}
	t.Fatalf("%d bytes did not come back", len(p))
}

func wantDatagramError(t *testing.T, s hbone.Stream, want error) {
	t.Helper()
	for {
		if _, err := s.ReceiveDatagram(within(t)); err != nil {
			if !errors.Is(err, want) {
				t.Errorf("ReceiveDatagram: %v, want %v", err, want)
			}
			return
		}
	}
}

func numbered(n int) []byte {
	return append(binary.BigEndian.AppendUint32(nil, uint32(n)), make([]byte, 996)...)
}

var udpTests = []test{
	{"a request for datagrams names its target", func(t *testing.T, tr Transport) {
		got := make(chan hbone.Request, 1)
		r := newRig(t, tr, func(in hbone.Incoming) {
			got <- in.Request()
			if s, err := in.Accept(map[string]string{hbone.HeaderBaggage: "k8s.pod.name=dns"}); err == nil {
				echoDatagrams(in, s)
			}
		})
		for _, authority := range []string{"10.0.0.7:53", "[fd00::7]:8080", "dns.shop.svc.cluster.local:5353"} {
			want := hbone.Request{Protocol: hbone.ProtocolUDP, Authority: authority, Header: map[string]string{hbone.HeaderBaggage: "k8s.pod.name=front"}}
			s, resp, err := r.tunnel.Open(within(t), want)
			if err != nil {
				t.Fatal(err)
			}
			if resp.Status != hbone.StatusOK || resp.Header[hbone.HeaderBaggage] != "k8s.pod.name=dns" {
				t.Errorf("answer %+v", resp)
			}
			if req := <-got; fmt.Sprint(req) != fmt.Sprint(want) {
				t.Errorf("request %+v, want %+v", req, want)
			}
			s.CloseWrite()
			wantDatagramError(t, s, io.EOF)
			s.Close()
		}
		for _, authority := range []string{"", "10.0.0.7", ":53", "a:0", "a:x"} {
			if _, _, err := r.tunnel.Open(within(t), hbone.Request{Protocol: hbone.ProtocolUDP, Authority: authority}); err == nil {
				t.Errorf("%q is accepted", authority)
			}
		}
		if _, _, err := r.tunnel.Open(within(t), hbone.Request{Protocol: "connect-ip", Authority: "a:1"}); err == nil {
			t.Error("another protocol is accepted")
		}
	}},
	{"a refusal of datagrams arrives with status and reason", func(t *testing.T, tr Transport) {
		r := newRig(t, tr, func(in hbone.Incoming) { in.Reject(hbone.StatusUnauthorized, "policy shop/no-udp") })
		_, _, err := r.tunnel.Open(within(t), hbone.Request{Protocol: hbone.ProtocolUDP, Authority: "a:1"})
		if e := isStatus(err); e == nil || e.Response.Status != 401 || e.Response.Header[hbone.HeaderReason] != "policy shop/no-udp" {
			t.Errorf("error %v", err)
		}
	}},
	{"datagrams of every size arrive both ways", func(t *testing.T, tr Transport) {
		r := newRig(t, tr, accept(echoDatagrams))
		s := r.openUDP()
		for round := range 2 { // a path is first taken for a narrow one
			for _, n := range []int{1, 0, 1200, 1420, 1472, 9000, 65_000, hbone.MaxDatagram} {
				p, _ := io.ReadAll(newNoise(byte(n+round), n))
				exchange(t, s, p)
			}
		}
		if err := s.SendDatagram(within(t), make([]byte, hbone.MaxDatagram+1)); !errors.Is(err, hbone.ErrTooBig) {
			t.Errorf("one byte more: %v, want ErrTooBig", err)
		}
		exchange(t, s, []byte("unharmed"))
	}},
	{"small datagrams arrive in their order", flows(func(t *testing.T, here, there hbone.Stream) {
		const many = 100
		for i := range many {
			if err := here.SendDatagram(within(t), numbered(i)); err != nil {
				t.Error(err)
			}
		}
		arrived := make(chan bool)
		var sending sync.WaitGroup
		sending.Go(func() { // the last one, until it is there
			for again := time.Tick(100 * time.Millisecond); ; {
				here.SendDatagram(within(t), numbered(many))
				select {
				case <-again:
				case <-arrived:
					return
				}
			}
		})
		count := 0
		for last := -1; last < many; count++ {
			p, err := there.ReceiveDatagram(within(t))
			if err != nil {
				t.Error(err)
				break
			}
			n := int(binary.BigEndian.Uint32(p))
			if n <= last {
				t.Errorf("%d after %d", n, last)
			}
			last = n
		}
		close(arrived)
		sending.Wait()
		if count < many/2 {
			t.Errorf("%d of %d arrive", count, many)
		}
		here.Reset()
	})},
	{"a stream of datagrams carries no bytes", flows(func(t *testing.T, here, there hbone.Stream) {
		for name, err := range map[string]error{
			"Read":     func() error { _, err := here.Read(make([]byte, 1)); return err }(),
			"Write":    func() error { _, err := here.Write([]byte("x")); return err }(),
			"ReadFrom": func() error { _, err := here.ReadFrom(newNoise(1, 1)); return err }(),
			"WriteTo":  func() error { _, err := here.WriteTo(io.Discard); return err }(),
		} {
			if !errors.Is(err, hbone.ErrOnlyDatagrams) {
				t.Errorf("%s: %v, want ErrOnlyDatagrams", name, err)
			}
		}
		here.Reset()
	})},
	{"one end of datagrams half-closes first, the other goes on sending", flows(func(t *testing.T, here, there hbone.Stream) {
		if err := here.CloseWrite(); err != nil {
			t.Error(err)
		}
		wantDatagramError(t, there, io.EOF)
		if err := here.SendDatagram(within(t), []byte("x")); !errors.Is(err, hbone.ErrClosed) {
			t.Errorf("SendDatagram after half-close: %v, want ErrClosed", err)
		}
		big := make([]byte, 30_000) // on the stream, where nothing is lost
		if err := there.SendDatagram(within(t), big); err != nil {
			t.Error(err)
		}
		if p, err := here.ReceiveDatagram(within(t)); len(p) != len(big) || err != nil {
			t.Errorf("received %d bytes, %v", len(p), err)
		}
		there.CloseWrite()
		wantDatagramError(t, here, io.EOF)
		if err := errors.Join(here.Close(), there.Close()); err != nil {
			t.Error(err)
		}
	})},
	{"a reset ends datagrams at the other end, also for who waits already", flows(func(t *testing.T, here, there hbone.Stream) {
		waiting := make(chan error, 1)
		go func() { _, err := there.ReceiveDatagram(within(t)); waiting <- err }()
		here.Reset()
		if err := <-waiting; !errors.Is(err, hbone.ErrReset) {
			t.Errorf("ReceiveDatagram: %v, want ErrReset", err)
		}
		until(t, "sending fails", func() bool {
			return errors.Is(there.SendDatagram(within(t), []byte("x")), hbone.ErrReset)
		})
		wantDatagramError(t, here, hbone.ErrClosed)
		if err := here.SendDatagram(within(t), []byte("x")); !errors.Is(err, hbone.ErrClosed) {
			t.Errorf("SendDatagram after reset: %v, want ErrClosed", err)
		}
	})},
	{"a wait for a datagram that is given up harms nothing", flows(func(t *testing.T, here, there hbone.Stream) {
		ctx, cancel := context.WithTimeout(within(t), 20*time.Millisecond)
		defer cancel()
		if _, err := here.ReceiveDatagram(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("ReceiveDatagram: %v, want DeadlineExceeded", err)
		}
		if err := here.SendDatagram(ctx, []byte("x")); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("SendDatagram: %v, want DeadlineExceeded", err)
		}
		big := make([]byte, 30_000)
		there.SendDatagram(within(t), big)
		if p, err := here.ReceiveDatagram(within(t)); len(p) != len(big) || err != nil {
			t.Errorf("received %d bytes, %v", len(p), err)
		}
		here.Reset()
	})},
	{"datagrams that nobody receives are bounded and counted, and hold up nobody", func(t *testing.T, tr Transport) {
		h, next := handing(t)
		r := newRig(t, tr, h)
		here := r.openUDP()
		there := next()
		drops := there.(hbone.DropCounter)
		for i := 0; drops.Dropped() == 0; i++ {
			if i == 100_000 {
				t.Fatal("nothing is dropped")
			}
			if err := here.SendDatagram(within(t), numbered(i)); err != nil {
				t.Fatal(err)
			}
		}
		other := r.open()
		otherThere := next()
		pingPongWith(t, other, otherThere)
		here.CloseWrite()
		kept := 0
		for {
			if _, err := there.ReceiveDatagram(within(t)); err != nil {
				break
			}
			kept++
		}
		if kept == 0 || kept > 1000 {
			t.Errorf("%d datagrams were kept", kept)
		}
		there.Close()
		other.Reset()
		until(t, "streams are gone", func() bool { return r.tunnel.Streams() == 0 })
	}},
	{"the end of a tunnel ends its datagrams", func(t *testing.T, tr Transport) {
		h, next := handing(t)
		r := newRig(t, tr, h)
		here := r.openUDP()
		there := next()
		r.tunnel.Close()
		wantDatagramError(t, there, hbone.ErrReset)
		wantDatagramError(t, here, hbone.ErrClosed)
	}},
}
