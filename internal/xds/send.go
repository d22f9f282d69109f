package xds

import (
	"fmt"
	"slices"
	"strconv"
	"time"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/protobuf/types/known/anypb"
)

// push brings every subscription to the newest snapshot, in the order that
// never leaves a workload without its policy: new policies, then everything
// else, then policies that narrow or go away.
func (c *session) push() error {
	snap := c.srv.cfg.Source.Snapshot(c.peer)
	if snap == nil || len(c.order) == 0 {
		return nil
	}
	deltas := make(map[string]*Delta, len(c.order))
	sent := false
	for _, typ := range c.order {
		sub := c.subs[typ]
		if sub.current(snap) {
			continue
		}
		deltas[typ] = c.delta(sub, snap)
		sent = sent || !deltas[typ].empty()
	}
	for _, step := range steps(c.order, deltas) {
		if err := c.send(c.subs[step.typ], snap.Generation, step); err != nil {
			return err
		}
	}
	c.mu.Lock()
	for typ, d := range deltas {
		c.subs[typ].holds(snap, d)
	}
	c.mu.Unlock()
	if sent && !snap.Changed.IsZero() && snap.Changed.After(c.started) {
		c.srv.cfg.Observer.Converged(time.Since(snap.Changed))
	}
	return nil
}

// response is one message of a push.
type response struct {
	typ     string
	upserts []*Resource
	removed []string
	// last is set on the type's final message of the push.
	last bool
}

func (r response) empty() bool { return len(r.upserts)+len(r.removed) == 0 }

// steps orders a push. It is pure.
func steps(order []string, deltas map[string]*Delta) []response {
	var out []response
	policies := deltas[TypeAuthorization]
	if policies != nil {
		out = append(out, response{typ: TypeAuthorization, upserts: policies.Upserts})
	}
	for _, typ := range order {
		if d := deltas[typ]; d != nil && typ != TypeAuthorization {
			upserts := append(slices.Clip(d.Upserts), d.late...)
			out = append(out, response{typ: typ, upserts: upserts, removed: d.Removed, last: true})
		}
	}
	if policies != nil {
		end := response{typ: TypeAuthorization, upserts: policies.late, removed: policies.Removed, last: true}
		if end.empty() {
			out[0].last = true
		} else {
			out = append(out, end)
		}
	}
	return out
}

// send writes one message unless it would say nothing and nothing is owed.
func (c *session) send(sub *subscription, gen uint64, r response) error {
	if r.empty() && !sub.owed {
		return nil
	}
	msg := &discovery.DeltaDiscoveryResponse{
		TypeUrl:           sub.typ,
		RemovedResources:  r.removed,
		Nonce:             c.nextNonce(),
		SystemVersionInfo: strconv.FormatUint(gen, 10),
		ControlPlane:      &core.ControlPlane{Identifier: c.srv.cfg.Identifier},
	}
	size := 0
	for _, u := range r.upserts {
		size += len(u.Body)
		msg.Resources = append(msg.Resources, &discovery.Resource{
			Name: u.Name, Version: u.Version, Aliases: u.Aliases,
			Resource: &anypb.Any{TypeUrl: sub.typ, Value: u.Body},
		})
	}
	c.mu.Lock()
	sub.nonce, sub.acked, sub.owed, sub.lastPush = msg.Nonce, false, false, time.Now()
	c.mu.Unlock()
	if err := c.stream.Send(msg); err != nil {
		return fmt.Errorf("pushing %s: %w", sub.typ, err)
	}
	c.srv.cfg.Observer.Pushed(sub.typ, len(r.upserts)+len(r.removed), size)
	return nil
}
