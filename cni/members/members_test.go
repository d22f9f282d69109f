package members_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/ambit-mesh/ambit/cni/handoff"
	"github.com/ambit-mesh/ambit/cni/members"
	"github.com/ambit-mesh/ambit/cni/netnstest"
	"github.com/ambit-mesh/ambit/cni/nft"
	"github.com/ambit-mesh/ambit/cni/probes"
	"github.com/ambit-mesh/ambit/cni/rules"
	"github.com/ambit-mesh/ambit/internal/linux"
	"github.com/ambit-mesh/ambit/internal/zds"
)

// world is a node with a pod that is to be of the mesh and a peer that is not,
// a keeper, and where ztunnels connect.
type world struct {
	node      *linux.NetNS
	pod, peer netnstest.Pod
	keeper    *members.Keeper
	mended    chan members.Mending
	socket    string
}

// watch has the kernel's changes mended until stop is called.
func (w world) watch(t *testing.T) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	watching := make(chan error, 1)
	go func() { watching <- w.keeper.Watch(ctx) }()
	return func() {
		cancel()
		if err := <-watching; err != nil {
			t.Error(err)
		}
	}
}

func newWorld(t *testing.T) world {
	t.Helper()
	node := netnstest.Node(t)
	w := world{node: node, pod: netnstest.NewPod(t, node, 1), peer: netnstest.NewPod(t, node, 2)}
	netnstest.Serve(t, w.pod.NS, 8080, "pod", linux.ListenOptions{})
	netnstest.Serve(t, w.peer.NS, 8080, "peer", linux.ListenOptions{})
	w.socket = filepath.Join(t.TempDir(), "z")
	l, err := zds.Listen(w.socket)
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	ztunnels := handoff.New(log)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- ztunnels.Serve(ctx, l) }()
	w.mended = make(chan members.Mending, 16)
	w.keeper, err = members.New(members.Config{
		Ztunnels: ztunnels, Node: node, Grace: grace,
		Mended: func(m members.Mending) { w.mended <- m }, Log: log,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		w.keeper.Close()
		ztunnels.Close()
	})
	return w
}

const (
	uid   = "uid-1"
	grace = 50 * time.Millisecond
)

func (w world) thePod() members.Pod {
	return members.Pod{
		Pod:    zds.Pod{UID: uid, Name: "pod", Namespace: "shop", ServiceAccount: "sa"},
		IPs:    []netip.Addr{w.pod.V4, w.pod.V6},
		Probed: []uint16{8080},
	}
}

// open gives away a namespace file, as the agent would.
func open(t *testing.T, ns *linux.NetNS) *linux.NetNS {
	t.Helper()
	var copied *linux.NetNS
	netnstest.Do(t, ns, func() (err error) {
		copied, err = linux.OpenNetNS("/proc/thread-self/ns/net")
		return err
	})
	return copied
}

// eventually waits for a condition.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(netnstest.Patience); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within %v: %s", netnstest.Patience, what)
		}
	}
}

func (w world) answers(t *testing.T, what, outbound, inbound string) {
	t.Helper()
	want := fmt.Sprintf("%speer %s: hi", outbound, w.pod.V4)
	if got := netnstest.Ask(t, w.pod.NS, netip.AddrPortFrom(w.peer.V4, 8080), "hi"); got != want {
		t.Errorf("%s: outbound %q, want %q", what, got, want)
	}
	want = fmt.Sprintf("%spod %s: hi", inbound, w.peer.V4)
	if got := netnstest.Ask(t, w.peer.NS, netip.AddrPortFrom(w.pod.V4, 8080), "hi"); got != want {
		t.Errorf("%s: inbound %q, want %q", what, got, want)
	}
}

