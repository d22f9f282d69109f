package ca

import (
	"bytes"
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"reflect"
	"sync"
	"time"

	"github.com/ambit-mesh/ambit/istiod-lite/rotation"
)

// ConductorConfig configures a Conductor. All but the last two must be set.
type ConductorConfig struct {
	Board     Board
	Authority *Authority
	Guides    *Guides
	// Replica is this replica's own member of Members.
	Replica string
	// Members are the proxies and replicas that run, or are about to.
	Members func() []rotation.Member
	// Changed is told when other roots are trusted or something else signs.
	Changed func()
	// Progress is told of the state and of how many are waited for, at each look;
	// may be nil.
	Progress func(s rotation.State, waiting int)
	// Logger is slog.Default() if nil.
	Logger *slog.Logger
}

// Conductor brings a mesh from one authority to another. Every replica works by
// the course that is on the board, tells its proxies of it and notes what they
// say; the one that leads writes the course on. A replica that ends at any
// moment leaves nothing undone that another would not find on the board.
type Conductor struct {
	cfg  ConductorConfig
	log  *slog.Logger
	wake chan struct{}

	mu      sync.Mutex
	leading bool

	// Run's goroutine only.
	at                 *Course // that this replica works by
	told               toldBy
	words              map[string]rotation.Word // in at's epoch
	noted              *rotation.Record
	calm               time.Time // since when nobody is waited for
	complained, warned string
	warnedAt           time.Time
}

// toldBy is of what the proxies were told.
type toldBy struct {
	epoch       uint64
	revocations int
	first       string
}

// NewConductor makes a conductor; Run runs it.
func NewConductor(cfg ConductorConfig) *Conductor {
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	return &Conductor{cfg: cfg, log: cfg.Logger, wake: make(chan struct{}, 1), words: map[string]rotation.Word{}}
}

const (
	// lookAgain is how often it is looked although nothing was heard: time alone
	// confirms what is silent.
	lookAgain = 2 * time.Second
	// breath is left between two looks, so that many words are one note.
	breath = 100 * time.Millisecond
	// settle is how long a handshake may go on that presents a certificate from
	// before its replacement: nobody forgets its root earlier.
	settle = 20 * time.Second
	// renewShare is the share of its life that a root of our own has left when it
	// is replaced; others are warned about then.
	renewShare = 0.2
	warnEvery  = 24 * time.Hour
)

// Lead makes this replica the one that writes, until ctx ends.
func (c *Conductor) Lead(ctx context.Context) error {
	set := func(leading bool) {
		c.mu.Lock()
		c.leading = leading
		c.mu.Unlock()
		select {
		case c.wake <- struct{}{}:
		default:
		}
	}
	set(true)
	defer set(false)
	<-ctx.Done()
	return nil
}

