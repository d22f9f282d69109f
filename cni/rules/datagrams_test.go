package rules_test

import (
	"fmt"
	"net"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ambit-mesh/ambit/cni/netnstest"
	"github.com/ambit-mesh/ambit/cni/rules"
	"github.com/ambit-mesh/ambit/internal/linux"
)

// exchanging is a world in which both pods run programs that echo datagrams on
// 8080 and 53, at any address of theirs, and the pod has a toy of ztunnel that
// carries them from 15001 and 15006.
func exchanging(t *testing.T) world {
	t.Helper()
	w := silent(t)
	for name, ns := range map[string]*linux.NetNS{"pod": w.pod.NS, "peer": w.peer.NS} {
		for _, port := range []uint16{8080, 53} {
			echo(t, ns, port, name)
		}
	}
	carry(t, w.pod.NS)
	return w
}

// silent is a world in which nobody does anything.
func silent(t *testing.T) world {
	node := netnstest.Node(t)
	return world{node, netnstest.NewPod(t, node, 1), netnstest.NewPod(t, node, 2)}
}

// inClear are the datagrams that a program was sent by other ports than ztunnel's.
type inClear struct {
	mu    sync.Mutex
	texts []string
}

func (c *inClear) add(text string, from netip.AddrPort) {
	if from.Port() < 61000 {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.texts = append(c.texts, fmt.Sprintf("%q from %s", text, from))
	}
}

func (c *inClear) all() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.texts)
}

// echo answers in ns each datagram with the program's name, whom it came from,
// and all that it said.
func echo(t *testing.T, ns *linux.NetNS, port uint16, name string) *inClear {
	t.Helper()
	heard := &inClear{}
	for _, any := range []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()} {
		c, err := linux.ListenUDP(t.Context(), ns, at(any, port), linux.ListenOptions{})
		if err != nil {
			t.Fatal(err)
		}
		serveUntilEnd(t, c, func() error {
			buf := make([]byte, 1<<16)
			n, from, err := c.ReadFromUDPAddrPort(buf)
			if err == nil {
				heard.add(string(buf[:n]), from)
				c.WriteToUDPAddrPort(fmt.Appendf(nil, "%s %s: %s", name, from.Addr(), buf[:n]), from)
			}
			return err
		})
	}
	return heard
}

// serveUntilEnd does one thing again and again until it fails, at the latest
// when c is closed at the end of the test.
func serveUntilEnd(t *testing.T, c interface{ Close() error }, one func() error) {
	var serving sync.WaitGroup
	serving.Go(func() {
		for one() == nil {
		}
	})
	t.Cleanup(func() { c.Close(); serving.Wait() })
}

// carry plays ztunnel: it sends each datagram on to where it was going, and puts
// "by 15001 " or so before what comes back.
func carry(t *testing.T, ns *linux.NetNS) {
	t.Helper()
	carryAt(t, ns, loopback4, loopback6)
}

func carryAt(t *testing.T, ns *linux.NetNS, loopbacks ...netip.Addr) {
	t.Helper()
	answers, err := linux.NewAnswers(t.Context(), ns)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { answers.Close() })
	for _, port := range []uint16{15001, 15006} {
		for _, lo := range loopbacks {
			l, err := linux.ListenDatagrams(t.Context(), ns, at(lo, port), linux.ListenOptions{Mark: linux.Mark})
			if err != nil {
				t.Fatal(err)
			}
			flows := map[[2]netip.AddrPort]*net.UDPConn{}
			serveUntilEnd(t, l, func() error {
				return l.Receive(func(d linux.Datagram) {
					key := [2]netip.AddrPort{d.Source, d.Destination}
					if flows[key] == nil {
						flows[key] = carryFlow(t, ns, port, d, answers)
					}
					flows[key].Write(d.Payload)
				})
			})
		}
	}
}

func carryFlow(t *testing.T, ns *linux.NetNS, port uint16, d linux.Datagram, answers *linux.Answers) *net.UDPConn {
	up, err := linux.DialUDP(t.Context(), ns, d.Destination, linux.DialOptions{Mark: linux.Mark, Source: d.Source.Addr()})
	if err != nil {
		t.Error(err)
		return nil
	}
	source, destination := d.Source, d.Destination
	serveUntilEnd(t, up, func() error {
		buf := make([]byte, 1<<16)
		n, err := up.Read(buf)
		if err == nil {
			answers.Send(fmt.Appendf(nil, "by %d %s", port, buf[:n]), destination, source)
		}
		return err
	})
	return up
}

