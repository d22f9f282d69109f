package cni_test

import (
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ambit-mesh/ambit/cni/enrol"
	"github.com/ambit-mesh/ambit/cni/event"
	"github.com/ambit-mesh/ambit/cni/netnstest"
)

// told tells the agent of a sandbox as only root on the node could.
func (w *world) told(name, uid, path string, net netnstest.Pod) error {
	w.t.Helper()
	return event.Client{Socket: filepath.Join(w.cfg.RunDir, "pluginevent.sock")}.Add(w.t.Context(), event.Add{
		Netns: path, PodName: name, PodNamespace: "shop", PodUID: uid, ContainerID: "sandbox",
		IPs: []event.IP{{Address: net.V4.String() + "/24"}, {Address: net.V6.String() + "/64"}},
	})
}

func (w *world) refuses(what string, err error, reason string) {
	w.t.Helper()
	if err == nil || !strings.Contains(err.Error(), reason) {
		w.t.Errorf("%s: %v, want a refusal that says %q", what, err, reason)
	}
}

// TestNoPodIsServedUnderAnothersIdentity: whatever the plugin says, a pod's
// name, network namespace and addresses stay together.
func TestNoPodIsServedUnderAnothersIdentity(t *testing.T) {
	w := newWorld(t)
	w.agent()
	z := netnstest.NewZtunnel(t, w.cfg.ZtunnelSocket, nil)
	held, plain, fresh := w.network(), w.network(), w.network()
	pod := w.pod(1, "shop", &held)
	w.pod(2, "plain", &plain)
	w.pod(3, "shop", nil) // starts
	w.eventually("enabled", func() bool { return w.annotation(pod) == enrol.Enabled })

	w.refuses("in the namespace of a pod of the mesh", w.told("p3", uidOf(3), netnstest.Path(held.NS), held), "lives in the network namespace")
	w.proc.Remove(t, 1001) // nothing is known any more of who lives there
	w.refuses("in one of which only the agent knows", w.told("p3", uidOf(3), netnstest.Path(held.NS), held), "its network namespace is that of pod shop/p1 (uid "+uidOf(1)+")")
	w.refuses("in that of a pod outside of the mesh", w.told("p3", uidOf(3), netnstest.Path(plain.NS), plain), "lives in the network namespace")
	w.refuses("in the node's own", w.told("p3", uidOf(3), netnstest.Path(w.node), netnstest.Pod{V4: netip.MustParseAddr("10.88.0.1"), V6: netip.MustParseAddr("fd00:88::1")}), "the node's own")
	w.refuses("under the name of one that was replaced", w.told("p3", uidOf(9), netnstest.Path(fresh.NS), fresh), "has been replaced")
	w.refuses("with the addresses of another", w.told("p3", uidOf(3), netnstest.Path(fresh.NS), held), "none of the pod's addresses")

	elsewhere := filepath.Join(t.TempDir(), "cni-0000")
	if err := os.Symlink(netnstest.Path(plain.NS), elsewhere); err != nil {
		t.Fatal(err)
	}
	w.refuses("by a path that leads elsewhere now", w.told("p3", uidOf(3), elsewhere, fresh), "none of the pod's addresses")
	w.refuses("by a path that leads to no namespace", w.told("p3", uidOf(3), "/dev/null", fresh), "is not a namespace")

	netnstest.Do(t, fresh.NS, func() error {
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		return netlink.AddrAdd(lo, &netlink.Addr{IPNet: netlink.NewIPNet(held.V4.AsSlice())})
	})
	w.refuses("with an address that another has", w.told("p3", uidOf(3), netnstest.Path(fresh.NS), held), "its address "+held.V4.String()+" is on pod shop/p1")

	if _, ns := z.Pod(uidOf(1)); !slices.Equal(z.Pods(), []string{uidOf(1)}) || ns != held.NS.ID() {
		t.Errorf("ztunnel serves %q, the first in %v; want it alone, in %v", z.Pods(), ns, held.NS.ID())
	}
	if w.present(plain) || w.present(fresh) {
		t.Error("rules in a namespace that was refused")
	}
	if err := w.told("p3", uidOf(3), netnstest.Path(fresh.NS), fresh); err != nil {
		t.Errorf("in its own namespace, with its own addresses: %v", err)
	}
}

// TestAnAddressIsGivenOutAgain: the pod that had it has ended, and nobody has
// said so yet.
func TestAnAddressIsGivenOutAgain(t *testing.T) {
	w := newWorld(t)
	w.agent()
	z := netnstest.NewZtunnel(t, w.cfg.ZtunnelSocket, nil)
	before := w.network()
	pod := w.pod(1, "shop", &before)
	w.eventually("enabled", func() bool { return w.annotation(pod) == enrol.Enabled })
	netnstest.Do(t, before.NS, func() error {
		eth, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		return netlink.LinkDel(eth)
	})
	w.pods-- // the same addresses again
	after := w.network()
	w.pod(2, "shop", nil)
	if err := w.told("p2", uidOf(2), netnstest.Path(after.NS), after); err != nil {
		t.Fatal(err)
	}
	if _, ns := z.Pod(uidOf(2)); ns != after.NS.ID() {
		t.Error("ztunnel serves the new pod elsewhere")
	}
}

// TestAPodMadeAgainWhileTheAgentWasAway: one of a StatefulSet, with the name and
// the addresses of the one before. Its ztunnel goes on without the agent.
func TestAPodMadeAgainWhileTheAgentWasAway(t *testing.T) {
	w := newWorld(t)
	stop := w.agent()
	z := netnstest.NewZtunnel(t, w.cfg.ZtunnelSocket, nil)
	before := w.network()
	pod := w.pod(1, "shop", &before)
	w.eventually("enabled", func() bool { return w.annotation(pod) == enrol.Enabled })
	stop()
	z.Leave()

	if err := w.kube.CoreV1().Pods("shop").Delete(t.Context(), "p1", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	w.proc.Remove(t, 1001)
	after := w.network()
	again := pod.DeepCopy()
	again.UID, again.ResourceVersion, again.Annotations = "00000000-0000-0000-0000-000000000002", "", nil
	w.run(again, 2, after)
	if _, err := w.kube.CoreV1().Pods("shop").Create(t.Context(), again, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	w.agent()
	z = netnstest.NewZtunnel(t, w.cfg.ZtunnelSocket, nil)
	w.eventually("the new one is served", func() bool { return w.annotation(again) == enrol.Enabled })
	if _, ns := z.Pod(uidOf(2)); !slices.Equal(z.Pods(), []string{uidOf(2)}) || ns != after.NS.ID() {
		t.Errorf("ztunnel serves %q, the new one in %v; want it alone, in %v", z.Pods(), ns, after.NS.ID())
	}
	if way := w.way(after); way != "by 15001" {
		t.Errorf("a connection of the new pod went %q", way)
	}
}
