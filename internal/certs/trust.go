package certs

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"
)

// Trust is what the control plane says of the mesh's roots. It outweighs the
// roots that come with certificates: those are as old as the certificate.
type Trust struct {
	// Epoch grows with every change.
	Epoch uint64
	// Roots are whom peers must chain to.
	Roots []*x509.Certificate
	// Active is the fingerprint of the root that our certificates must lead to;
	// those that do not are replaced. Empty: any will do.
	Active string
	// Revocations are lists of revoked certificates, DER.
	Revocations [][]byte
	// Spread is the time in which all of a proxy's certificates are replaced.
	Spread time.Duration
}

// Standing is what a proxy trusts and presents in every handshake from now on.
type Standing struct {
	// Epoch is that of the trust in use.
	Epoch uint64
	// Trusts are the fingerprints of the roots.
	Trusts []string
	// Holds are the certificates that may be presented, by root.
	Holds []Held
	// File are the roots by which the control plane itself is verified, where they
	// come from a file; nil elsewhere.
	File []string
}

// Held counts the certificates below one root.
type Held struct {
	Root  string
	Count int
	// Until is when the last of them ends.
	Until time.Time
}

// Guide is what a CA also is if it tells proxies of its roots while they hold
// its certificates.
type Guide interface {
	// Guide gives each new trust to take, and hears standing: at once, whenever
	// changed is sent to, and when it changes by itself. It returns when ctx or the
	// connection ends; ErrUnguided says that the CA knows nothing of the kind.
	Guide(ctx context.Context, standing func() Standing, changed <-chan struct{}, take func(Trust)) error
}

// ErrUnguided is a CA whose roots come with its certificates only.
var ErrUnguided = errors.New("this CA does not tell of its roots")

// Fingerprint names a root.
func Fingerprint(c *x509.Certificate) string {
	sum := sha256.Sum256(c.Raw)
	return hex.EncodeToString(sum[:])
}

