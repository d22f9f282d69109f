package members_test

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/ambit-mesh/ambit/cni/members"
	"github.com/ambit-mesh/ambit/cni/netnstest"
	"github.com/ambit-mesh/ambit/internal/linux"
	"github.com/ambit-mesh/ambit/internal/zds"
)

// filesOf is how many descriptors of this process lead to a namespace.
func filesOf(t *testing.T, id linux.NetNSID) (files int) {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		var st unix.Stat_t
		if unix.Stat("/proc/self/fd/"+e.Name(), &st) == nil && st.Ino == id.Ino && uint64(st.Dev) == id.Dev {
			files++
		}
	}
	return files
}

// stands reports whether a cable ends on the node. That of a pod does as long as
// anybody holds its namespace, be it by a socket.
func (w world) stands(cable string) bool {
	return w.node.Do(func() error { _, err := net.InterfaceByName(cable); return err }) == nil
}

// TestAPodWhoseNetworkNamespaceVanishesIsLetGoOf: its processes are gone and it
// is no longer mounted, so that it lives on by those who watch over it alone.
// Looking at it is no trouble, nothing of it stays when they have heard, and
// the pod is captured in the namespace that it gets next.
func TestAPodWhoseNetworkNamespaceVanishesIsLetGoOf(t *testing.T) {
	for _, tt := range []struct {
		what string
		// tornDown is set if the runtime has taken the pod's interface away first.
		tornDown bool
		// again is set if the pod has its next namespace before it is said to have
		// ended.
		again bool
	}{
		{"its interface goes with it", false, false},
		{"its interface went before", true, false},
		{"it has another before anybody hears", true, true},
	} {
		t.Run(tt.what, func(t *testing.T) {
			w := newWorld(t)
			z := netnstest.NewZtunnel(t, w.socket, nil)
			defer w.watch(t)()
			ns := netnstest.NewPod(t, w.node, 3)
			pod := members.Pod{
				Pod: zds.Pod{UID: "uid-gone", Name: "gone", Namespace: "shop", ServiceAccount: "sa"},
				IPs: []netip.Addr{ns.V4, ns.V6},
			}
			if err := w.keeper.Admit(t.Context(), pod, open(t, ns.NS), "sandbox-1"); err != nil {
				t.Fatal(err)
			}
			first := ns.NS.ID()
			if tt.tornDown {
				netnstest.Do(t, ns.NS, func() error {
					eth0, err := netlink.LinkByName("eth0")
					if err != nil {
						return err
					}
					return netlink.LinkDel(eth0)
				})
			}
			ns.NS.Close()
			if filesOf(t, first) == 0 || w.stands("veth3") == tt.tornDown {
				t.Fatal("nobody holds the namespace: this proves nothing")
			}
			if err := w.keeper.Look(pod); err != nil {
				t.Errorf("looking at it: %v", err)
			}
			select {
			case m := <-w.mended:
				t.Errorf("%+v is mended in it", m)
			default:
			}
			next := func() {
				ns := netnstest.NewPod(t, w.node, 3)
				netnstest.Serve(t, ns.NS, 8080, "pod", linux.ListenOptions{})
				if err := w.keeper.Admit(t.Context(), pod, open(t, ns.NS), "sandbox-2"); err != nil {
					t.Fatal(err)
				}
				want := fmt.Sprintf("by 15006 pod %s: hi", w.peer.V4)
				if got := netnstest.Ask(t, w.peer.NS, netip.AddrPortFrom(ns.V4, 8080), "hi"); got != want {
					t.Errorf("in its next namespace: %q, want %q", got, want)
				}
			}
			if tt.again {
				next()
				eventually(t, "the first namespace is let go of", func() bool { return filesOf(t, first) == 0 })
				return
			}
			if err := w.keeper.Forget(t.Context(), "uid-gone"); err != nil {
				t.Fatal(err)
			}
			eventually(t, "nobody holds the namespace", func() bool { return filesOf(t, first) == 0 && !w.stands("veth3") })
			if slices.Contains(z.Pods(), "uid-gone") {
				t.Error("ztunnel still serves it")
			}
			next()
		})
	}
}