func TestANewPodIsClosedUntilZtunnelHasIt(t *testing.T) {
	w := newWorld(t)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := w.keeper.Admit(ctx, w.thePod(), open(t, w.pod.NS), "sandbox"); !errors.Is(err, handoff.ErrNoZtunnel) {
		t.Fatalf("error %v, want %v", err, handoff.ErrNoZtunnel)
	}
	if got := netnstest.Ask(t, w.pod.NS, netip.AddrPortFrom(w.peer.V4, 8080), "hi"); got != "failed" {
		t.Errorf("a connection without ztunnel: %q, want a refusal", got)
	}
	netnstest.NewZtunnel(t, w.socket, nil)
	ctx, cancel = context.WithTimeout(t.Context(), netnstest.Patience)
	defer cancel()
	if err := w.keeper.Admit(ctx, w.thePod(), open(t, w.pod.NS), "sandbox"); err != nil {
		t.Fatal(err)
	}
	w.answers(t, "admitted", "by 15001 ", "by 15006 ")
	probe := fmt.Sprintf("pod %s: hi", rules.ProbeSourceV4)
	if got := netnstest.Ask(t, w.node, netip.AddrPortFrom(w.pod.V4, 8080), "hi"); got != probe {
		t.Errorf("a probe: %q, want %q", got, probe)
	}
	if found, ok := w.keeper.Sandbox("sandbox"); !ok || found != uid {
		t.Errorf("sandbox belongs to %q, want %q", found, uid)
	}
}

func TestARunningPodIsLeftAloneUntilZtunnelHasIt(t *testing.T) {
	w := newWorld(t)
	if err := w.keeper.Enrol(w.thePod(), open(t, w.pod.NS)); err != nil {
		t.Fatal(err)
	}
	if err := w.keeper.Advance(t.Context(), uid); !errors.Is(err, handoff.ErrNoZtunnel) {
		t.Errorf("error %v, want %v", err, handoff.ErrNoZtunnel)
	}
	w.answers(t, "without ztunnel", "", "")
	z := netnstest.NewZtunnel(t, w.socket, errors.New("address in use"))
	eventually(t, "ztunnel refuses", func() bool {
		var nack *zds.NackError
		return errors.As(w.keeper.Advance(t.Context(), uid), &nack)
	})
	w.answers(t, "refused by ztunnel", "", "")
	z.Refuse(nil)
	eventually(t, "ztunnel takes it", func() bool { return w.keeper.Advance(t.Context(), uid) == nil })
	w.answers(t, "enrolled", "by 15001 ", "by 15006 ")
	if p := w.keeper.Phase(uid); p != members.Captured {
		t.Errorf("phase %v, want %v", p, members.Captured)
	}
}

func TestDriftIsMended(t *testing.T) {
	w := newWorld(t)
	netnstest.NewZtunnel(t, w.socket, nil)
	if err := w.keeper.Restore(w.thePod(), open(t, w.pod.NS)); err != nil {
		t.Fatal(err)
	}
	look := func(pod members.Pod) *members.Mending {
		t.Helper()
		if err := w.keeper.Look(pod); err != nil {
			t.Fatal(err)
		}
		if err := w.keeper.LookAtNode(); err != nil {
			t.Fatal(err)
		}
		select {
		case m := <-w.mended:
			return &m
		default:
			return nil
		}
	}
	if m := look(w.thePod()); m != nil {
		t.Errorf("%+v is mended where nothing changed", m)
	}
	if err := rules.Remove(w.pod.NS); err != nil {
		t.Fatal(err)
	}
	if m := look(w.thePod()); m == nil || m.UID != uid || m.Noticed != members.Looked || len(m.Drift) == 0 {
		t.Errorf("removed rules: told %+v", m)
	}
	w.answers(t, "mended", "by 15001 ", "by 15006 ")

	bypass := w.thePod()
	bypass.BypassInbound = true
	if m := look(bypass); m != nil {
		t.Errorf("what the user changed is called drift: %+v", m)
	}
	w.answers(t, "inbound bypassed", "by 15001 ", "")
	bypass.UDP = true
	if m := look(bypass); m != nil || !w.keeper.UDPWaits(uid) {
		t.Errorf("UDP is captured before ztunnel takes it, or is called drift: %+v", m)
	}
	for _, port := range []uint16{15001, 15006} {
		s, err := linux.ListenDatagrams(t.Context(), w.pod.NS, netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), port), linux.ListenOptions{Mark: linux.Mark})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
	}
	if m := look(bypass); m != nil || w.keeper.UDPWaits(uid) {
		t.Errorf("UDP is not captured though ztunnel takes it, or is called drift: %+v", m)
	}
	if drift, err := rules.Check(open(t, w.pod.NS), rules.Spec{BypassInbound: true, UDP: true}); err != nil || len(drift) > 0 {
		t.Errorf("of the rules for UDP %v is missing, %v", drift, err)
	}
	if err := probes.Remove(w.node); err != nil {
		t.Fatal(err)
	}
	if m := look(bypass); m == nil || m.UID != "" || len(m.Drift) == 0 {
		t.Errorf("the node's removed table: told %+v", m)
	}
	if m := look(bypass); m != nil {
		t.Errorf("%+v is mended on the node where nothing changed", m)
	}
}

