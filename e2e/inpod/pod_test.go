package inpod_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"testing"
	"time"

	"github.com/ambit-mesh/ambit/internal/linux"
	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/internal/spiffe"
	"github.com/ambit-mesh/ambit/internal/zds"
)

// pod is a pod with its network and record.
type pod struct {
	podNet
	w        *world
	node     *node
	name     string
	uid      string
	workload string // UID of its record
}

func (p *pod) zds() zds.Pod {
	return zds.Pod{UID: p.uid, Name: p.name, Namespace: "shop", ServiceAccount: p.name}
}

func (p *pod) identity() spiffe.ID {
	return spiffe.ID{TrustDomain: "cluster.local", Namespace: "shop", ServiceAccount: p.name}
}

// newPod makes a pod that is not in the mesh; its account has its name.
func (w *world) newPod(n *node, name string) *pod {
	w.t.Helper()
	p := &pod{podNet: n.newPodNet(w.t), w: w, node: n, name: name, uid: "uid-" + name, workload: "Kubernetes//Pod/shop/" + name}
	w.change(func(m *mesh.Model) {
		m.Workloads[p.workload] = &mesh.Workload{
			Settings: mesh.WorkloadSettings{Transport: transportOn(n)},
			UID:      p.workload, Name: name, Namespace: "shop", TrustDomain: "cluster.local", ServiceAccount: name,
			Addresses: []netip.Addr{p.v4, p.v6}, Node: n.name, ClusterID: "Kubernetes", Capacity: 1,
			CanonicalName: name, OwnerName: name, Services: map[mesh.ServiceKey][]mesh.Port{},
		}
	})
	return p
}

// edit changes the pod's record.
func (p *pod) edit(change func(w *mesh.Workload)) {
	p.w.change(func(m *mesh.Model) {
		fresh := *m.Workloads[p.workload]
		change(&fresh)
		m.Workloads[p.workload] = &fresh
	})
}

// enrolled captures the pod, and says so to its peers.
func (p *pod) enrolled() *pod {
	p.w.t.Helper()
	// A running pod is captured only once somebody listens.
	if err := p.node.enrol(p); err != nil {
		p.w.t.Fatalf("enrolling %s: %v", p.name, err)
	}
	p.capture(p.w.t)
	p.edit(func(w *mesh.Workload) { w.Tunnel = mesh.TunnelHBONE })
	p.settle()
	return p
}

// settle waits until every ztunnel has the state of now.
func (p *pod) settle() { p.w.settle() }

func (w *world) settle() {
	w.t.Helper()
	w.mu.Lock()
	want := w.version
	w.mu.Unlock()
	eventually(w.t, func() error {
		clients := w.xds.Status()
		if len(clients) == 0 {
			return errors.New("no client")
		}
		for _, c := range clients {
			for _, s := range c.Types {
				if s.Acked < want {
					return fmt.Errorf("%s has %s of generation %d, want %d", c.ID, s.Type, s.Acked, want)
				}
			}
		}
		return nil
	})
}

// listen serves connections to the pod's port by f, until the test ends. All
// families are served.
func (p *pod) listen(port uint16, f func(c *net.TCPConn)) {
	p.w.t.Helper()
	p.listenAt(netip.AddrPortFrom(netip.IPv6Unspecified(), port), f)
}

func (p *pod) listenAt(at netip.AddrPort, f func(c *net.TCPConn)) {
	p.w.t.Helper()
	l, err := linux.ListenTCP(context.Background(), p.ns, at, linux.ListenOptions{})
	if err != nil {
		p.w.t.Fatal(err)
	}
	p.w.t.Cleanup(func() { l.Close() })
	go func() {
		for c, err := l.AcceptTCP(); err == nil; c, err = l.AcceptTCP() {
			go func() { defer c.Close(); f(c) }()
		}
	}()
}

// echo answers each connection with the client's address in a line, and then
// with what it gets.
func (p *pod) echo(port uint16) { p.listen(port, greet) }

func greet(c *net.TCPConn) {
	fmt.Fprintln(c, linux.AddrPort(c.RemoteAddr()).Addr())
	io.Copy(c, c)
}

func (p *pod) at(port uint16) netip.AddrPort  { return netip.AddrPortFrom(p.v4, port) }
func (p *pod) at6(port uint16) netip.AddrPort { return netip.AddrPortFrom(p.v6, port) }

// dial connects as the pod's application does.
func (p *pod) dial(to netip.AddrPort) (*net.TCPConn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	c, err := linux.DialTCP(ctx, p.ns, to, linux.DialOptions{})
	if err == nil {
		c.SetDeadline(time.Now().Add(20 * time.Second))
	}
	return c, err
}

// call speaks to an echo and gives whom it saw.
func (p *pod) call(to netip.AddrPort) (seen netip.Addr, err error) {
	c, err := p.dial(to)
	if err != nil {
		return seen, err
	}
	defer c.Close()
	return speak(c, "hello")
}

// speak reads the greeting of an echo, and has text echoed.
func speak(c *net.TCPConn, text string) (seen netip.Addr, err error) {
	if _, err := io.WriteString(c, text); err != nil {
		return seen, err
	}
	var who string
	if _, err := fmt.Fscanln(c, &who); err != nil {
		return seen, err
	}
	if err := echoed(c, text); err != nil {
		return seen, err
	}
	return netip.ParseAddr(who)
}

func echoed(c *net.TCPConn, text string) error {
	b := make([]byte, len(text))
	if _, err := io.ReadFull(c, b); err != nil {
		return err
	}
	if string(b) != text {
		return fmt.Errorf("echo %q of %q", b, text)
	}
	return nil
}

func ping(c *net.TCPConn) error {
	if _, err := io.WriteString(c, "ping"); err != nil {
		return err
	}
	return echoed(c, "ping")
}

// logged waits for an access record of the node's ztunnels with these fields.
func (n *node) logged(t *testing.T, want map[string]any) map[string]any {
	t.Helper()
	var found map[string]any
	eventually(t, func() error {
		n.mu.Lock()
		defer n.mu.Unlock()
		for _, z := range n.ztunnels {
			for _, r := range z.log.records() {
				match := true
				for k, v := range want {
					match = match && r[k] == v
				}
				if match {
					found = r
					return nil
				}
			}
		}
		return fmt.Errorf("no record on %s with %v", n.name, want)
	})
	return found
}

func get(url string) error {
	r, err := http.Get(url)
	if err != nil {
		return err
	}
	defer r.Body.Close()
	if r.StatusCode != 200 {
		b, _ := io.ReadAll(r.Body)
		return fmt.Errorf("%s: %d %s", url, r.StatusCode, b)
	}
	return nil
}
