package inpod_test

import (
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ambit-mesh/ambit/cni/rules"
	"github.com/ambit-mesh/ambit/internal/linux"
	"github.com/ambit-mesh/ambit/internal/mesh"
)

// withDatagrams enrols the pod, its UDP too.
func (p *pod) withDatagrams() *pod {
	p.w.t.Helper()
	p.enrolled()
	p.edit(func(w *mesh.Workload) { w.Settings.CaptureDatagrams = true })
	p.settle()
	eventually(p.w.t, func() error {
		if heard, err := rules.Heard(p.ns); err != nil || !heard {
			return fmt.Errorf("nobody takes the datagrams of %s, %v", p.name, err)
		}
		return nil
	})
	if err := rules.Apply(p.ns, rules.Spec{DNS: true, UDP: true}); err != nil {
		p.w.t.Fatal(err)
	}
	p.edit(func(w *mesh.Workload) { w.Settings.Datagrams = true })
	p.settle()
	return p
}

// datagramsOver makes a client and a server on two nodes, between which UDP goes
// over a transport.
func (w *world) datagramsOver(transport mesh.Transport) (client, server *pod) {
	w.t.Helper()
	client, server = w.newPod(w.nodes[0], "client").withDatagrams(), w.newPod(w.nodes[1], "server").withDatagrams()
	if transport == mesh.TransportH3 {
		server.edit(func(w *mesh.Workload) { w.Settings.Transport = transport })
		server.settle()
		server.accepts(w.t)
	}
	return client, server
}

// asks sends one datagram from a socket of its own, and gives the answer.
func (p *pod) asks(t *testing.T, to netip.AddrPort, text string, patience time.Duration) (string, error) {
	t.Helper()
	a := connected(t, p.podNet, to)
	defer a.Close()
	if err := a.send(text); err != nil {
		return "", err
	}
	a.SetReadDeadline(time.Now().Add(patience))
	b := make([]byte, 1<<16)
	n, err := a.Read(b)
	return string(b[:n]), err
}

// TestDatagramsAreCarriedWithIdentity: between pods whose UDP is the mesh's it goes
// by their tunnels, at every size, from the address that its sender has, and the
// records of both ends name who they are.
func TestDatagramsAreCarriedWithIdentity(t *testing.T) {
	needsRoot(t)
	for _, transport := range []mesh.Transport{mesh.TransportH2, mesh.TransportH3} {
		t.Run(transport.String(), func(t *testing.T) {
			w := newWorld(t, "n1", "n2")
			client, server := w.datagramsOver(transport)
			echoDatagrams(t, server.podNet, 5353)
			for _, to := range []netip.AddrPort{server.at(5353), server.at6(5353)} {
				from := client.v4
				if to.Addr().Is6() {
					from = client.v6
				}
				for _, size := range []int{1, 1200, 1420, 1472, 9000, 60000} {
					text := strings.Repeat("x", size)
					got, err := client.asks(t, to, text, 5*time.Second)
					if err != nil {
						t.Fatalf("%d bytes to %s: %v", size, to, err)
					}
					if want := from.String() + " " + text; got != want {
						t.Fatalf("%d bytes to %s: %d came back as from %s, want %d from %s", size, to, len(got), got[:min(len(got), 40)], len(want), from)
					}
				}
			}
			for n, direction := range []string{"outbound", "inbound"} {
				client.w.nodes[n].logged(t, map[string]any{
					"direction": direction, "protocol": "udp", "src.identity": client.identity().String(), "dst.identity": server.identity().String(),
					"datagrams_sent": 1.0, "datagrams_recv": 1.0,
				})
			}
		})
	}
}