// TestTheKernelTellsAndItIsMended: nobody looks, and yet everything that is
// taken away comes back; what is let go of stays as it is.
func TestTheKernelTellsAndItIsMended(t *testing.T) {
	w := newWorld(t)
	netnstest.NewZtunnel(t, w.socket, nil)
	defer w.watch(t)()
	if err := w.keeper.Restore(w.thePod(), open(t, w.pod.NS)); err != nil {
		t.Fatal(err)
	}
	inside := func(f func() error) func() error { return func() error { return w.pod.NS.Do(f) } }
	told := func(what, uid, drift string) {
		t.Helper()
		select {
		case m := <-w.mended:
			if m.UID != uid || m.Noticed != members.Told || !strings.Contains(strings.Join(m.Drift, "; "), drift) {
				t.Errorf("%s: told %+v, want %q of pod %q", what, m, drift, uid)
			}
		case <-time.After(netnstest.Patience):
			t.Fatalf("%s: not mended", what)
		}
	}
	for _, c := range []struct {
		what, drift string
		do          func() error
	}{
		{"the table is deleted", "is missing", func() error { return nft.Remove(w.pod.NS, rules.TableName) }},
		{"the guard is deleted", "is missing", func() error { return nft.Remove(w.pod.NS, rules.GuardName) }},
		{"everything of nftables is deleted", "is missing", inside(func() error {
			c := &nftables.Conn{}
			c.FlushRuleset()
			return c.Flush()
		})},
		{"the return route is deleted", "is missing", inside(func() error {
			routes, err := netlink.RouteListFiltered(unix.AF_INET, &netlink.Route{Table: 100}, netlink.RT_FILTER_TABLE)
			if err != nil || len(routes) == 0 {
				return errors.Join(err, errors.New("no return route"))
			}
			return netlink.RouteDel(&routes[0])
		})},
	} {
		if err := c.do(); err != nil {
			t.Fatal(err)
		}
		told(c.what, uid, c.drift)
		w.answers(t, c.what, "by 15001 ", "by 15006 ")
	}
	if err := probes.Remove(w.node); err != nil {
		t.Fatal(err)
	}
	told("the node's table is deleted", "", "is missing")

	if err := w.keeper.Forget(t.Context(), uid); err != nil {
		t.Fatal(err)
	}
	if err := rules.Remove(w.pod.NS); err != nil {
		t.Fatal(err)
	}
	if present, err := rules.Present(w.pod.NS); present || err != nil {
		t.Errorf("rules are back in a pod that was let go of (%v)", err)
	}
}