// says sends a text from a socket that is not connected and gives what came
// back from there, or from where else it came.
func says(t *testing.T, ns *linux.NetNS, to netip.AddrPort, text string) string {
	t.Helper()
	any := netip.IPv4Unspecified()
	if to.Addr().Is6() {
		any = netip.IPv6Unspecified()
	}
	c, err := linux.ListenUDP(t.Context(), ns, at(any, 0), linux.ListenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(netnstest.Patience))
	if _, err := c.WriteToUDPAddrPort([]byte(text), to); err != nil {
		return err.Error()
	}
	buf := make([]byte, 1<<16)
	n, from, err := c.ReadFromUDPAddrPort(buf)
	switch {
	case err != nil:
		return "nothing"
	case from != to:
		return fmt.Sprintf("answered by %s: %s", from, buf[:n])
	}
	return string(buf[:n])
}

func TestDatagramsAreCaptured(t *testing.T) {
	w := exchanging(t)
	for _, mode := range []struct {
		name              string
		spec              *rules.Spec
		inbound, outbound string
	}{
		{"without rules nothing is captured", nil, "", ""},
		{"nor without a wish", &rules.Spec{DNS: false}, "", ""},
		{"both ways", &rules.Spec{UDP: true}, "by 15006 ", "by 15001 "},
		{"inbound bypassed", &rules.Spec{UDP: true, BypassInbound: true}, "", "by 15001 "},
		{"both ways again", &rules.Spec{UDP: true}, "by 15006 ", "by 15001 "},
		{"draining captures nothing", &rules.Spec{UDP: true, Draining: true}, "", ""},
	} {
		if mode.spec != nil {
			apply(t, w.pod.NS, *mode.spec)
		}
		for _, f := range []struct{ pod, peer, loopback netip.Addr }{{w.pod.V4, w.peer.V4, loopback4}, {w.pod.V6, w.peer.V6, loopback6}} {
			for _, c := range []struct {
				what string
				from *linux.NetNS
				to   netip.AddrPort
				want string
			}{
				{"outbound", w.pod.NS, at(f.peer, 8080), fmt.Sprintf("%speer %s: hi", mode.outbound, f.pod)},
				{"inbound, with the source preserved", w.peer.NS, at(f.pod, 8080), fmt.Sprintf("%spod %s: hi", mode.inbound, f.peer)},
				{"a pod sends to its own address", w.pod.NS, at(f.pod, 8080), fmt.Sprintf("pod %s: hi", f.pod)},
				{"loopback", w.pod.NS, at(f.loopback, 8080), fmt.Sprintf("pod %s: hi", f.loopback)},
				{"names are asked as ever", w.pod.NS, at(f.peer, 53), fmt.Sprintf("peer %s: hi", f.pod)},
				{"a pod that answers for names is asked", w.peer.NS, at(f.pod, 53), fmt.Sprintf("%spod %s: hi", mode.inbound, f.peer)},
			} {
				if got := says(t, c.from, c.to, "hi"); got != c.want {
					t.Errorf("%s, %s, not connected: answer %q, want %q", mode.name, c.what, got, c.want)
				}
				if got := query(socket(t, c.from, c.to, 0), "hi"); got != c.want {
					t.Errorf("%s, %s, connected: answer %q, want %q", mode.name, c.what, got, c.want)
				}
			}
			if got, want := query(socket(t, w.pod.NS, at(f.peer, 8080), linux.Mark), "hi"), fmt.Sprintf("peer %s: hi", f.pod); got != want {
				t.Errorf("%s, ztunnel's own: answer %q, want %q", mode.name, got, want)
			}
		}
	}
}

