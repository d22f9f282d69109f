package inpod_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ambit-mesh/ambit/cni/rules"
	"github.com/ambit-mesh/ambit/internal/linux"
	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/ztunnel/podproxy"
)

func TestOnePodThatCannotBeServedHarmsNoOther(t *testing.T) {
	needsRoot(t)
	w := newWorld(t, "one")
	n := w.nodes[0]
	client := w.newPod(n, "client").enrolled()
	blocked := w.newPod(n, "blocked")
	squatter, err := linux.ListenTCP(t.Context(), blocked.ns, netip.MustParseAddrPort("[::]:15006"), linux.ListenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	blocked.capture(t)
	if err := n.enrol(blocked); err == nil || !strings.Contains(err.Error(), "15006") {
		t.Errorf("the agent was told %v, want the port in use", err)
	}
	blocked.edit(func(x *mesh.Workload) { x.Tunnel = mesh.TunnelHBONE })
	good := w.newPod(n, "good").enrolled()
	good.echo(8080)
	blocked.echo(8080)
	if _, err := client.call(good.at(8080)); err != nil {
		t.Errorf("the other pods: %v", err)
	}
	if err := get(n.ztunnels[0].ready); err != nil {
		t.Errorf("readiness: %v", err)
	}
	if s := dumpOf(t, n.ztunnels[0])["uid-blocked"]; s.State != "Pending" || !strings.Contains(s.Error, "15006") {
		t.Errorf("dumped as %+v", s)
	}
	if err := refused(second(client.call(blocked.at(8080)))); err != nil {
		t.Errorf("the blocked pod: %v", err)
	}
	squatter.Close() // and it heals by itself
	eventually(t, func() error { return second(client.call(blocked.at(8080))) })
}

func second(_ netip.Addr, err error) error { return err }

type dumped struct{ State, Error string }

func dumpOf(t *testing.T, z *runningZtunnel) map[string]dumped {
	t.Helper()
	r, err := http.Get(z.admin + "/config_dump")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	var d struct{ WorkloadState map[string]dumped }
	if err := json.NewDecoder(r.Body).Decode(&d); err != nil {
		t.Fatal(err)
	}
	return d.WorkloadState
}

// load calls an echo again and again until stopped, and counts.
type load struct {
	ok, failed atomic.Int64
	first      atomic.Pointer[error]
	stop       chan struct{}
	done       sync.WaitGroup
}

func startLoad(from *pod, to netip.AddrPort) *load {
	l := &load{stop: make(chan struct{})}
	l.done.Go(func() {
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-l.stop:
				return
			case <-tick.C:
			}
			l.done.Go(func() {
				if _, err := from.call(to); err != nil {
					l.failed.Add(1)
					l.first.CompareAndSwap(nil, &err)
				} else {
					l.ok.Add(1)
				}
			})
		}
	})
	return l
}

// more waits until so many further calls were answered.
func (l *load) more(t *testing.T, n int64) {
	t.Helper()
	n += l.ok.Load()
	eventually(t, func() error {
		if ok := l.ok.Load(); ok < n {
			return fmt.Errorf("%d calls, want %d", ok, n)
		}
		return nil
	})
}

// end stops; every call must have been answered.
func (l *load) end(t *testing.T) {
	t.Helper()
	l.more(t, 20)
	close(l.stop)
	l.done.Wait()
	if n := l.failed.Load(); n > 0 {
		t.Errorf("%d of %d calls failed, first with: %v", n, n+l.ok.Load(), *l.first.Load())
	}
}

func TestEnrolmentAndReleaseUnderLoadLoseNothing(t *testing.T) {
	needsRoot(t)
	w := newWorld(t, "one", "two")
	client := w.newPod(w.nodes[0], "client")
	server := w.newPod(w.nodes[1], "server")
	server.echo(8080)
	hold := func() *net.TCPConn {
		t.Helper()
		c, err := client.dial(server.at(8080))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		if _, err := speak(c, "hello"); err != nil {
			t.Fatal(err)
		}
		return c
	}
	load := startLoad(client, server.at(8080))
	before := hold()
	server.enrolled()
	client.enrolled()
	during := hold()
	client.node.logged(t, map[string]any{"direction": "outbound", "dst.identity": server.identity().String()})
	for _, p := range []*pod{client, server} {
		// As the agent does: first the record, then no new captures, and the
		// proxy last.
		p.edit(func(x *mesh.Workload) { x.Tunnel = mesh.TunnelNone })
		w.settle()
		if err := rules.Apply(p.ns, rules.Spec{Draining: true}); err != nil {
			t.Fatal(err)
		}
	}
	// The peers' tunnels may still bring streams for a moment; they end before
	// the proxy is told.
	load.more(t, 50)
	client.node.release(client)
	server.node.release(server)
	after := hold()
	for name, c := range map[string]*net.TCPConn{"enrolment": before, "the mesh": during, "release": after} {
		if err := ping(c); err != nil {
			t.Errorf("the connection opened before the end of %s: %v", name, err)
		}
	}
	load.end(t)
}

func TestAReplacedZtunnelLosesNothing(t *testing.T) {
	needsRoot(t)
	w := newWorld(t, "one", "two")
	client := w.newPod(w.nodes[0], "client").enrolled()
	server := w.newPod(w.nodes[1], "server").enrolled()
	server.echo(8080)
	load := startLoad(client, server.at(8080))
	for _, n := range w.nodes {
		load.more(t, 50)
		old := n.ztunnels[0]
		n.start(w) // the new one is ready before the old one ends
		load.more(t, 50)
		old.end(t)
	}
	load.end(t)
	if _, err := client.call(server.at(8080)); err != nil {
		t.Error(err)
	}
}

