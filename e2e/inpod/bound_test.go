package inpod_test

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/ambit-mesh/ambit/internal/mesh"
)

// TestARecordIsAPodsOnlyByItsAddress: the record that bears a pod's name and
// account is of the pod before it, as with a StatefulSet whose pod was made
// again on this node. Nothing is sent in its name; when the pod's own record
// comes, what waited for it goes on.
func TestARecordIsAPodsOnlyByItsAddress(t *testing.T) {
	needsRoot(t)
	w := newWorld(t, "one", "two")
	client := w.newPod(w.nodes[0], "client").enrolled()
	web := w.newPod(w.nodes[1], "web").enrolled()
	web.echo(8080)
	if _, err := client.call(web.at(8080)); err != nil {
		t.Fatal(err)
	}
	var own []netip.Addr
	client.edit(func(x *mesh.Workload) {
		own = slices.Clone(x.Addresses)
		x.Addresses = []netip.Addr{netip.MustParseAddr("10.99.0.9")}
	})
	w.settle()
	if _, err := client.call(web.at(8080)); refused(err) != nil {
		t.Errorf("in the name of the pod before: %v", refused(err))
	}
	client.node.logged(t, map[string]any{"level": "WARN", "direction": "outbound",
		"error": "waiting for the record of shop/client as client: there is one with the addresses [10.99.0.9], none of which is in the pod's network namespace: context deadline exceeded"})

	waited := make(chan error, 1)
	go func() {
		_, err := client.call(web.at(8080))
		waited <- err
	}()
	client.edit(func(x *mesh.Workload) { x.Addresses = own })
	if err := <-waited; err != nil {
		t.Errorf("with its own record: %v", err)
	}
}
