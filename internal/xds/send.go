package xds

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
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
		if sub.wildcard {
			sub.held = nil // it has been compared, and the client may take its time
		}
	}
	c.arrived()
	for i, step := range steps(c.order, deltas, c.guards, c.srv.cfg) {
		step.generation, step.nonce = snap.Generation, c.nonce(snap.Generation, i, step.shared)
		if err := c.send(c.subs[step.typ], step); err != nil {
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
	// shared is set if many clients are sent the same.
	shared     bool
	generation uint64
	nonce      string
}

func (r response) empty() bool { return len(r.upserts)+len(r.removed) == 0 }

// steps orders a push: guards that are new or widen, then in turns those that are
// replaced and the addresses that they do not guard any more, gone ones among them,
// then the other addresses, then what refers to them, then the end of addresses, then
// guards that narrow or go away. Every type has a message, even an empty one. It is
// pure.
func steps(order []string, deltas map[string]*Delta, guards func(typ, name string) bool, cfg ServerConfig) []response {
	plan := arrange(deltas, guards, cfg)
	turns, turn, addresses := plan.turns, plan.turn, plan.addresses
	var fresh, refer, after []response
	replaced := make([][]response, turns+1)
	for _, typ := range order {
		d := deltas[typ]
		if d == nil || typ == TypeAddress {
			continue
		}
		first, rest := response{typ: typ, shared: d.shared}, response{typ: typ, shared: d.shared}
		end := response{typ: typ, shared: d.shared, upserts: d.late}
		inTurn := make([]response, len(replaced))
		for i := range inTurn {
			inTurn[i] = response{typ: typ, shared: d.shared}
		}
		for _, u := range d.Upserts {
			to := &rest
			if guards(typ, u.Name) {
				to = &first
				if i := turn[u.Name]; i > 0 {
					to = &inTurn[i]
				}
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
		fresh = append(fresh, first)
		for i, r := range inTurn {
			replaced[i] = nonEmpty(replaced[i], r)
		}
		refer, after = nonEmpty(refer, rest), nonEmpty(after, end)
	}
	all := fresh
	for i := range replaced {
		if i == turns {
			all = nonEmpty(nonEmpty(all, plan.copies), plan.standing)
		}
		all = append(all, replaced[i]...)
		if i < turns {
			all = nonEmpty(all, addresses[i])
		}
	}
	if d := deltas[TypeAddress]; d != nil {
		others := addresses[turns]
		here := response{typ: TypeAddress, shared: d.shared, upserts: append(slices.Clip(others.upserts), d.late...)}
		if len(refer) == 0 {
			here.removed = others.removed
		} else {
			refer = nonEmpty(refer, response{typ: TypeAddress, shared: d.shared, removed: others.removed})
		}
		all = append(all, here)
	}
	return nonEmpty(slices.Concat(all, refer, after), plan.end)
}

// Order is what a server configured so sends a client that has old, nil if it has
// nothing yet, to bring it to new.
func Order(old, new map[string]Resources, cfg ServerConfig) (updates []Update) {
	order := slices.Sorted(maps.Keys(new))
	deltas := map[string]*Delta{}
	for _, typ := range order {
		deltas[typ] = diff(typ, old[typ], new[typ], cfg.Late)
	}
	for _, r := range steps(order, deltas, cfg.Guards, cfg) {
		if old != nil && r.empty() {
			continue
		}
		u := Update{Type: r.typ, Removed: r.removed}
		for _, x := range r.upserts {
			u.Upserts = append(u.Upserts, *x)
		}
		updates = append(updates, u)
	}
	return updates
}

// plan is how replaced guards and addresses take turns.
type plan struct {
	turns int
	// turn is that of each replaced guard, addresses what becomes of addresses in
	// each. What is in none comes after the last.
	turn      map[string]int
	addresses []response
	// copies, standing and end make stand-ins for what is stuck, and remove them.
	copies, standing, end response
}

func arrange(deltas map[string]*Delta, guards func(typ, name string) bool, cfg ServerConfig) plan {
	d := deltas[TypeAddress]
	if d == nil {
		return plan{addresses: []response{{}}}
	}
	replaced, typeOf := map[string]Replaced{}, map[string]string{}
	for typ, other := range deltas {
		if typ == TypeAddress || other == nil || cfg.Moves == nil {
			continue
		}
		for _, u := range other.Upserts {
			if old := other.was[u.Name]; old != nil && guards(typ, u.Name) && (cfg.Late == nil || !cfg.Late(typ, u, old)) {
				replaced[u.Name], typeOf[u.Name] = Replaced{old, u}, typ
			}
		}
	}
	moves := d.moves(replaced, cfg.Moves)
	order, stuck := Turns(slices.Collect(maps.Keys(replaced)), moves)
	if len(stuck) > 0 {
		order = append(order, Turn{}) // what is stuck comes after the others
	}
	p := plan{turns: len(order), turn: map[string]int{}}
	for name := range replaced {
		p.turn[name] = p.turns
	}
	of := map[string]int{} // of an address
	for i, t := range order {
		for _, name := range t.Guards {
			p.turn[name] = i
		}
		for _, name := range t.Addresses {
			of[name] = i
		}
	}
	p.addresses = make([]response, p.turns+1)
	for i := range p.addresses {
		p.addresses[i] = response{typ: TypeAddress, shared: d.shared}
	}
	to := func(name string) *response {
		if i, ok := of[name]; ok {
			return &p.addresses[i]
		}
		return &p.addresses[p.turns]
	}
	if len(of) == 0 {
		p.addresses[p.turns].upserts = slices.Clip(d.Upserts) // as is mostly so, of many at once
	} else {
		for _, u := range d.Upserts {
			r := to(u.Name)
			r.upserts = append(r.upserts, u)
		}
	}
	for _, name := range d.Removed {
		r := to(name)
		r.removed = append(r.removed, name)
	}
	if len(stuck) > 0 && cfg.StandIns != nil {
		var left, addresses []*Resource
		for _, name := range Left(stuck, moves) {
			left = append(left, replaced[name].Old)
			p.copies.typ, p.end.typ = typeOf[name], typeOf[name]
		}
		for _, name := range stuck {
			addresses = append(addresses, d.was[name])
		}
		p.standing.typ = TypeAddress
		p.copies.upserts, p.standing.upserts = cfg.StandIns(left, addresses)
		for _, c := range p.copies.upserts {
			p.end.removed = append(p.end.removed, c.Name)
		}
	}
	return p
}

// moves are those of the addresses of d.
func (d *Delta) moves(replaced map[string]Replaced, moves MoveFunc) map[string]Move {
	if len(replaced) == 0 {
		return nil
	}
	all := map[string]Move{}
	for _, u := range d.Upserts {
		if old := d.was[u.Name]; old != nil {
			all[u.Name] = moves(replaced, old, u)
		}
	}
	for _, name := range d.Removed {
		if old := d.was[name]; old != nil {
			all[name] = moves(replaced, old, nil)
		}
	}
	return all
}

func nonEmpty(list []response, r response) []response {
	if r.empty() {
		return list
	}
	return append(list, r)
}

// nonce is unique on its stream, as no stream is brought to a generation twice
// by steps that are shared: those have the same nonce for everybody.
func (c *session) nonce(generation uint64, step int, shared bool) string {
	if shared {
		return fmt.Sprintf("%d.%d", generation, step)
	}
	c.nonces++
	return fmt.Sprintf("own.%d", c.nonces)
}

// send writes one message unless it would say nothing and nothing is owed.
func (c *session) send(sub *subscription, r response) error {
	if r.empty() && !sub.owed {
		return nil
	}
	msg, size, err := c.srv.messages.of(c.stream, r)
	if err != nil {
		return fmt.Errorf("encoding %s: %w", sub.typ, err)
	}
	if most := c.srv.cfg.MaxMessage; size > most {
		c.log.Error("response too large", "type", sub.typ, "resources", len(r.upserts), "bytes", size, "most", most)
		return status.Errorf(codes.ResourceExhausted, "%d resources of %s are %d bytes: proxies take %d", len(r.upserts), sub.typ, size, most)
	}
	c.mu.Lock()
	sub.nonce, sub.acked, sub.owed, sub.lastPush = r.nonce, false, false, time.Now()
	if !r.empty() {
		sub.givenGen = r.generation
	}
	c.mu.Unlock()
	if err := c.stream.SendMsg(msg); err != nil {
		return fmt.Errorf("pushing %s: %w", sub.typ, err)
	}
	c.srv.cfg.Observer.Pushed(sub.typ, len(r.upserts)+len(r.removed), size)
	return nil
}