func TestDatagramsOfAllSizes(t *testing.T) {
	w := exchanging(t)
	apply(t, w.pod.NS, rules.Spec{UDP: true, DNS: true})
	for _, size := range []int{0, 1, 1200, 1420, 1472, 9000, 60000} {
		text := strings.Repeat("x", size)
		for _, f := range []struct{ pod, peer netip.Addr }{{w.pod.V4, w.peer.V4}, {w.pod.V6, w.peer.V6}} {
			if got, want := says(t, w.pod.NS, at(f.peer, 8080), text), fmt.Sprintf("by 15001 peer %s: %s", f.pod, text); got != want {
				t.Errorf("%d bytes to %s: answer of %d bytes, want %d", size, f.peer, len(got), len(want))
			}
			if got, want := says(t, w.peer.NS, at(f.pod, 8080), text), fmt.Sprintf("by 15006 pod %s: %s", f.peer, text); got != want {
				t.Errorf("%d bytes to %s: answer of %d bytes, want %d", size, f.pod, len(got), len(want))
			}
		}
	}
}

// TestAPodThatDoesNotAskForItHasNothingOfIt, neither before nor after it did.
func TestAPodThatDoesNotAskForItHasNothingOfIt(t *testing.T) {
	ns := netnstest.New(t)
	for _, spec := range []rules.Spec{{}, {DNS: true}, {BypassInbound: true}, {DNS: true, Draining: true}} {
		with := spec
		with.UDP = true
		apply(t, ns, spec)
		never := everything(t, ns)
		if strings.Contains(never, "0x112") || strings.Contains(fmt.Sprint(spec.Table(), spec.Guard()), "datagram") {
			t.Errorf("%+v has rules of datagrams", spec)
		}
		apply(t, ns, with)
		apply(t, ns, spec)
		if after := everything(t, ns); after != never {
			t.Errorf("%+v, after datagrams were captured:\n%s\nwant:\n%s", spec, after, never)
		}
		if drained := (rules.Spec{Draining: true, UDP: true}); !reflect.DeepEqual(drained.Table(), rules.Spec{Draining: true}.Table()) {
			t.Error("a pod that drains keeps rules of datagrams")
		}
	}
}

func TestWhoSendsFromThePortOfNamesIsNotPassedOn(t *testing.T) {
	w := silent(t)
	pod, peer := w.pod, w.peer
	echo(t, pod.NS, 8080, "pod")
	carry(t, pod.NS)
	for _, spec := range []rules.Spec{{UDP: true}, {UDP: true, DNS: true}} {
		apply(t, pod.NS, spec)
		for _, f := range []struct{ pod, peer netip.Addr }{{pod.V4, peer.V4}, {pod.V6, peer.V6}} {
			c, err := linux.ListenUDP(t.Context(), peer.NS, at(f.peer, 53), linux.ListenOptions{})
			if err != nil {
				t.Fatal(err)
			}
			for _, text := range []string{"one", "two", "three"} {
				c.SetDeadline(time.Now().Add(netnstest.Patience))
				c.WriteToUDPAddrPort([]byte(text), at(f.pod, 8080))
				buf := make([]byte, 512)
				n, _, err := c.ReadFromUDPAddrPort(buf)
				if want := fmt.Sprintf("by 15006 pod %s: %s", f.peer, text); string(buf[:n]) != want {
					t.Errorf("%+v: answer %q, %v; want %q", spec, buf[:n], err, want)
				}
			}
			c.Close()
		}
	}
}

func TestDatagramsOfTunnelsAreNotCaptured(t *testing.T) {
	w := silent(t)
	pod, peer := w.pod, w.peer
	echo(t, pod.NS, 15008, "tunnel")
	carry(t, pod.NS)
	apply(t, pod.NS, rules.Spec{UDP: true})
	for _, f := range []struct{ pod, peer netip.Addr }{{pod.V4, peer.V4}, {pod.V6, peer.V6}} {
		// Nobody marked that socket: the port alone is enough. What it answers is
		// ztunnel's, as all that programs send.
		c, err := linux.ListenUDP(t.Context(), peer.NS, at(f.peer, 0), linux.ListenOptions{})
		if err != nil {
			t.Fatal(err)
		}
		c.SetDeadline(time.Now().Add(netnstest.Patience))
		c.WriteToUDPAddrPort([]byte("hi"), at(f.pod, 15008))
		buf := make([]byte, 512)
		n, from, err := c.ReadFromUDPAddrPort(buf)
		if want := fmt.Sprintf("tunnel %s: hi", f.peer); string(buf[:n]) != want || from.Port() < 61000 {
			t.Errorf("answer %q of %s, %v; want %q of ztunnel", buf[:n], from, err, want)
		}
		c.Close()
	}
}