func TestForgottenPodsLeaveZtunnelAndProbes(t *testing.T) {
	w := newWorld(t)
	z := netnstest.NewZtunnel(t, w.socket, nil)
	if err := w.keeper.Restore(w.thePod(), open(t, w.pod.NS)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "ztunnel serves it", func() bool { return slices.Equal(z.Pods(), []string{uid}) })
	if err := w.keeper.Forget(t.Context(), uid); err != nil {
		t.Fatal(err)
	}
	if got := z.Pods(); len(got) != 0 {
		t.Errorf("ztunnel still serves %q", got)
	}
	if got := netnstest.Ask(t, w.node, netip.AddrPortFrom(w.pod.V4, 8080), "hi"); got != "failed" {
		t.Errorf("a probe is still exempt: %q", got)
	}
}

// TestNothingIsLostWhenARunningPodComesAndGoes has 100 new connections a second
// each way and one long one each way, while the pod is enrolled and released
// again and again.
func TestNothingIsLostWhenARunningPodComesAndGoes(t *testing.T) {
	w := newWorld(t)
	z := netnstest.NewZtunnel(t, w.socket, nil)
	out, in := netip.AddrPortFrom(w.peer.V4, 8080), netip.AddrPortFrom(w.pod.V4, 8080)
	longOut, err := netnstest.Dial(t, w.pod.NS, out)
	if err != nil {
		t.Fatal(err)
	}
	longIn, err := netnstest.Dial(t, w.peer.NS, in)
	if err != nil {
		t.Fatal(err)
	}

	ctx, stop := context.WithCancel(t.Context())
	var load sync.WaitGroup
	var mu sync.Mutex
	asked, failed, through := 0, 0, map[string]int{}
	note := func(answer string) {
		mu.Lock()
		defer mu.Unlock()
		asked++
		if answer == "failed" {
			failed++
		}
		through[answer[:min(8, len(answer))]]++
	}
	for _, d := range []struct {
		from *linux.NetNS
		to   netip.AddrPort
	}{{w.pod.NS, out}, {w.peer.NS, in}} {
		load.Go(func() {
			tick := time.NewTicker(10 * time.Millisecond)
			defer tick.Stop()
			for {
				select {
				case <-ctx.Done():
					return
				case <-tick.C:
					load.Go(func() { note(netnstest.Ask(t, d.from, d.to, "hi")) })
				}
			}
		})
	}
	for i := range 4 {
		if err := w.keeper.Enrol(w.thePod(), open(t, w.pod.NS)); err != nil {
			t.Fatal(err)
		}
		eventually(t, "enrolled", func() bool { return w.keeper.Advance(t.Context(), uid) == nil })
		captured, err := netnstest.Dial(t, w.pod.NS, out)
		if err != nil {
			t.Fatal(err)
		}
		during(mu.Lock, mu.Unlock, &asked, t)
		if err := w.keeper.Release(t.Context(), uid); err != nil {
			t.Fatal(err)
		}
		during(mu.Lock, mu.Unlock, &asked, t)
		w.loosens(t)
		during(mu.Lock, mu.Unlock, &asked, t)
		if done, err := w.keeper.Settle(t.Context(), uid, 0); done || err != nil {
			t.Errorf("round %d: released (%v) though a connection is captured (%v)", i, done, err)
		}
		for name, c := range map[string]*netnstest.Client{"opened before, out": longOut, "opened before, in": longIn, "captured": captured} {
			if _, err := c.Ask("hi"); err != nil {
				t.Errorf("round %d: the long connection %s: %v", i, name, err)
			}
		}
		captured.Close()
		eventually(t, "the release ends", func() bool {
			done, err := w.keeper.Settle(t.Context(), uid, 0)
			if err != nil {
				t.Fatal(err)
			}
			return done
		})
		if p := w.keeper.Phase(uid); p != members.Free || len(z.Pods()) != 0 {
			t.Errorf("round %d: phase %v, ztunnel serves %q; want neither", i, p, z.Pods())
		}
		if present, err := rules.Present(w.pod.NS); present || err != nil {
			t.Errorf("round %d: rules are left (%v)", i, err)
		}
	}
	stop()
	load.Wait()
	t.Logf("%d requests, %d failed, by way: %v", asked, failed, through)
	if failed > 0 {
		t.Errorf("%d of %d requests failed", failed, asked)
	}
	if through["by 15001"] == 0 || through["by 15006"] == 0 || through["peer 10."] == 0 {
		t.Errorf("the load did not see both worlds: %v", through)
	}
}