// TestWhoMaySendDatagrams: policies decide it as they decide on connections.
func TestWhoMaySendDatagrams(t *testing.T) {
	needsRoot(t)
	w := newWorld(t, "n1", "n2")
	friend, stranger := w.newPod(w.nodes[0], "friend").withDatagrams(), w.newPod(w.nodes[0], "stranger").withDatagrams()
	plain, enrolled := w.newPod(w.nodes[0], "plain"), w.newPod(w.nodes[0], "enrolled").enrolled()
	server := w.newPod(w.nodes[1], "server").withDatagrams()
	echoDatagrams(t, server.podNet, 5353)
	echoDatagrams(t, server.podNet, 5354)
	echoDatagrams(t, plain.podNet, 5353)
	type attempt struct {
		from *pod
		port uint16
		ok   bool
	}
	for _, c := range []struct {
		name     string
		policies []*mesh.Policy
		attempts []attempt
	}{
		{"without a policy everybody may", nil, []attempt{{friend, 5353, true}, {stranger, 5353, true}, {plain, 5353, true}, {enrolled, 5353, true}}},
		{"STRICT refuses what comes in clear", []*mesh.Policy{strict}, []attempt{{friend, 5353, true}, {stranger, 5353, true}, {plain, 5353, false}, {enrolled, 5353, false}}},
		{"by identity", []*mesh.Policy{policy("friends", mesh.ScopeNamespace, mesh.ActionAllow, mesh.Match{Principals: principal(friend)})},
			[]attempt{{friend, 5353, true}, {stranger, 5353, false}, {plain, 5353, false}}},
		{"by port", []*mesh.Policy{policy("ports", mesh.ScopeNamespace, mesh.ActionDeny, mesh.Match{DestinationPorts: []uint16{5353}})},
			[]attempt{{friend, 5353, false}, {friend, 5354, true}, {plain, 5353, false}, {plain, 5354, true}}},
	} {
		server.edit(func(w *mesh.Workload) { w.Policies = nil })
		for _, p := range c.policies {
			w.apply(p)
			if p.Scope == mesh.ScopeSelector {
				server.edit(func(w *mesh.Workload) { w.Policies = append(w.Policies, p.Key) })
			}
		}
		server.settle()
		for _, a := range c.attempts {
			patience := 5 * time.Second
			if !a.ok {
				patience = 500 * time.Millisecond
			}
			got, err := a.from.asks(t, server.at(a.port), "hello", patience)
			switch {
			case a.ok && err != nil:
				t.Errorf("%s: %s to port %d: %v", c.name, a.from.name, a.port, err)
			case !a.ok && err == nil:
				t.Errorf("%s: %s to port %d got %q, want nothing", c.name, a.from.name, a.port, got)
			}
		}
		for _, p := range c.policies {
			w.remove(p.Key)
		}
	}
	w.nodes[1].logged(t, map[string]any{"direction": "inbound", "protocol": "udp", "policy": "shop/friends"})
	if got, err := friend.asks(t, plain.at(5353), "hello", 5*time.Second); err != nil {
		t.Errorf("to a pod that is not of the mesh: %v", err)
	} else if want := friend.v4.String() + " hello"; got != want {
		t.Errorf("to a pod that is not of the mesh: %q, want %q", got, want)
	}
}

// TestAFlowEndsWithItsPermission: what a policy denies from now on ends at once.
func TestAFlowEndsWithItsPermission(t *testing.T) {
	needsRoot(t)
	w := newWorld(t, "n1", "n2")
	client, server := w.newPod(w.nodes[0], "client").withDatagrams(), w.newPod(w.nodes[1], "server").withDatagrams()
	echoDatagrams(t, server.podNet, 5353)
	a := connected(t, client.podNet, server.at(5353))
	if _, err := a.ask("before"); err != nil {
		t.Fatal(err)
	}
	w.apply(policy("nobody", mesh.ScopeNamespace, mesh.ActionDeny, mesh.Match{Principals: principal(client)}))
	w.nodes[1].logged(t, map[string]any{"direction": "inbound", "protocol": "udp", "policy": "shop/nobody", "cut": "policy"})
	if err := a.send("after"); err != nil {
		t.Fatal(err)
	}
	a.SetReadDeadline(time.Now().Add(500 * time.Millisecond))
	if n, err := a.Read(make([]byte, 100)); err == nil {
		t.Errorf("%d bytes came back after the policy", n)
	}
	w.remove(key("nobody"))
	eventually(t, func() error { // a refused flow is tried again after a second
		_, err := client.asks(t, server.at(5353), "again", time.Second)
		return err
	})
}

