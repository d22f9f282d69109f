package certs

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ambit-mesh/ambit/internal/hbone"
	"github.com/ambit-mesh/ambit/internal/spiffe"
)

// CA signs requests for certificates.
type CA interface {
	// Sign returns PEM: the leaf, intermediates, and last the roots.
	Sign(ctx context.Context, id spiffe.ID, csrPEM []byte, ttl time.Duration) (chainPEM []string, err error)
}

// Config is what a Manager needs.
type Config struct {
	// CA is required.
	CA CA
	// TTL is the lifetime asked for. Zero: 24 h.
	TTL time.Duration
	// Workers is how many requests run at once. Zero: 8.
	Workers int
	// Timeout bounds one request to the CA. Zero: 20 s.
	Timeout time.Duration
	// Changed is told of each new certificate, e.g. to retire tunnels made with
	// the old one. It must not wait. Nil: nobody is told.
	Changed func(spiffe.ID)
	// Trusted is told when something else is trusted than before: roots, or lists
	// of revoked certificates. It must not wait. Nil: nobody is told.
	Trusted func()
	// Kept are certificates of an earlier process. One is used from when its
	// identity is first asked for until it is renewed, which is tried at once.
	Kept []*Certificate
	// Told is what an earlier process had been told of roots, nil for nothing. It
	// counts until somebody tells anew.
	Told *Trust
	// RevocationsFile has lists of revoked certificates, PEM or DER; it is read
	// whenever it changes, and may be missing. Empty: none is read.
	RevocationsFile string
	// Logger receives what happens to certificates. Nil: nothing is logged.
	Logger *slog.Logger
}

// Manager keeps one certificate for each identity. It implements
// hbone.Credentials. Run does its work; before, requests wait. If the CA is a
// Guide, it follows what that says of roots and revoked certificates.
type Manager struct {
	cfg    Config
	log    *slog.Logger
	wake   chan struct{}
	guard  *guard
	proofs proofs

	trust   atomic.Pointer[told] // nil: certificates bring their roots
	guided  atomic.Bool          // somebody tells of roots just now
	changed chan struct{}        // the standing, for who tells
	times   uint64               // beGuided's: how often something was told

	mu      sync.Mutex
	entries map[spiffe.ID]*entry
	kept    map[spiffe.ID]*Certificate // of Config.Kept, not asked for yet
}

var _ hbone.Credentials = (*Manager)(nil)

// entry is one identity, under Manager.mu.
type entry struct {
	id       spiffe.ID
	cert     *Certificate // nil until the first
	err      error        // of the last request, if it went wrong
	fetching bool
	due      time.Time // of the next request
	failures int
	waiters  int
	kept     bool          // warmed, or asked for since
	changed  chan struct{} // closed at the end of each request
}

// NewManager makes a manager; Run runs it.
func NewManager(cfg Config) *Manager {
	cfg.TTL = cmp.Or(cfg.TTL, 24*time.Hour)
	cfg.Workers = cmp.Or(cfg.Workers, 8)
	cfg.Timeout = cmp.Or(cfg.Timeout, 20*time.Second)
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	m := &Manager{
		cfg:     cfg,
		log:     cfg.Logger.With("component", "certs"),
		wake:    make(chan struct{}, 1),
		guard:   newGuard(cfg.Logger.With("component", "certs")),
		changed: make(chan struct{}, 1),
		entries: map[spiffe.ID]*entry{},
		kept:    map[spiffe.ID]*Certificate{},
	}
	for _, c := range cfg.Kept {
		m.kept[c.ID] = c
	}
	if cfg.Told != nil {
		m.take(*cfg.Told)
	}
	return m
}

// Warm asks for a certificate before it is needed. It does not wait.
func (m *Manager) Warm(id spiffe.ID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.entryLocked(id)
}

// Forget drops an identity that no local workload has any more. Who waits for
// it keeps waiting until its context ends.
func (m *Manager) Forget(id spiffe.ID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if e := m.entries[id]; e != nil && e.waiters == 0 {
		delete(m.entries, id)
	} else if e != nil {
		e.kept = false
	}
	m.report()
}

func (m *Manager) entryLocked(id spiffe.ID) *entry {
	e := m.entries[id]
	if e == nil {
		e = &entry{id: id, due: time.Now(), changed: make(chan struct{})}
		m.entries[id] = e
		m.adoptLocked(e)
		m.signal()
	}
	e.kept = true
	return e
}

