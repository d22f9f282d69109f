package inpod_test

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ambit-mesh/ambit/cni/rules"
	"github.com/ambit-mesh/ambit/internal/linux"
	"github.com/ambit-mesh/ambit/ztunnel/datagrams"
)

// carried is a pod whose datagrams its rules give to a table for each direction,
// which carry them directly, and another pod.
type carried struct {
	pod, peer podNet
	out, in   *datagrams.Table

	mu    sync.Mutex
	ended []datagrams.Ended
}

func newCarried(t *testing.T) *carried {
	n := newNodeNet(t, "node", 1)
	c := &carried{pod: n.newPodNet(t), peer: n.newPodNet(t)}
	if err := rules.Apply(c.pod.ns, rules.Spec{UDP: true, DNS: true}); err != nil {
		t.Fatal(err)
	}
	answers, err := linux.NewAnswers(t.Context(), c.pod.ns)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { answers.Close() })
	c.out, c.in = c.table(t, answers, 15001), c.table(t, answers, 15006)
	return c
}

func (c *carried) table(t *testing.T, answers *linux.Answers, port uint16) *datagrams.Table {
	t.Helper()
	table := datagrams.New(datagrams.Config{
		Carrier: datagrams.Direct{NS: c.pod.ns, Mark: linux.Mark}, Answers: answers, Logger: slog.New(slog.DiscardHandler),
		Ended: func(e datagrams.Ended) {
			c.mu.Lock()
			defer c.mu.Unlock()
			c.ended = append(c.ended, e)
		},
	})
	for _, lo := range []string{"127.0.0.1", "::1"} {
		s, err := linux.ListenDatagrams(t.Context(), c.pod.ns, netip.AddrPortFrom(netip.MustParseAddr(lo), port), linux.ListenOptions{Mark: linux.Mark})
		if err != nil {
			t.Fatal(err)
		}
		table.Serve(s)
	}
	t.Cleanup(func() { drainNow(t, table) })
	return table
}

// drainNow cuts every flow.
func drainNow(t *testing.T, table *datagrams.Table) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := table.Drain(ctx); err != nil {
		t.Error(err)
	}
}

// echoDatagrams answers on a port of p with whom a datagram came from, and all
// that it said.
func echoDatagrams(t *testing.T, p podNet, port uint16) {
	t.Helper()
	answerDatagrams(t, p, port, func(text string, from netip.AddrPort) string { return from.Addr().String() + " " + text })
}

// answerDatagrams answers on a port of p, from both families, until the test ends.
func answerDatagrams(t *testing.T, p podNet, port uint16, answer func(text string, from netip.AddrPort) string) {
	t.Helper()
	for _, any := range []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()} {
		c, err := linux.ListenUDP(t.Context(), p.ns, netip.AddrPortFrom(any, port), linux.ListenOptions{})
		if err != nil {
			t.Fatal(err)
		}
		var serving sync.WaitGroup
		serving.Go(func() {
			b := make([]byte, 1<<16)
			for {
				n, from, err := c.ReadFromUDPAddrPort(b)
				if err != nil {
					return
				}
				c.WriteToUDPAddrPort([]byte(answer(string(b[:n]), from)), from)
			}
		})
		t.Cleanup(func() { c.Close(); serving.Wait() })
	}
}

// asker is a socket of a program, connected or not.
type asker struct {
	*net.UDPConn
	to netip.AddrPort // not valid if it is connected
}