// TestAServiceOfUDPLeadsToOneEndpointForAFlow: each flow stays with its endpoint,
// flows are spread over all, and the port of the service is not that of the pods.
func TestAServiceOfUDPLeadsToOneEndpointForAFlow(t *testing.T) {
	needsRoot(t)
	w := newWorld(t, "n1", "n2")
	client := w.newPod(w.nodes[0], "client").withDatagrams()
	key := mesh.ServiceKey{Namespace: "shop", Hostname: "names.shop.svc.cluster.local"}
	vip := netip.MustParseAddrPort("10.96.0.53:5300")
	w.change(func(m *mesh.Model) {
		m.Services[key] = &mesh.Service{
			Name: "names", Namespace: "shop", Hostname: key.Hostname, Canonical: true,
			Addresses:     []mesh.NetworkPrefix{{Prefix: netip.PrefixFrom(vip.Addr(), 32)}},
			DatagramPorts: []mesh.Port{{Service: 5300, Target: 5353}},
		}
	})
	for i := range 2 {
		p := w.newPod(w.nodes[1], fmt.Sprintf("server-%d", i)).withDatagrams()
		p.edit(func(w *mesh.Workload) { w.Services = map[mesh.ServiceKey][]mesh.Port{key: nil} })
		who := fmt.Sprintf("server-%d", i)
		answerDatagrams(t, p.podNet, 5353, func(string, netip.AddrPort) string { return who })
	}
	client.settle()
	reached := map[string]int{}
	for range 24 {
		a := connected(t, client.podNet, vip)
		var first string
		for range 3 {
			who, err := a.ask("who?")
			if err != nil {
				t.Fatal(err)
			}
			if first == "" {
				first = who
			}
			if who != first {
				t.Fatalf("one flow is answered by %s and %s", first, who)
			}
		}
		a.Close()
		reached[first]++
	}
	if len(reached) != 2 {
		t.Errorf("24 flows were answered by %v, want both", reached)
	}
	client.w.nodes[0].logged(t, map[string]any{"direction": "outbound", "protocol": "udp", "dst.service": key.Hostname})
}

// TestNoDatagramIsLostUncounted: of a stream of 5,000 a second, of all sizes that
// voice and video have, each arrives or is among those of which a proxy says that it
// dropped them, or that it did not get them from the other.
func TestNoDatagramIsLostUncounted(t *testing.T) {
	needsRoot(t)
	const rate, all = 5000, 10_000
	for _, transport := range []mesh.Transport{mesh.TransportH2, mesh.TransportH3} {
		t.Run(transport.String(), func(t *testing.T) {
			w := newWorld(t, "n1", "n2")
			client, server := w.datagramsOver(transport)
			app, err := linux.ListenDatagrams(t.Context(), server.ns, server.at(5353), linux.ListenOptions{})
			if err != nil {
				t.Fatal(err)
			}
			defer app.Close()
			var arrived atomic.Int64
			go func() {
				for app.Receive(func(linux.Datagram) { arrived.Add(1) }) == nil {
				}
			}()
			a := connected(t, client.podNet, server.at(5353))
			text := strings.Repeat("x", 1472)
			began := time.Now()
			for i := range all {
				if early := time.Until(began.Add(time.Duration(i) * time.Second / rate)); early > 0 {
					time.Sleep(early)
				}
				if err := a.send(text[:1+i%1472]); err != nil {
					t.Fatal(err)
				}
			}
			a.Close()
			var here, there, lost int64 // dropped by the proxies of both ends, and between them
			eventually(t, func() error {
				here, there = w.nodes[0].ztunnels[0].dropped(t), w.nodes[1].ztunnels[0].dropped(t)
				unread, err := app.Lost()
				if err != nil {
					return err
				}
				sent, given := w.nodes[0].recorded("outbound", "datagrams_sent"), w.nodes[1].recorded("inbound", "datagrams_recv")
				lost = sent - given - there
				got := arrived.Load()
				if here+sent != all || given != got+int64(unread) || lost < 0 || transport == mesh.TransportH2 && lost > 0 {
					return fmt.Errorf("of %d datagrams the client's proxy dropped %d and sent %d; the server's dropped %d and gave %d, of which the program took %d and lost %d",
						all, here, sent, there, given, got, unread)
				}
				return nil
			})
			t.Logf("figure: of %d datagrams at %d a second over %s the client's proxy dropped %d, the server's %d, and %d were lost between them", all, rate, transport, here, there, lost)
		})
	}
}

// recorded sums a figure of all records of flows that have ended on a node.
func (n *node) recorded(direction, figure string) (sum int64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, z := range n.ztunnels {
		for _, r := range z.log.records() {
			if v, ok := r[figure].(float64); ok && r["direction"] == direction {
				sum += int64(v)
			}
		}
	}
	return sum
}

var droppedDatagrams = regexp.MustCompile(`(?m)^ambit_udp_datagrams_dropped_total\{reason="[a-z_]+"\} (\d+)$`)

// dropped is how many datagrams a ztunnel says that it did not carry.
func (z *runningZtunnel) dropped(t *testing.T) (n int64) {
	t.Helper()
	r, err := http.Get(z.metrics)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	text, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range droppedDatagrams.FindAllSubmatch(text, -1) {
		one, err := strconv.ParseInt(string(m[1]), 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		n += one
	}
	return n
}
