package outbound

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/ambit-mesh/ambit/ztunnel/dump"
)

// ready is the world once its missing waypoint is there.
const ready = world + `
- {name: gone, namespace: shop, hostname: gone.shop.svc, vips: [/10.96.0.9], ports: {15008: 15008}}
`

const instances = `
- {uid: k//Pod/shop/gone-1, name: gone-1, namespace: shop, serviceAccount: gone, workloadIps: [10.1.0.20], protocol: TCP, services: {shop/gone.shop.svc: {15008: 15008}}}
services:
`

// become makes text the mesh that the rig knows.
func (r *rig) become(text string) {
	r.t.Helper()
	model, err := dump.ParseLocal([]byte(text))
	if err != nil {
		r.t.Fatal(err)
	}
	r.out.Store.Replace(model)
}

// sent is what a connection behind the waypoint came to.
type sent struct {
	got string
	err error
}

func (r *rig) sendBehind() <-chan sent {
	done := make(chan sent, 1)
	go func() {
		got, err := r.send("10.1.0.9:80", "hello")
		done <- sent{got, err}
	}()
	return done
}

// until waits for what another goroutine does.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("did not come true: %s", what)
		}
	}
}

func TestAConnectionWaitsForItsWaypoint(t *testing.T) {
	r := newRig(t)
	r.out.WaypointTimeout = time.Minute
	done := r.sendBehind()
	until(t, "it waits", func() bool { return len(r.out.waiting) == 1 })
	r.become(ready) // a service without a pod
	select {
	case s := <-done:
		t.Fatalf("did not wait for a pod of its waypoint: %q, %v", s.got, s.err)
	case <-time.After(20 * time.Millisecond):
	}
	r.become(strings.Replace(ready, "\nservices:\n", instances, 1))
	if s := <-done; s.err != nil || s.got != "hello" {
		t.Fatalf("got %q, %v", s.got, s.err)
	}
	if r.tunnels.asked[0] != "10.1.0.20:15008" {
		t.Errorf("went to %v, past its waypoint", r.tunnels.asked)
	}
	if len(r.out.waiting) != 0 {
		t.Error("it still counts as waiting")
	}
}

func TestAConnectionWaitsForAnotherInstanceOfItsWaypoint(t *testing.T) {
	r := newRig(t)
	r.out.WaypointTimeout = time.Minute
	full := strings.Replace(ready, "\nservices:\n", instances, 1)
	r.become(full)
	r.tunnels.answer["10.1.0.20:15008"] = errors.New("it is gone")
	done := r.sendBehind()
	until(t, "it waits", func() bool { return len(r.out.waiting) == 1 })
	r.become(strings.ReplaceAll(full, "10.1.0.20", "10.1.0.21"))
	if s := <-done; s.err != nil || s.got != "hello" {
		t.Fatalf("got %q, %v", s.got, s.err)
	}
}

func TestFewConnectionsWaitForWaypoints(t *testing.T) {
	r := newRig(t)
	r.out.waiting = make(chan struct{}, 1)
	r.out.waiting <- struct{}{}
	if _, err := r.send("10.1.0.9:80", "hello"); err == nil {
		t.Error("carried past a missing waypoint")
	}
	if !strings.Contains(r.log.String(), "1 connections of this pod wait for waypoints already") {
		t.Errorf("log %s", r.log.String())
	}
}

func TestWaitingEndsWithThePod(t *testing.T) {
	r := newRig(t)
	r.out.WaypointTimeout = time.Hour
	local, err := r.out.Local(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	f := &flight{Outbound: r.out, src: local, dst: netip.MustParseAddrPort("10.1.0.9:80")}
	ended := make(chan struct{})
	go func() { defer close(ended); f.decide(ctx, nil) }()
	until(t, "it waits", func() bool { return len(r.out.waiting) == 1 })
	cancel()
	<-ended
}