func connected(t *testing.T, p podNet, to netip.AddrPort) asker {
	t.Helper()
	c, err := linux.DialUDP(t.Context(), p.ns, to, linux.DialOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return asker{UDPConn: c}
}

func unconnected(t *testing.T, p podNet, to netip.AddrPort) asker {
	t.Helper()
	any := netip.IPv4Unspecified()
	if to.Addr().Is6() {
		any = netip.IPv6Unspecified()
	}
	c, err := linux.ListenUDP(t.Context(), p.ns, netip.AddrPortFrom(any, 0), linux.ListenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return asker{c, to}
}

func (a asker) send(text string) error {
	if a.to.IsValid() {
		_, err := a.WriteToUDPAddrPort([]byte(text), a.to)
		return err
	}
	_, err := a.Write([]byte(text))
	return err
}

// ask sends a text and gives the answer; one of somebody else is an error.
func (a asker) ask(text string) (string, error) {
	if err := a.send(text); err != nil {
		return "", err
	}
	a.SetReadDeadline(time.Now().Add(5 * time.Second))
	b := make([]byte, 1<<16)
	n, from, err := a.ReadFromUDPAddrPort(b)
	if err == nil && a.to.IsValid() && from != a.to {
		err = fmt.Errorf("answered by %s", from)
	}
	return string(b[:n]), err
}

func TestDatagramsOfAPodRideOnFlows(t *testing.T) {
	c := newCarried(t)
	echoDatagrams(t, c.pod, 8080)
	echoDatagrams(t, c.peer, 8080)
	for _, way := range []struct {
		name     string
		from, to podNet
		table    *datagrams.Table
	}{{"out", c.pod, c.peer, c.out}, {"in", c.peer, c.pod, c.in}} {
		flows := 0
		for _, f := range []struct{ from, to netip.Addr }{{way.from.v4, way.to.v4}, {way.from.v6, way.to.v6}} {
			to := netip.AddrPortFrom(f.to, 8080)
			for kind, a := range map[string]asker{"connected": connected(t, way.from, to), "not connected": unconnected(t, way.from, to)} {
				for _, size := range []int{0, 1, 1200, 1420, 1472, 9000, 60000} {
					text := strings.Repeat("x", size)
					if got, err := a.ask(text); err != nil || got != f.from.String()+" "+text {
						t.Errorf("%s, %s, %d bytes to %s: %d bytes, %v", way.name, kind, size, to, len(got), err)
					}
				}
				flows++
			}
		}
		if got := way.table.Flows(); got != flows {
			t.Errorf("%s: %d flows, want %d", way.name, got, flows)
		}
		if got := way.table.Dropped(); got != (datagrams.Drops{}) {
			t.Errorf("%s: dropped %v", way.name, got)
		}
		drainNow(t, way.table)
	}
	sum := len("0") + 1 + 1200 + 1420 + 1472 + 9000 + 60000 - 1
	for _, e := range c.ended {
		if e.Sent != (datagrams.Count{Datagrams: 7, Bytes: uint64(sum)}) || e.Received.Datagrams != 7 ||
			e.Received.Bytes != uint64(sum+7*(len(e.Source.Addr().String())+1)) {
			t.Errorf("told of a flow: %+v", e)
		}
	}
	if len(c.ended) != 8 {
		t.Errorf("told of %d flows", len(c.ended))
	}
}

// TestFlowsAreKeptApart: many programs have one destination, and one socket has
// many, whose port the program itself may have; each gets its own answers.
func TestFlowsAreKeptApart(t *testing.T) {
	c := newCarried(t)
	for port := uint16(8080); port < 8084; port++ {
		echoDatagrams(t, c.peer, port)
		echoDatagrams(t, c.pod, port)
	}
	for _, f := range []struct{ pod, peer netip.Addr }{{c.pod.v4, c.peer.v4}, {c.pod.v6, c.peer.v6}} {
		var all sync.WaitGroup
		for i := range 20 {
			a := connected(t, c.pod, netip.AddrPortFrom(f.peer, 8080))
			all.Go(func() {
				for j := range 10 {
					text := fmt.Sprintf("%d of %d", j, i)
					if got, err := a.ask(text); err != nil || got != f.pod.String()+" "+text {
						t.Errorf("%q, %v; want %q", got, err, text)
					}
				}
			})
		}
		all.Wait()
		one := unconnected(t, c.pod, netip.AddrPortFrom(f.peer, 8080))
		for range 3 {
			for port := uint16(8080); port < 8084; port++ {
				one.to = netip.AddrPortFrom(f.peer, port)
				if got, err := one.ask("hi"); err != nil || got != f.pod.String()+" hi" {
					t.Errorf("to %s: %q, %v", one.to, got, err)
				}
			}
		}
	}
	if got := c.out.Flows(); got != 2*(20+4) {
		t.Errorf("%d flows", got)
	}
}

// TestWhereNobodyListensDatagramsVanish: neither side is told that a port is
// nobody's, and the flow goes on when it is somebody's.
func TestWhereNobodyListensDatagramsVanish(t *testing.T) {
	c := newCarried(t)
	for _, way := range []struct {
		name     string
		from, to podNet
		table    *datagrams.Table
		port     uint16
	}{{"out", c.pod, c.peer, c.out, 9001}, {"in", c.peer, c.pod, c.in, 9002}} {
		var askers []asker
		for _, ip := range []netip.Addr{way.to.v4, way.to.v6} {
			a := connected(t, way.from, netip.AddrPortFrom(ip, way.port))
			for range 5 {
				if err := a.send("anybody there?"); err != nil {
					t.Errorf("%s: %v", way.name, err)
				}
			}
			askers = append(askers, a)
		}
		eventually(t, func() error {
			if got := way.table.Flows(); got != len(askers) {
				return fmt.Errorf("%s: %d flows", way.name, got)
			}
			return nil
		})
		echoDatagrams(t, way.to, way.port)
		for _, a := range askers {
			eventually(t, func() error {
				got, err := a.ask("now?") // those that came last may be answered first
				if err == nil && !strings.HasSuffix(got, " now?") {
					err = fmt.Errorf("%s: answer %q", way.name, got)
				}
				return err
			})
		}
		if got := way.table.Flows(); got != len(askers) {
			t.Errorf("%s: %d flows at the end", way.name, got)
		}
		c.mu.Lock()
		if len(c.ended) > 0 {
			t.Errorf("%s: ended %+v", way.name, c.ended)
		}
		c.mu.Unlock()
	}
}
