package members_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/ambit-mesh/ambit/cni/handoff"
	"github.com/ambit-mesh/ambit/cni/members"
	"github.com/ambit-mesh/ambit/cni/netnstest"
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
	socket    string
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
	w.keeper = members.New(members.Config{Ztunnels: ztunnels, Node: node, Grace: 50 * time.Millisecond, Log: log})
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

const uid = "uid-1"

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
	look := func(pod members.Pod) []string {
		t.Helper()
		drift, err := w.keeper.Look(pod)
		if err != nil {
			t.Fatal(err)
		}
		return drift
	}
	if drift := look(w.thePod()); len(drift) > 0 {
		t.Errorf("drift %q where nothing changed", drift)
	}
	if err := rules.Remove(w.pod.NS); err != nil {
		t.Fatal(err)
	}
	if drift := look(w.thePod()); len(drift) == 0 {
		t.Error("removed rules are not noticed")
	}
	w.answers(t, "mended", "by 15001 ", "by 15006 ")

	bypass := w.thePod()
	bypass.BypassInbound = true
	if drift := look(bypass); len(drift) > 0 {
		t.Errorf("what the user changed is called drift: %q", drift)
	}
	w.answers(t, "inbound bypassed", "by 15001 ", "")
	if err := w.keeper.LeaveNode(); err != nil {
		t.Fatal(err)
	}
	if _, err := w.keeper.LookAtNode(); err != nil {
		t.Fatal(err)
	}
	drift, err := w.keeper.LookAtNode()
	if err != nil || len(drift) > 0 {
		t.Errorf("drift %q (%v) on the node where nothing changed", drift, err)
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