// Fingerprints names roots, in order and each once.
func Fingerprints(list []*x509.Certificate) []string {
	out := make([]string, len(list))
	for i, c := range list {
		out[i] = Fingerprint(c)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// told is a trust in use.
type told struct {
	Trust
	active *x509.Certificate // nil: any
	// times counts what was told: certificates that came while nobody told
	// anything bring their own roots, until somebody does again.
	times uint64
}

// roots are whom the holder of c trusts now.
func (m *Manager) roots(c *Certificate) roots {
	t := m.trust.Load()
	if t == nil || c.untold == t.times {
		return c.Roots
	}
	return t.Roots
}

// take uses what the control plane says, and has certificates replaced that are
// below another root than they should be. Only beGuided calls it.
func (m *Manager) take(t Trust) {
	old := m.trust.Load()
	if old != nil && t.Epoch < old.Epoch {
		m.log.Warn("older roots not taken", "epoch", t.Epoch, "have", old.Epoch)
		return
	}
	m.times++
	next := &told{Trust: t, times: m.times}
	if err := next.check(); err != nil {
		m.log.Error("roots not taken, the last ones stay", "epoch", t.Epoch, "err", err)
		return
	}
	lists, err := newRevocations(t.Revocations)
	if err != nil {
		m.guard.bad(err)
	} else if old == nil || !slices.EqualFunc(t.Revocations, old.Revocations, slices.Equal) {
		m.guard.set(&m.guard.pushed, lists)
		m.log.Info("revoked certificates told by the control plane", "lists", len(lists), "certificates", lists.count())
	}
	m.trust.Store(next)
	m.proofs.forget()
	if m.cfg.Trusted != nil && (old == nil || !old.same(t)) {
		m.cfg.Trusted()
	}
	if old == nil || old.Epoch != t.Epoch {
		m.log.Info("roots told by the control plane", "epoch", t.Epoch, "roots", short(Fingerprints(t.Roots)), "active", short([]string{t.Active}))
	}
	m.replace(next)
	m.report()
}

// check finds the active root.
func (t *told) check() error {
	if len(t.Roots) == 0 {
		return errors.New("no root")
	}
	if t.Active == "" {
		return nil
	}
	for _, r := range t.Roots {
		if Fingerprint(r) == t.Active {
			t.active = r
			return nil
		}
	}
	return fmt.Errorf("the active root %s is not among those to trust", short([]string{t.Active}))
}

// same reports whether nothing has changed.
func (t *told) same(o Trust) bool {
	return t.Epoch == o.Epoch && t.Active == o.Active && slices.Equal(Fingerprints(t.Roots), Fingerprints(o.Roots)) &&
		slices.EqualFunc(t.Revocations, o.Revocations, slices.Equal)
}

// fits reports whether c leads to where certificates should.
func (t *told) fits(c *Certificate) bool {
	return t == nil || t.active == nil || c.under(t.active)
}

// replace requests certificates again that do not fit or have been revoked, not
// all at once.
func (m *Manager) replace(t *told) {
	var spread time.Duration
	if t != nil {
		spread = t.Spread
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	for _, e := range m.entries {
		if e.cert == nil || t.fits(e.cert) && !m.guard.names(e.cert) {
			continue
		}
		if at := now.Add(time.Duration(rand.Float64() * float64(spread))); at.Before(e.due) {
			e.due = at
		}
	}
	m.signal()
}

// standing is what we trust and present.
func (m *Manager) standing() Standing {
	t := m.trust.Load()
	s := Standing{}
	if t != nil {
		s.Epoch, s.Trusts = t.Epoch, Fingerprints(t.Roots)
	}
	held := map[string]*Held{}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, e := range m.entries {
		if e.cert == nil || !e.cert.Valid(time.Now()) {
			continue
		}
		root := e.cert.root()
		if t != nil && t.active != nil && e.cert.under(t.active) {
			root = t.Active
		}
		h := held[root]
		if h == nil {
			h = &Held{Root: root}
			held[root] = h
		}
		h.Count++
		if end := e.cert.Leaf().NotAfter; end.After(h.Until) {
			h.Until = end
		}
		// What a certificate brought itself counts as trusted only as far as it is.
		if t != nil && e.cert.untold == t.times {
			s.Trusts = slices.DeleteFunc(s.Trusts, func(r string) bool { return !slices.Contains(Fingerprints(e.cert.Roots), r) })
		}
	}
	for _, h := range held {
		s.Holds = append(s.Holds, *h)
	}
	slices.SortFunc(s.Holds, func(a, b Held) int { return strings.Compare(a.Root, b.Root) })
	return s
}

// report says that the standing may have changed.
func (m *Manager) report() {
	select {
	case m.changed <- struct{}{}:
	default:
	}
}

// The pauses between attempts to be guided.
const (
	guideAgain    = time.Second
	guideMax      = 15 * time.Second
	unguidedAgain = 5 * time.Minute
)

// beGuided keeps hearing of roots until ctx ends.
func (m *Manager) beGuided(ctx context.Context, g Guide) {
	pause := guideAgain
	for {
		err := g.Guide(ctx, m.standing, m.changed, func(t Trust) {
			pause = guideAgain
			m.guided.Store(true)
			m.take(t)
		})
		m.guided.Store(false)
		if ctx.Err() != nil {
			return
		}
		wait := jitter(pause, 0.2)
		if errors.Is(err, ErrUnguided) {
			m.trust.Store(nil) // what was revoked stays so
			wait = unguidedAgain
		} else {
			m.log.Debug("not told of roots", "err", err, "retry_in", wait)
			pause = min(2*pause, guideMax)
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return
		}
	}
}

// short is the beginning of fingerprints, for people.
func short(fingerprints []string) string {
	out := make([]string, len(fingerprints))
	for i, f := range fingerprints {
		out[i] = f[:min(len(f), 16)]
	}
	return strings.Join(out, " ")
}
