// Package rotation is the rule by which the mesh goes from one certificate
// authority to another without a handshake that fails: first everybody trusts
// both roots, then the new one signs, then every certificate is replaced, then
// the old root is forgotten. Each step waits until all who are concerned have
// said that the one before is done; whoever is silent holds it back until its
// certificates must have ended.
//
// It owns the phases and what confirms them. It refuses to know keys, which are
// istiod-lite/ca's, and where the state is kept, which is istiod-lite/kube's.
// Pure.
package rotation

import (
	"slices"
	"time"
)

// Root is the fingerprint of a root certificate.
type Root string

// Phase is a step on the way.
type Phase string

// The phases, in their order.
const (
	// Steady: one authority signs, its roots are trusted.
	Steady Phase = "steady"
	// Spread: the new roots are trusted beside the old ones; the old one signs.
	Spread Phase = "spread"
	// Switch: the new one signs, in every replica.
	Switch Phase = "switch"
	// Reissue: every certificate is replaced by one of the new root.
	Reissue Phase = "reissue"
	// Forget: only the new roots are trusted.
	Forget Phase = "forget"
)

// Target is an authority: what signs, the root it leads to, and the roots that
// are to be trusted with it.
type Target struct {
	Signer string `json:"signer"`
	Root   Root   `json:"root"`
	Roots  []Root `json:"roots"`
}

// Equal compares; the order of roots says nothing.
func (t Target) Equal(o Target) bool {
	return t.Signer == o.Signer && t.Root == o.Root && same(t.Roots, o.Roots)
}

// State is how far a mesh is. It is immutable.
type State struct {
	// Epoch grows with every change, also from one life of a mesh to the next.
	Epoch uint64    `json:"epoch"`
	Phase Phase     `json:"phase"`
	Since time.Time `json:"since"`
	// Taken is when every replica worked by this epoch; zero while one does not.
	Taken time.Time `json:"taken,omitzero"`
	// Trusted are the roots that proxies are told to trust.
	Trusted []Root `json:"trusted"`
	// Signer is the certificate that signs now.
	Signer string `json:"signer"`
	// Active is the root that every certificate must lead to.
	Active Root `json:"active"`
	// Target is where it leads, or where it is.
	Target Target `json:"target"`
	// Longest is how long any certificate was ever issued for.
	Longest time.Duration `json:"longest"`
}

// Begin is the state of a mesh that has had no other authority.
func Begin(t Target, longest time.Duration, now time.Time) State {
	return State{
		Epoch: epoch(0, now), Phase: Steady, Since: now, Trusted: sorted(t.Roots), Signer: t.Signer, Active: t.Root,
		Target: t, Longest: longest,
	}
}

// epoch is higher than the last one, and than those of a state that was lost.
func epoch(last uint64, now time.Time) uint64 {
	return max(last+1, uint64(max(now.Unix(), 0)))
}

// Next is the state after s if t is wanted and others are still waited for, and
// whether it is another one. Whoever keeps the state must write it before
// anybody acts by it.
func (s State) Next(t Target, waiting []Waiting, now time.Time) (State, bool) {
	n := s
	switch {
	case !t.Equal(s.Target):
		return s.turn(t, now), true
	case s.Phase == Steady:
		return s, false
	case len(waiting) > 0:
		if s.Taken.IsZero() && !slices.ContainsFunc(waiting, func(w Waiting) bool { return w.Kind == KindReplica }) {
			n.Taken = now
			return n, true
		}
		return s, false
	}
	switch s.Phase {
	case Steady:
	case Spread:
		n.Phase, n.Signer = Switch, t.Signer
	case Switch:
		n.Phase, n.Active = Reissue, t.Root
	case Reissue:
		n.Phase, n.Trusted = Forget, sorted(t.Roots)
	case Forget:
		n.Phase = Steady
	}
	return n.begin(now), true
}

// begin begins a phase.
func (s State) begin(now time.Time) State {
	s.Epoch, s.Since, s.Taken = epoch(s.Epoch, now), now, time.Time{}
	return s
}

// turn heads for another authority, from wherever s is. Nothing that may be in
// use is forgotten: every root that is trusted stays so until the end. Where all
// trust the new roots already, that step is not made again.
func (s State) turn(t Target, now time.Time) State {
	n := s
	n.Target, n.Trusted = t, union(s.Trusted, t.Roots)
	if s.Phase != Spread && same(n.Trusted, s.Trusted) {
		n.Phase, n.Signer = Switch, t.Signer
	} else {
		n.Phase = Spread
	}
	return n.begin(now)
}

func sorted(list []Root) []Root { return slices.Compact(slices.Sorted(slices.Values(list))) }

func union(a, b []Root) []Root { return sorted(slices.Concat(a, b)) }

func same(a, b []Root) bool { return slices.Equal(sorted(a), sorted(b)) }

// contains reports whether every one of some is among all.
func contains(all, some []Root) bool {
	return !slices.ContainsFunc(some, func(r Root) bool { return !slices.Contains(all, r) })
}