func TestAZtunnelThatEndsLetsConnectionsFinishUntilItsDeadline(t *testing.T) {
	needsRoot(t)
	w := newWorld(t, "one", "two")
	client := w.newPod(w.nodes[0], "client").enrolled()
	server := w.newPod(w.nodes[1], "server").enrolled()
	server.echo(8080)
	open := func() *net.TCPConn {
		c, err := client.dial(server.at(8080))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		if _, err := speak(c, "hello"); err != nil {
			t.Fatal(err)
		}
		return c
	}
	c := open()
	z := server.node.ztunnels[0]
	z.stop()
	eventually(t, func() error { // it no longer accepts
		c, err := linux.DialTCP(t.Context(), client.node.ns, server.at(podproxy.TunnelPort), linux.DialOptions{})
		if err == nil {
			c.Close()
			return errors.New("a new tunnel was accepted while draining")
		}
		return nil
	})
	if err := ping(c); err != nil {
		t.Errorf("the open connection while draining: %v", err)
	}
	z.end(t)
	if _, err := c.Read(make([]byte, 1)); err == nil {
		t.Error("the connection outlives its proxy's deadline")
	}
	// What had to end is counted, and each has its record.
	server.node.logged(t, map[string]any{"direction": "inbound", "cut": "drain", "dst.workload": "server"})
	server.node.logged(t, map[string]any{"msg": "drained", "complete": false, "cut": 1.0})
}

func TestServingGoesOnWithoutAgentAndControlPlane(t *testing.T) {
	needsRoot(t)
	w := newWorld(t, "one", "two")
	client := w.newPod(w.nodes[0], "client").enrolled()
	server := w.newPod(w.nodes[1], "server").enrolled()
	server.echo(8080)
	w.xds.Close()
	for _, n := range w.nodes {
		n.mu.Lock()
		for _, c := range n.conns {
			c.Close()
		}
		n.mu.Unlock()
		os.Remove(n.path)
	}
	for range 5 {
		if _, err := client.call(server.at(8080)); err != nil {
			t.Error(err)
		}
	}
}

func TestAPodThatIsTornDownLeavesNothingBehind(t *testing.T) {
	needsRoot(t)
	w := newWorld(t, "one", "two")
	client := w.newPod(w.nodes[0], "client").enrolled()
	server := w.newPod(w.nodes[1], "server").enrolled()
	server.echo(8080)
	c, err := client.dial(server.at(8080))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := speak(c, "hello"); err != nil {
		t.Fatal(err)
	}
	server.node.release(server)
	if s := dumpOf(t, server.node.ztunnels[0])["uid-server"]; s.State != "Draining" {
		t.Errorf("after its release it is %q, want Draining while a connection is open", s.State)
	}
	ip(t, server.ns, "link del eth0")
	eventually(t, func() error {
		if s, there := dumpOf(t, server.node.ztunnels[0])["uid-server"]; there {
			return fmt.Errorf("still %s", s.State)
		}
		return nil
	})
}

func TestShortLivedCertificatesAreRenewedUnderLoad(t *testing.T) {
	needsRoot(t)
	w := bare(t, "one", "two")
	w.ttl = 4 * time.Second
	w.boot()
	client := w.newPod(w.nodes[0], "client").enrolled()
	server := w.newPod(w.nodes[1], "server").enrolled()
	server.echo(8080)
	held, err := client.dial(server.at(8080))
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	if _, err := speak(held, "hello"); err != nil {
		t.Fatal(err)
	}
	load := startLoad(client, server.at(8080))
	eventually(t, func() error { // three generations, so that the first has expired
		if n := w.ca.Asked(client.identity()); n < 4 {
			return fmt.Errorf("asked for %d certificates", n)
		}
		return nil
	})
	load.end(t)
	if err := ping(held); err != nil {
		t.Errorf("the connection that is older than its certificate: %v", err)
	}
}

// TestAPodWithoutACertificateHarmsNoOther: the CA is away when it joins.
func TestAPodWithoutACertificateHarmsNoOther(t *testing.T) {
	needsRoot(t)
	w := newWorld(t, "one", "two")
	n := w.nodes[1]
	client := w.newPod(w.nodes[0], "client").enrolled()
	server := w.newPod(n, "server").enrolled()
	server.echo(8080)
	if _, err := client.call(server.at(8080)); err != nil {
		t.Fatal(err)
	}
	w.ca.Fail(errors.New("the CA is away"))
	late := w.newPod(n, "late").enrolled()
	late.echo(8080)
	eventually(t, func() error {
		if state := certificateOf(t, n.ztunnels[0], late.identity().String()); !strings.HasPrefix(state, "Unavailable: ") {
			return fmt.Errorf("its certificate is %q", state)
		}
		return nil
	})
	if err := errors.Join(get(n.ztunnels[0].ready), second(client.call(server.at(8080)))); err != nil {
		t.Errorf("the node and its other pods: %v", err)
	}
	w.ca.Fail(nil)
	eventually(t, func() error { return second(client.call(late.at(8080))) })
}

func certificateOf(t *testing.T, z *runningZtunnel, identity string) string {
	t.Helper()
	r, err := http.Get(z.admin + "/config_dump")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	var d struct {
		Certificates []struct{ Identity, State string }
	}
	if err := json.NewDecoder(r.Body).Decode(&d); err != nil {
		t.Fatal(err)
	}
	for _, c := range d.Certificates {
		if c.Identity == identity {
			return c.State
		}
	}
	return ""
}