func (m *Manager) signal() {
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

// Client implements hbone.Credentials.
func (m *Manager) Client(ctx context.Context, self spiffe.ID, accept []spiffe.ID) (*tls.Config, error) {
	c, err := m.Certificate(ctx, self)
	if err != nil {
		return nil, err
	}
	return m.holder(c).client(accept), nil
}

// Server implements hbone.Credentials.
func (m *Manager) Server(ctx context.Context, self spiffe.ID, aliases ...string) (*tls.Config, error) {
	c, err := m.Certificate(ctx, self)
	if err != nil {
		return nil, err
	}
	return m.holder(c).server(aliases...), nil
}

func (m *Manager) holder(c *Certificate) holder {
	return holder{Certificate: c, trusted: func() roots { return m.roots(c) }, guard: m.guard, proofs: &m.proofs}
}

// Watch implements hbone.Credentials.
func (m *Manager) Watch(self spiffe.ID, peer hbone.Peer, ended <-chan struct{}, end func(error)) {
	w := &watched{peer: peer, ended: ended, end: end}
	m.mu.Lock()
	if e := m.entries[self]; e != nil && e.cert != nil {
		w.roots = m.roots(e.cert)
	}
	m.mu.Unlock()
	m.guard.add(w)
}

// Certificate gives the identity's certificate, waiting for the first one. It
// fails when ctx ends, or earlier if no request will be made before.
func (m *Manager) Certificate(ctx context.Context, id spiffe.ID) (*Certificate, error) {
	if id.IsZero() {
		return nil, errors.New("certificate of no identity")
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	e := m.entryLocked(id)
	e.waiters++
	defer func() {
		if e.waiters--; e.waiters == 0 && !e.kept {
			delete(m.entries, id)
		}
	}()
	for {
		if e.cert != nil && e.cert.Valid(time.Now()) {
			return e.cert, nil
		}
		m.overdueLocked(e)
		if deadline, ok := ctx.Deadline(); e.err != nil && !e.fetching && (!ok || e.due.After(deadline)) {
			return nil, fmt.Errorf("certificate of %s: %w", id, e.err)
		}
		if err := m.waitLocked(ctx, e); err != nil {
			return nil, fmt.Errorf("certificate of %s: %w", id, errors.Join(err, e.err))
		}
	}
}

// overdueLocked requests a certificate at once that has ended before its renewal
// was due: the clock was set forward.
func (m *Manager) overdueLocked(e *entry) {
	if now := time.Now(); e.cert != nil && e.failures == 0 && !e.fetching && e.due.After(now) {
		e.due = now
		m.signal()
	}
}

// waitLocked waits for the end of a request, without mu.
func (m *Manager) waitLocked(ctx context.Context, e *entry) error {
	changed := e.changed
	m.mu.Unlock()
	defer m.mu.Lock()
	select {
	case <-changed:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Run requests and renews certificates until ctx ends.
func (m *Manager) Run(ctx context.Context) error {
	var work sync.WaitGroup
	defer work.Wait()
	if g, ok := m.cfg.CA.(Guide); ok {
		work.Go(func() { m.beGuided(ctx, g) })
	}
	if m.cfg.RevocationsFile != "" {
		work.Go(func() { m.guard.follow(ctx, m.cfg.RevocationsFile, func() { m.replace(m.trust.Load()) }) })
	}
	slots := make(chan struct{}, m.cfg.Workers)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case slots <- struct{}{}: // before the choice, so that it is made late
		case <-ctx.Done():
			return nil
		}
		e, wait := m.next(time.Now())
		if e != nil {
			work.Go(func() {
				defer func() { <-slots }()
				m.fetch(ctx, e)
			})
			continue
		}
		<-slots
		timer.Reset(wait)
		select {
		case <-m.wake:
		case <-timer.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// next chooses whose request is made: a handshake waits for it, before it is
// wanted soon, before it only renews. Without one it says how long to wait.
func (m *Manager) next(now time.Time) (*entry, time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var best *entry
	wait := time.Hour
	for _, e := range m.entries {
		if e.fetching {
			continue
		}
		if d := e.due.Sub(now); d > 0 {
			wait = min(wait, d)
			continue
		}
		if best == nil || cmp.Or(cmp.Compare(e.priority(now), best.priority(now)), e.due.Compare(best.due)) < 0 {
			best = e
		}
	}
	if best != nil {
		best.fetching = true
	}
	return best, wait
}

func (e *entry) priority(now time.Time) int {
	has := e.cert != nil && e.cert.Valid(now)
	switch {
	case !has && e.waiters > 0:
		return 0
	case !has:
		return 1
	}
	return 2
}

// fetch makes one request and plans the next.
func (m *Manager) fetch(ctx context.Context, e *entry) {
	c, err := m.sign(ctx, e.id)
	now := time.Now()
	m.mu.Lock()
	defer m.signal()
	defer m.mu.Unlock()
	if err == nil {
		err = m.admitLocked(c)
	}
	e.fetching = false
	e.err = err
	if err != nil {
		e.failures++
		e.due = now.Add(retry(e.failures, e.cert, now))
		if ctx.Err() == nil {
			m.log.Warn("certificate not obtained", "identity", e.id.String(), "err", err, "retry_in", e.due.Sub(now).Round(time.Millisecond))
		}
	} else {
		e.failures, e.cert = 0, c
		e.due = renewal(c.Leaf(), now)
		m.log.Info("certificate obtained", "identity", e.id.String(), "serial", c.Leaf().SerialNumber.Text(16), "until", c.Leaf().NotAfter)
		if m.cfg.Changed != nil {
			m.cfg.Changed(e.id)
		}
	}
	close(e.changed)
	e.changed = make(chan struct{})
	m.report()
}

// admitLocked refuses a new certificate below a root that is being replaced: who
// has said once that it has none left must never have one again. While nobody
// tells of roots, it brings its own.
func (m *Manager) admitLocked(c *Certificate) error {
	t := m.trust.Load()
	switch {
	case t == nil:
	case !m.guided.Load():
		c.untold = t.times
	case !t.fits(c):
		return fmt.Errorf("reading the CA's answer: its root %s is being replaced", short([]string{c.root()}))
	}
	return nil
}

func (m *Manager) sign(ctx context.Context, id spiffe.ID) (*Certificate, error) {
	ctx, cancel := context.WithTimeout(ctx, m.cfg.Timeout)
	defer cancel()
	key, csr, err := request(id)
	if err != nil {
		return nil, err
	}
	chain, err := m.cfg.CA.Sign(ctx, id, csr, m.cfg.TTL)
	if err != nil {
		return nil, fmt.Errorf("asking the CA: %w", err)
	}
	c, err := newCertificate(id, key, chain, time.Now())
	if err != nil {
		return nil, fmt.Errorf("reading the CA's answer: %w", err)
	}
	return c, nil
}

// backoff is 1 s doubled with each failure up to 150 s, a fifth of it random.
func backoff(failures int) time.Duration {
	d := min(time.Second<<min(failures-1, 8), 150*time.Second)
	return jitter(d, 0.2)
}

// maxWithout is the longest pause while an identity has no certificate: nobody
// can be served, and a CA that is back must not be waited for.
const maxWithout = 15 * time.Second

// retry is the pause before the next request: while a certificate is there, at
// most a quarter of what is left of it, so that short ones are tried for often
// enough before they end.
func retry(failures int, c *Certificate, now time.Time) time.Duration {
	d := backoff(failures)
	if c == nil || !c.Valid(now) {
		return min(d, maxWithout)
	}
	return min(d, max(c.Leaf().NotAfter.Sub(now)/4, time.Second))
}

// jitter takes up to a share off d.
func jitter(d time.Duration, share float64) time.Duration {
	return d - time.Duration(rand.Float64()*share*float64(d))
}

// renewal is half life, and a tenth of the time until then earlier by chance, so
// that certificates made together are not renewed together. Where half life is
// past already, because the CA back-dates short ones, it is half of what is left.
func renewal(leaf *x509.Certificate, now time.Time) time.Time {
	half := leaf.NotBefore.Add(leaf.NotAfter.Sub(leaf.NotBefore) / 2)
	left := leaf.NotAfter.Sub(now)
	wait := half.Sub(now)
	if wait < left/4 {
		wait = left / 2
	}
	return now.Add(max(jitter(wait, 0.1), time.Second))
}

// State is how far an identity's certificate is.
type State string

// The states of a certificate.
const (
	StateInitializing State = "Initializing" // none yet
	StateAvailable    State = "Available"
	StateUnavailable  State = "Unavailable" // none, and the last request failed
	StateExpired      State = "Expired"
)

// Status describes one identity for an administrator.
type Status struct {
	ID    spiffe.ID
	State State
	// Err is of the last request, if it went wrong.
	Err error
	// Certificate is nil before the first.
	Certificate *Certificate
	// Next is when the next request is due.
	Next time.Time
}

// List gives all identities in order.
func (m *Manager) List() []Status {
	m.mu.Lock()
	defer m.mu.Unlock()
	list := make([]Status, 0, len(m.entries))
	for _, e := range m.entries {
		list = append(list, Status{ID: e.id, State: e.state(time.Now()), Err: e.err, Certificate: e.cert, Next: e.due})
	}
	slices.SortFunc(list, func(a, b Status) int { return cmp.Compare(a.ID.String(), b.ID.String()) })
	return list
}

func (e *entry) state(now time.Time) State {
	switch {
	case e.cert != nil && e.cert.Valid(now):
		return StateAvailable
	case e.cert != nil:
		return StateExpired
	case e.err != nil:
		return StateUnavailable
	}
	return StateInitializing
}