// loosens waits until nothing new of the pod is captured.
func (w world) loosens(t *testing.T) {
	t.Helper()
	eventually(t, "nothing new is captured", func() bool {
		loose, err := w.keeper.Loosen(uid, true, 0)
		if err != nil {
			t.Fatal(err)
		}
		return loose
	})
}

// TestWhatLeavesIsLetInFirstAndLetOutLast: until its peers have heard, what a
// pod sends is carried, since peers may refuse plaintext, and what comes to it
// in clear reaches it, since they may think that it has left.
func TestWhatLeavesIsLetInFirstAndLetOutLast(t *testing.T) {
	w := newWorld(t)
	netnstest.NewZtunnel(t, w.socket, nil)
	if err := w.keeper.Restore(w.thePod(), open(t, w.pod.NS)); err != nil {
		t.Fatal(err)
	}
	w.answers(t, "captured", "by 15001 ", "by 15006 ")
	if err := w.keeper.Release(t.Context(), uid); err != nil {
		t.Fatal(err)
	}
	w.answers(t, "leaving", "by 15001 ", "")
	for end := time.Now().Add(3 * grace); time.Now().Before(end); time.Sleep(grace / 5) {
		if loose, err := w.keeper.Loosen(uid, false, time.Hour); loose || err != nil {
			t.Errorf("nobody has heard, and it is let out (%v)", err)
		}
	}
	if done, err := w.keeper.Settle(t.Context(), uid, 0); done || err != nil {
		t.Errorf("nobody has heard, and it has left (%v)", err)
	}
	w.answers(t, "still leaving", "by 15001 ", "")
	w.loosens(t)
	w.answers(t, "all have heard", "", "")
	if err := w.keeper.Advance(t.Context(), uid); err != nil {
		t.Fatal(err)
	}
	w.answers(t, "it comes back", "by 15001 ", "by 15006 ")
	if err := w.keeper.Release(t.Context(), uid); err != nil {
		t.Fatal(err)
	}
	eventually(t, "who does not hear is not waited for without end", func() bool {
		loose, err := w.keeper.Loosen(uid, false, 100*time.Millisecond)
		return loose && err == nil
	})
	w.answers(t, "in spite of one that has not heard", "", "")
}

// during lets 40 more requests be answered.
func during(lock, unlock func(), asked *int, t *testing.T) {
	t.Helper()
	read := func() int { lock(); defer unlock(); return *asked }
	from := read()
	eventually(t, "the load goes on", func() bool { return read() >= from+40 })
}

func TestALongReleaseCanBeForced(t *testing.T) {
	w := newWorld(t)
	netnstest.NewZtunnel(t, w.socket, nil)
	if err := w.keeper.Enrol(w.thePod(), open(t, w.pod.NS)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "enrolled", func() bool { return w.keeper.Advance(t.Context(), uid) == nil })
	if _, err := netnstest.Dial(t, w.pod.NS, netip.AddrPortFrom(w.peer.V4, 8080)); err != nil {
		t.Fatal(err)
	}
	if err := w.keeper.Release(t.Context(), uid); err != nil {
		t.Fatal(err)
	}
	w.loosens(t)
	eventually(t, "forced", func() bool {
		done, err := w.keeper.Settle(t.Context(), uid, 300*time.Millisecond)
		if err != nil {
			t.Fatal(err)
		}
		return done
	})
	if present, err := rules.Present(w.pod.NS); present || err != nil {
		t.Errorf("rules are left (%v)", err)
	}
}
