package inpod_test

import (
	"net"
	"net/netip"
	"testing"

	"github.com/ambit-mesh/ambit/internal/mesh"
)

// outlaw is what the log says of a destination that the mesh does not know.
const outlaw = "and outboundTrafficPolicy is REGISTRY_ONLY"

func TestRegistryOnlyClosesWhatTheMeshDoesNotKnow(t *testing.T) {
	needsRoot(t)
	w := newWorld(t, "one", "two")
	client := w.newPod(w.nodes[0], "client").enrolled()
	web := w.newPod(w.nodes[1], "web").enrolled()
	outside := w.newPod(w.nodes[1], "outside")
	w.change(func(m *mesh.Model) { delete(m.Workloads, outside.workload) })
	w.settle()
	web.echo(8080)
	outside.echo(8080)
	open := func(to netip.AddrPort) *net.TCPConn {
		t.Helper()
		c, err := client.dial(to)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		if _, err := speak(c, "hello"); err != nil {
			t.Fatal(err)
		}
		return c
	}
	inside, leaving := open(web.at(8080)), open(outside.at(8080))
	bound := func(is bool) {
		client.edit(func(x *mesh.Workload) { x.Settings.RegistryOnly = is })
		w.settle()
	}

	bound(true)
	if _, err := leaving.Read(make([]byte, 1)); refused(err) != nil {
		t.Errorf("open already: %v", refused(err))
	}
	client.node.logged(t, map[string]any{"level": "ERROR", "direction": "outbound", "dst.addr": outside.at(8080).String(),
		"error": "connection closed: nothing of the mesh is at " + outside.at(8080).String() + ", " + outlaw})
	if err := ping(inside); err != nil {
		t.Errorf("to a workload of the mesh, open already: %v", err)
	}
	for _, to := range []netip.AddrPort{outside.at(8080), outside.at6(8080)} {
		if _, err := client.call(to); refused(err) != nil {
			t.Errorf("to %s: %v", to, refused(err))
		}
		client.node.logged(t, map[string]any{"level": "ERROR", "direction": "outbound", "dst.addr": to.String(), "error": "nothing of the mesh is at " + to.String() + ", " + outlaw})
	}
	for _, to := range []netip.AddrPort{web.at(8080), web.at6(8080)} {
		if _, err := client.call(to); err != nil {
			t.Errorf("to a workload of the mesh: %v", err)
		}
	}

	bound(false)
	if _, err := client.call(outside.at(8080)); err != nil {
		t.Errorf("once anything may be dialled again: %v", err)
	}
}