// Run works until ctx ends.
func (c *Conductor) Run(ctx context.Context) error {
	tick := time.NewTicker(lookAgain)
	defer tick.Stop()
	for {
		c.complain(c.look(ctx))
		select {
		case <-c.cfg.Board.Changed():
		case <-c.cfg.Guides.Heard():
		case <-c.wake:
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
		select {
		case <-time.After(breath):
		case <-ctx.Done():
			return nil
		}
	}
}

// complain says each trouble once.
func (c *Conductor) complain(err error) {
	switch {
	case err == nil || errors.Is(err, ErrOvertaken) || errors.Is(err, context.Canceled):
		c.complained = ""
	case err.Error() != c.complained:
		c.complained = err.Error()
		c.log.Warn("the certificate authority's state is not kept up", "reason", err)
	}
}

// look does what is to be done now.
func (c *Conductor) look(ctx context.Context) error {
	r := c.cfg.Board.Read()
	if r.Course == nil {
		return nil
	}
	if err := c.follow(r); err != nil {
		return err
	}
	if err := c.note(ctx); err != nil {
		return err
	}
	if c.cfg.Progress != nil {
		c.cfg.Progress(c.at.State, len(c.at.State.Unconfirmed(c.cfg.Members(), r.Records, time.Now())))
	}
	c.mu.Lock()
	leading := c.leading
	c.mu.Unlock()
	if !leading {
		return nil
	}
	return c.lead(ctx, r)
}

// follow works by the board's course.
func (c *Conductor) follow(r Reading) error {
	now := toldBy{epoch: r.Course.State.Epoch, revocations: len(r.Revocations)}
	for _, der := range r.Revocations {
		now.first += string(der)
	}
	if c.at != nil && now == c.told {
		c.at = r.Course
		return nil
	}
	if c.at != nil && r.Course.State.Epoch < c.at.State.Epoch {
		return fmt.Errorf("the state on the board is older than ours: epoch %d after %d", r.Course.State.Epoch, c.at.State.Epoch)
	}
	if err := c.cfg.Authority.Use(r.Course.Material); err != nil {
		return err
	}
	if c.at == nil || c.at.State.Epoch != r.Course.State.Epoch {
		clear(c.words)
		c.log.Info("certificate authority", "phase", string(r.Course.State.Phase), "epoch", r.Course.State.Epoch,
			"signs", r.Course.State.Signer, "trusted", len(r.Course.State.Trusted), "expires", r.Course.Material.Cert.NotAfter)
	}
	c.at, c.told = r.Course, now
	c.cfg.Guides.Tell(r.Course.trust(r.Revocations, len(c.cfg.Members())))
	c.cfg.Changed()
	return nil
}

// note writes down what proxies have said, while it is asked for.
func (c *Conductor) note(ctx context.Context) error {
	s := c.at.State
	if s.Phase == rotation.Steady {
		return nil
	}
	record := rotation.Record{Replica: c.cfg.Replica, Epoch: s.Epoch, Proxies: c.hear(s)}
	if c.noted != nil && reflect.DeepEqual(*c.noted, record) {
		return nil
	}
	if err := c.cfg.Board.Note(ctx, record); err != nil {
		return fmt.Errorf("noting what proxies say: %w", err)
	}
	c.noted = &record
	return nil
}

// hear gives the words of this epoch: who has confirmed has, wherever it is now.
func (c *Conductor) hear(s rotation.State) map[string]rotation.Word {
	maps.DeleteFunc(c.words, func(_ string, w rotation.Word) bool { return w.Lacks != "" })
	for id, p := range c.cfg.Guides.Standings() {
		if old, heard := c.words[id]; heard && old.Lacks == "" {
			continue
		}
		w := rotation.Word{Name: p.Name, Lacks: "has said nothing yet"}
		if p.Standing != nil {
			w.Lacks = s.Missing(said(p.Standing))
		}
		c.words[id] = w
	}
	return maps.Clone(c.words)
}

// lead writes the course on if it is time.
func (c *Conductor) lead(ctx context.Context, r Reading) error {
	if done, err := c.renew(ctx, r); done || err != nil {
		return err
	}
	if r.Target == nil {
		return nil
	}
	now, s := time.Now(), r.Course.State
	waiting := c.waiting(r, now)
	if len(waiting) > 0 && r.Forced == s.Epoch {
		c.log.Warn("going on although somebody has not confirmed", "phase", string(s.Phase), "epoch", s.Epoch, "waiting", len(waiting), "first", waiting[0].Name)
		waiting = nil
	}
	next, moved, err := r.Course.next(r.Target, waiting, now)
	if err != nil || !moved {
		return err
	}
	if err := c.cfg.Board.Write(ctx, r, next); err != nil {
		return fmt.Errorf("writing the state of the rotation: %w", err)
	}
	return nil
}

// waiting are those who hold the phase back. The last step of those that replace
// certificates also waits for the handshakes that began before.
func (c *Conductor) waiting(r Reading, now time.Time) []rotation.Waiting {
	s := r.Course.State
	waiting := s.Unconfirmed(c.cfg.Members(), r.Records, now)
	if s.Phase != rotation.Reissue || len(waiting) > 0 {
		c.calm = time.Time{}
		return waiting
	}
	if c.calm.IsZero() {
		c.calm = now
	}
	if now.Sub(c.calm) < settle {
		return []rotation.Waiting{{Lacks: "handshakes that began with an old certificate"}}
	}
	return nil
}

// renew replaces a root of our own when somebody asks for it or it is time, and
// warns where that is somebody else's matter.
func (c *Conductor) renew(ctx context.Context, r Reading) (bool, error) {
	if r.Course.State.Phase != rotation.Steady || r.Target != nil && !r.Target.Cert.Equal(r.Course.Material.Cert) {
		return false, nil // it is being replaced
	}
	end := r.Course.Material.ends()
	due := time.Until(end.at) < time.Duration(renewShare*float64(end.life))
	if r.Plugged {
		if due && time.Since(c.warnedAt) > warnEvery {
			c.warnedAt = time.Now()
			c.log.Warn("the plugged-in certificate authority ends soon; replace Secret cacerts", "at", end.at)
		}
		return false, nil
	}
	if !r.Asked && (!due || r.Target == nil) {
		return false, nil
	}
	c.log.Info("replacing the mesh's root", "asked", r.Asked, "ends", end.at)
	if err := c.cfg.Board.Renew(ctx, r); err != nil {
		return true, fmt.Errorf("making a new root: %w", err)
	}
	return true, nil
}

// end is the end of what ends first, and how long that has been good.
type end struct {
	at   time.Time
	life time.Duration
}

// ends is when the material ends.
func (m *Material) ends() end {
	e := end{m.Cert.NotAfter, m.Cert.NotAfter.Sub(m.Cert.NotBefore)}
	if root, err := m.root(time.Now()); err == nil && root.NotAfter.Before(e.at) {
		e = end{root.NotAfter, root.NotAfter.Sub(root.NotBefore)}
	}
	return e
}

// Revocations are the lists of revoked certificates, PEM.
func (c *Conductor) Revocations() []byte {
	var b bytes.Buffer
	for _, der := range c.cfg.Board.Read().Revocations {
		// Encode fails only if the writer does.
		_ = pem.Encode(&b, &pem.Block{Type: "X509 CRL", Bytes: der})
	}
	return b.Bytes()
}

// Lengthen notes a lifetime before a certificate is issued for so long: it is
// how long a proxy may keep one that nobody hears of.
func (c *Conductor) Lengthen(ctx context.Context, ttl time.Duration) error {
	for range 10 {
		r := c.cfg.Board.Read()
		if r.Course == nil {
			return errors.New("the state of the rotation is not known yet")
		}
		if ttl <= r.Course.State.Longest {
			return nil
		}
		next := *r.Course
		next.State.Longest = ttl
		if err := c.cfg.Board.Write(ctx, r, &next); err != nil && !errors.Is(err, ErrOvertaken) {
			return fmt.Errorf("noting a lifetime of %v: %w", ttl, err)
		}
		select {
		case <-time.After(breath):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return fmt.Errorf("noting a lifetime of %v: %w", ttl, ErrOvertaken)
}
