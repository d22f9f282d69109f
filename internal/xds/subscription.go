package xds

import (
	"time"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// subscription is what a client asked for and has of one type. It belongs to
// its session's goroutine; report fields are written under the session's mu.
type subscription struct {
	typ string
	// wildcard clients hold everything; the others what keys lead to.
	wildcard bool
	keys     map[string]bool
	// fresh are the keys whose answer is owed whether or not it is new.
	fresh map[string]bool
	// dirty is set when what the client wants changed since sent.
	dirty bool
	// sent is the newest snapshot the client was brought to. If whole, it
	// holds all of it; otherwise held is what it has, by name and version.
	sent  *Snapshot
	whole bool
	held  map[string]string
	// owed is set until the first answer, which is due even when empty.
	owed bool

	nonce    string // of the newest response
	acked    bool   // that response was accepted
	sentGen  uint64
	givenGen uint64 // the newest of which a response told something
	ackedGen uint64
	nacks    int
	lastNack string
	nackGen  uint64 // the newest generation sent when it was
	lastPush time.Time
}

// request takes one message of the client.
func (c *session) request(r *discovery.DeltaDiscoveryRequest) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	typ := r.GetTypeUrl()
	sub := c.subs[typ]
	if sub == nil {
		if len(c.subs) == maxTypes {
			return status.Error(codes.ResourceExhausted, "too many resource types on one stream")
		}
		c.subs[typ] = subscribe(r)
		c.order = append(c.order, typ)
		return c.few(c.subs[typ])
	}
	if r.GetResponseNonce() != "" {
		c.answered(sub, r)
	}
	sub.change(r.GetResourceNamesSubscribe(), r.GetResourceNamesUnsubscribe())
	return c.few(sub)
}

// few bounds what a client makes its session remember, one message after the
// other.
func (c *session) few(sub *subscription) error {
	if most := c.srv.cfg.MaxNames; len(sub.keys) > most || len(sub.held) > most && !sub.whole {
		return status.Errorf(codes.ResourceExhausted, "more than %d names of %s", most, sub.typ)
	}
	return nil
}

// subscribe reads a type's first request. Neither subscribing nor
// unsubscribing means everything; doing both with "*" means nothing yet.
func subscribe(r *discovery.DeltaDiscoveryRequest) *subscription {
	sub := &subscription{typ: r.GetTypeUrl(), keys: map[string]bool{}, fresh: map[string]bool{}, owed: true, acked: true}
	if sub.held = r.GetInitialResourceVersions(); sub.held == nil { // of a request that nobody else looks at
		sub.held = map[string]string{}
	}
	names, gone := r.GetResourceNamesSubscribe(), r.GetResourceNamesUnsubscribe()
	sub.wildcard = len(names) == 0 && len(gone) == 0
	sub.change(names, gone)
	if !sub.wildcard {
		// What it held from an earlier stream it still wants.
		for name := range sub.held {
			sub.keys[name] = true
		}
		sub.change(nil, gone)
	}
	return sub
}

// change applies subscribed and unsubscribed keys, in that order.
func (sub *subscription) change(names, gone []string) {
	sub.dirty = sub.dirty || len(names)+len(gone) > 0
	for _, name := range names {
		if name == "*" {
			sub.wildcard = true
			continue
		}
		sub.keys[name], sub.fresh[name] = true, true
	}
	for _, name := range gone {
		if name == "*" {
			sub.leaveWildcard()
			continue
		}
		delete(sub.keys, name)
		delete(sub.fresh, name)
	}
}

// leaveWildcard goes back to single keys, remembering what the client has.
func (sub *subscription) leaveWildcard() {
	sub.wildcard = false
	if !sub.whole {
		return
	}
	for name, r := range sub.sent.Types[sub.typ] {
		sub.held[name] = r.Version
	}
	sub.whole = false
}

// answered notes an ack or nack. One of an older response says nothing of the
// newest, but a rejection is counted whenever it comes.
func (c *session) answered(sub *subscription, r *discovery.DeltaDiscoveryRequest) {
	if e := r.GetErrorDetail(); e != nil {
		sub.nacks++
		sub.lastNack, sub.nackGen = e.GetMessage(), sub.sentGen
		c.srv.cfg.Observer.Rejected(sub.typ)
		c.log.Warn("client rejected resources", "type", sub.typ, "nonce", r.GetResponseNonce(), "reason", e.GetMessage())
		return
	}
	if r.GetResponseNonce() == sub.nonce {
		sub.acked = true
		sub.ackedGen = sub.sentGen
	}
}

// current reports whether the snapshot has nothing for the client.
func (sub *subscription) current(snap *Snapshot) bool {
	return sub.sent == snap && !sub.dirty && !sub.owed
}

// delta is what the client lacks of the snapshot. The result may be shared.
func (c *session) delta(sub *subscription, snap *Snapshot) *Delta {
	late := c.srv.cfg.Late
	switch {
	case !sub.wildcard:
		want, missing := snap.resolve(sub.typ, c.peer.Node, sub.keys)
		return sub.answerKeys(diffVersions(sub.typ, sub.held, want, sub.again(snap), late), missing)
	case !sub.whole && len(sub.held)+len(sub.fresh) == 0:
		return c.srv.differ.delta(sub.typ, nil, snap.Types[sub.typ])
	case !sub.whole:
		return diffVersions(sub.typ, sub.held, snap.Types[sub.typ], sub.again(snap), late)
	case len(sub.fresh) > 0:
		held := versions(sub.sent.Types[sub.typ])
		return diffVersions(sub.typ, held, snap.Types[sub.typ], sub.again(snap), late)
	}
	return c.srv.differ.delta(sub.typ, sub.sent.Types[sub.typ], snap.Types[sub.typ])
}

// again names what a client asked for anew, which is sent even if it has it.
func (sub *subscription) again(snap *Snapshot) map[string]bool {
	if len(sub.fresh) == 0 {
		return nil // most ask for nothing, and the snapshot need not be indexed
	}
	fresh, _ := snap.resolve(sub.typ, "", sub.fresh)
	names := make(map[string]bool, len(fresh))
	for name := range fresh {
		names[name] = true
	}
	return names
}

// answerKeys adds the answer to new keys that name nothing: they are removed.
// They stay subscribed, so the client hears of them when they come to exist.
func (sub *subscription) answerKeys(d *Delta, missing []string) *Delta {
	for _, key := range missing {
		if _, had := sub.held[key]; sub.fresh[key] && !had {
			d.Removed = append(d.Removed, key)
		}
	}
	return d
}

func versions(rs Resources) map[string]string {
	out := make(map[string]string, len(rs))
	for name, r := range rs {
		out[name] = r.Version
	}
	return out
}

// holds records that the client was given all of the snapshot.
func (sub *subscription) holds(snap *Snapshot, d *Delta) {
	sub.owed, sub.dirty, sub.sent = false, false, snap
	clear(sub.fresh)
	if sub.wildcard {
		sub.whole, sub.held = true, map[string]string{}
	} else {
		for _, rs := range [][]*Resource{d.Upserts, d.late} {
			for _, r := range rs {
				sub.held[r.Name] = r.Version
			}
		}
		for _, name := range d.Removed {
			delete(sub.held, name)
		}
	}
	sub.sentGen = snap.Generation
	if sub.acked {
		sub.ackedGen = snap.Generation // nothing was sent that it has not accepted
	}
}
