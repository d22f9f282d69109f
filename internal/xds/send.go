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
// never leaves anything without its guards: see steps.
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
	for _, step := range steps(c.order, deltas, c.guards) {
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

// guards says what goes before everything else and leaves after it. What a
// client gets for the first time goes there too: a type counts as received with
// its first message.
func (c *session) guards(typ, name string) bool {
	return c.subs[typ].owed || c.srv.cfg.Guards(typ, name)
}

// response is one message of a push.
type response struct {
	typ     string
	upserts []*Resource
	removed []string
}

func (r response) empty() bool { return len(r.upserts)+len(r.removed) == 0 }

// steps orders a push: new guards, then addresses, then what refers to them,
// then the end of addresses, then guards that narrow or go away. Every type has
// a message, even an empty one. It is pure.
func steps(order []string, deltas map[string]*Delta, guards func(typ, name string) bool) []response {
	var before, refer, after []response
	for _, typ := range order {
		d := deltas[typ]
		if d == nil || typ == TypeAddress {
			continue
		}
		first, rest := response{typ: typ}, response{typ: typ}
		end := response{typ: typ, upserts: d.late}
		for _, u := range d.Upserts {
			to := &rest
			if guards(typ, u.Name) {
				to = &first
			}
			to.upserts = append(to.upserts, u)
		}
		for _, name := range d.Removed {
			to := &rest
			if guards(typ, name) {
				to = &end
			}
			to.removed = append(to.removed, name)
		}
		before, refer, after = append(before, first), nonEmpty(refer, rest), nonEmpty(after, end)
	}
	if d := deltas[TypeAddress]; d != nil {
		here := response{typ: TypeAddress, upserts: append(slices.Clip(d.Upserts), d.late...)}
		if len(refer) == 0 {
			here.removed = d.Removed
		} else {
			refer = nonEmpty(refer, response{typ: TypeAddress, removed: d.Removed})
		}
		before = append(before, here)
	}
	return slices.Concat(before, refer, after)
}

func nonEmpty(list []response, r response) []response {
	if r.empty() {
		return list
	}
	return append(list, r)
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
