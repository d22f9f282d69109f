package ca

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ambit-mesh/ambit/internal/certs"
	"github.com/ambit-mesh/ambit/internal/spiffe"
	"github.com/ambit-mesh/ambit/istiod-lite/rotation"
)

var quiet = slog.New(slog.DiscardHandler)

// replica is one control plane of a test, without its sockets.
type replica struct {
	name      string
	authority *Authority
	guides    *Guides
	stop      func()
}

// proxy is one proxy of a test. It is a CA of its own manager: it asks whichever
// replica it is connected to.
type proxy struct {
	m     *fleet
	id    spiffe.ID
	uid   string
	certs *certs.Manager
	stop  func()

	mu   sync.Mutex
	to   *replica // nil: away
	cut  chan struct{}
	file *Material // its mounted roots; nil: has no file
}

// fleet is a whole mesh in one process, in synctest's time.
type fleet struct {
	t     *testing.T
	board *Memory

	mu       sync.Mutex
	lives    int
	replicas []*replica
	proxies  []*proxy
	leader   func()
}

func newFleet(t *testing.T, m *Material, replicas, proxies int) *fleet {
	f := &fleet{t: t, board: NewMemory(), leader: func() {}}
	f.board.Begin(must(NewCourse(m, nil, time.Now())))
	for range replicas {
		f.addReplica()
	}
	for range proxies {
		f.addProxy()
	}
	f.settle()
	return f
}

func (f *fleet) settle() { synctest.Wait() }

// pass lets time pass.
func (f *fleet) pass(d time.Duration) { time.Sleep(d); synctest.Wait() }

func (f *fleet) members() (out []rotation.Member) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, r := range f.replicas {
		out = append(out, rotation.Member{ID: r.name, Name: r.name, Kind: rotation.KindReplica})
	}
	for _, p := range f.proxies {
		out = append(out, rotation.Member{ID: p.uid, Name: p.uid, Kind: rotation.KindZtunnel})
	}
	return out
}

func (f *fleet) addReplica() *replica {
	f.mu.Lock()
	f.lives++
	r := &replica{name: fmt.Sprint("istiod-", f.lives), guides: NewGuides(), authority: must(NewAuthority(f.board.Read().Course.Material, AuthorityConfig{}))}
	f.replicas = append(f.replicas, r)
	first := len(f.replicas) == 1
	f.mu.Unlock()
	c := NewConductor(ConductorConfig{
		Board: seen(f.board), Authority: r.authority, Guides: r.guides, Replica: r.name, Members: f.members, Changed: func() {}, Logger: quiet,
	})
	ctx, cancel := context.WithCancel(context.Background())
	var run sync.WaitGroup
	run.Go(func() { c.Run(ctx) })
	if first {
		run.Go(func() { c.Lead(ctx) })
	}
	r.stop = sync.OnceFunc(func() { cancel(); r.guides.Close(); run.Wait() })
	return r
}

// seen is a board whose changes every reader hears of: each has its own ticks.
func seen(m *Memory) Board { return reader{m} }

type reader struct{ *Memory }

func (reader) Changed() <-chan struct{} { return nil } // the conductor looks every other second

// crash ends a replica and starts another in its place, which leads if it did.
func (f *fleet) crash(i int) {
	f.mu.Lock()
	old := f.replicas[i]
	f.replicas = slices.Delete(f.replicas, i, i+1)
	lead := i == 0
	f.mu.Unlock()
	old.stop()
	if lead {
		rest := f.replicas
		f.mu.Lock()
		f.replicas = nil
		f.mu.Unlock()
		fresh := f.addReplica()
		f.mu.Lock()
		f.replicas = append([]*replica{fresh}, rest...)
		f.mu.Unlock()
	} else {
		f.addReplica()
	}
	for _, p := range f.proxies {
		if p.at() == old {
			p.connect(f.replicas[rand.IntN(len(f.replicas))])
		}
	}
}

func (f *fleet) addProxy() *proxy {
	f.mu.Lock()
	f.lives++
	p := &proxy{m: f, uid: fmt.Sprint("proxy-", f.lives), id: spiffe.ID{TrustDomain: "cluster.local", Namespace: "shop", ServiceAccount: fmt.Sprint("a", f.lives)}, cut: make(chan struct{})}
	p.to = f.replicas[f.lives%len(f.replicas)]
	f.proxies = append(f.proxies, p)
	f.mu.Unlock()
	p.certs = certs.NewManager(certs.Config{CA: p})
	ctx, cancel := context.WithCancel(context.Background())
	var run sync.WaitGroup
	run.Go(func() { p.certs.Run(ctx) })
	p.stop = func() { cancel(); run.Wait() }
	p.certs.Warm(p.id)
	return p
}

func (p *proxy) at() *replica {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.to
}

// connect goes to another replica, or away with nil.
func (p *proxy) connect(to *replica) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.to = to
	close(p.cut)
	p.cut = make(chan struct{})
}

func (p *proxy) Sign(_ context.Context, id spiffe.ID, csr []byte, ttl time.Duration) ([]string, error) {
	to := p.at()
	if to == nil {
		return nil, errors.New("away")
	}
	return to.authority.Sign(csr, id, ttl)
}

func (p *proxy) Guide(ctx context.Context, standing func() certs.Standing, changed <-chan struct{}, take func(certs.Trust)) error {
	p.mu.Lock()
	to, cut := p.to, p.cut
	p.mu.Unlock()
	if to == nil {
		return errors.New("away")
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	words := make(chan certs.Standing, 1)
	var all sync.WaitGroup
	defer all.Wait()
	defer cancel()
	all.Go(func() {
		for {
			s := standing()
			p.mu.Lock()
			if p.file != nil {
				s.File = certs.Fingerprints(p.file.Roots)
			}
			p.mu.Unlock()
			select {
			case words <- s:
			case <-ctx.Done():
				return
			}
			select {
			case <-changed:
			case <-time.After(2 * time.Second):
			case <-cut:
				cancel()
			case <-ctx.Done():
				return
			}
		}
	})
	return to.guides.Follow(ctx, rotation.Member{ID: p.uid, Name: p.uid, Kind: rotation.KindZtunnel}, words, func(t certs.Trust) error { take(t); return nil })
}

func (f *fleet) stop() {
	for _, p := range f.proxies {
		p.stop()
	}
	for _, r := range f.replicas {
		r.stop()
	}
}

// meet lets every proxy meet every other, as a client and as a server. Only
// those count that have a certificate.
func (f *fleet) meet() error {
	for _, p := range f.proxies {
		mine := p.held()
		if mine == nil {
			continue
		}
		for _, q := range f.proxies {
			if q.held() == nil {
				continue
			}
			state := tls.ConnectionState{PeerCertificates: mine.Chain}
			client := must(q.certs.Client(f.t.Context(), q.id, []spiffe.ID{p.id}))
			server := must(q.certs.Server(f.t.Context(), q.id))
			if err := errors.Join(client.VerifyConnection(state), server.VerifyConnection(state)); err != nil {
				return fmt.Errorf("%s met by %s: %w", p.uid, q.uid, err)
			}
		}
	}
	return nil
}

// held is a proxy's certificate, nil if it has none that is good.
func (p *proxy) held() *certs.Certificate {
	for _, s := range p.certs.List() {
		if s.State == certs.StateAvailable {
			return s.Certificate
		}
	}
	return nil
}

func (f *fleet) phase() rotation.Phase { return f.board.Read().Course.State.Phase }

// want asks for another authority.
func (f *fleet) want(m *Material) { f.board.Change(func(r *Reading) { r.Target = m }) }

// steady waits, and lets all meet meanwhile.
func (f *fleet) steady(within time.Duration) {
	f.t.Helper()
	for end := time.Now().Add(within); f.phase() != rotation.Steady; f.pass(within / 150) {
		if err := f.meet(); err != nil {
			f.t.Fatalf("in phase %s: %v", f.phase(), err)
		}
		if time.Now().After(end) {
			f.t.Fatalf("it stays in phase %s, waiting for %v", f.phase(), f.waiting())
		}
	}
}

func (f *fleet) waiting() []rotation.Waiting {
	r := f.board.Read()
	return r.Course.State.Unconfirmed(f.members(), r.Records, time.Now())
}

// on checks that every proxy is below a root and that the other is refused.
func (f *fleet) on(root *Material, gone *certs.Certificate) {
	f.t.Helper()
	for _, p := range f.proxies {
		c := p.held()
		if c == nil || c.Leaf().CheckSignatureFrom(root.Cert) != nil {
			f.t.Errorf("%s has not got a certificate of the new root", p.uid)
		}
		server := must(p.certs.Server(f.t.Context(), p.id))
		if err := server.VerifyConnection(tls.ConnectionState{PeerCertificates: gone.Chain}); err == nil {
			f.t.Errorf("%s accepts a certificate of the old root", p.uid)
		}
	}
}

func TestARootIsReplacedAndNobodyNotices(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first, second := must(NewRoot("mesh", time.Now())), must(NewRoot("mesh", time.Now()))
		f := newFleet(t, first, 3, 5)
		defer f.stop()
		f.pass(5 * time.Second)
		old := f.proxies[0].held()
		f.want(second)
		f.pass(4 * time.Second)
		f.steady(5 * time.Minute)
		f.on(second, old)
	})
}

func TestAReplicaMayEndInEveryPhase(t *testing.T) {
	phases := []rotation.Phase{rotation.Spread, rotation.Switch, rotation.Reissue, rotation.Forget}
	for _, at := range phases {
		for _, who := range []int{0, 1} {
			synctest.Test(t, func(t *testing.T) {
				first, second := must(NewRoot("mesh", time.Now())), must(NewRoot("mesh", time.Now()))
				f := newFleet(t, first, 2, 4)
				defer f.stop()
				f.pass(5 * time.Second)
				old := f.proxies[0].held()
				f.want(second)
				for end := time.Now().Add(5 * time.Minute); f.phase() != at; f.pass(50 * time.Millisecond) {
					if time.Now().After(end) {
						t.Fatalf("phase %s is not reached", at)
					}
				}
				f.crash(who)
				f.steady(5 * time.Minute)
				f.on(second, old)
			})
		}
	}
}

func TestAProxyThatIsAwayHoldsTheRotationBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first, second := must(NewRoot("mesh", time.Now())), must(NewRoot("mesh", time.Now()))
		f := newFleet(t, first, 2, 4)
		defer f.stop()
		f.pass(5 * time.Second)
		old := f.proxies[0].held()
		away := f.proxies[1]
		back := away.at()
		away.connect(nil)
		f.want(second)
		for range 10 {
			f.pass(time.Hour)
			if err := f.meet(); err != nil {
				t.Fatal(err)
			}
		}
		if f.phase() != rotation.Spread || len(f.waiting()) != 1 || f.waiting()[0].Name != away.uid {
			t.Fatalf("phase %s, waiting for %v", f.phase(), f.waiting())
		}
		away.connect(back)
		f.steady(5 * time.Minute)
		f.on(second, old)
	})
}

func TestWhoIsAwayForTooLongIsNotWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first, second := must(NewRoot("mesh", time.Now())), must(NewRoot("mesh", time.Now()))
		f := newFleet(t, first, 2, 4)
		defer f.stop()
		f.pass(5 * time.Second)
		f.proxies[1].connect(nil)
		f.want(second)
		f.steady(5 * 25 * time.Hour)
		f.proxies[1].connect(f.replicas[0])
		f.pass(3 * time.Minute)
		if err := f.meet(); err != nil {
			t.Errorf("when it is back: %v", err)
		}
	})
}

func TestAPhaseIsForced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first, second := must(NewRoot("mesh", time.Now())), must(NewRoot("mesh", time.Now()))
		f := newFleet(t, first, 1, 3)
		defer f.stop()
		f.proxies[1].connect(nil)
		f.want(second)
		for _, want := range []rotation.Phase{rotation.Reissue, rotation.Forget, rotation.Steady} {
			f.pass(time.Minute)
			f.board.Change(func(r *Reading) { r.Forced = r.Course.State.Epoch })
			f.pass(time.Minute)
			if f.phase() != want {
				t.Fatalf("phase %s, want %s", f.phase(), want)
			}
		}
	})
}

func TestAMountedFileOfRootsIsWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first, second := must(NewRoot("mesh", time.Now())), must(NewRoot("mesh", time.Now()))
		f := newFleet(t, first, 1, 3)
		defer f.stop()
		p := f.proxies[1]
		p.mu.Lock()
		p.file = first
		p.mu.Unlock()
		f.want(second)
		f.pass(10 * time.Minute)
		if f.phase() != rotation.Spread || !strings.Contains(f.waiting()[0].Lacks, "mounted") {
			t.Fatalf("phase %s, waiting for %v", f.phase(), f.waiting())
		}
		p.mu.Lock()
		p.file = f.board.Read().Course.Material
		p.mu.Unlock()
		f.steady(5 * time.Minute)
	})
}

func TestAnAuthorityThatHasEndedIsReplacedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		short := plugged(time.Now(), time.Now().Add(20*time.Minute))
		f := newFleet(t, short, 1, 3)
		defer f.stop()
		f.proxies[0].connect(nil)
		f.pass(30 * time.Minute)
		second := must(NewRoot("mesh", time.Now()))
		before := f.board.Read().Course.State.Epoch
		f.want(second)
		f.pass(3 * time.Minute)
		if f.phase() != rotation.Steady || f.board.Read().Course.State.Epoch <= before {
			t.Errorf("phase %s, epoch %d after %d", f.phase(), f.board.Read().Course.State.Epoch, before)
		}
		if err := f.meet(); err != nil || f.proxies[1].held() == nil {
			t.Errorf("nobody has a certificate again: %v", err)
		}
	})
}

// renewing is a board whose root is its own.
type renewing struct {
	reader
	renewed int
}

func (r *renewing) Renew(context.Context, Reading) error {
	r.renewed++
	m := must(NewRoot("mesh", time.Now()))
	r.Change(func(r *Reading) { r.Target, r.Asked = m, false })
	return nil
}

func TestARootOfOurOwnIsReplacedInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first := must(NewRoot("mesh", time.Now()))
		m := NewMemory()
		m.Begin(must(NewCourse(first, nil, time.Now())))
		m.Change(func(r *Reading) { r.Plugged = false })
		b := &renewing{reader: reader{m}}
		c := NewConductor(ConductorConfig{
			Board: b, Authority: must(NewAuthority(first, AuthorityConfig{})), Guides: NewGuides(), Replica: "r",
			Members: func() []rotation.Member { return []rotation.Member{{ID: "r", Name: "r", Kind: rotation.KindReplica}} }, Changed: func() {}, Logger: quiet,
		})
		ctx, cancel := context.WithCancel(t.Context())
		var run sync.WaitGroup
		defer run.Wait()
		defer cancel()
		look := func(at time.Duration) {
			t.Helper()
			time.Sleep(at)
			c.mu.Lock()
			c.leading = true
			c.mu.Unlock()
			for range 16 {
				if err := c.look(ctx); err != nil {
					t.Fatal(err)
				}
				time.Sleep(settle)
			}
		}
		look(RootLifetime / 2)
		if b.renewed != 0 {
			t.Error("replaced at half of its life")
		}
		look(RootLifetime/2 - RootLifetime/5)
		if b.renewed != 1 || m.Read().Course.Material.Cert.Equal(first.Cert) || m.Read().Course.State.Phase != rotation.Steady {
			t.Errorf("replaced %d times with a fifth left, phase %s", b.renewed, m.Read().Course.State.Phase)
		}
		m.Change(func(r *Reading) { r.Asked = true })
		look(0)
		if b.renewed != 2 {
			t.Error("not replaced when asked for")
		}
	})
}

func TestALifetimeIsNotedBeforeACertificateIsIssued(t *testing.T) {
	first := must(NewRoot("mesh", time.Now()))
	m := NewMemory()
	m.Begin(must(NewCourse(first, nil, time.Now())))
	c := NewConductor(ConductorConfig{Board: m, Authority: must(NewAuthority(first, AuthorityConfig{})), Guides: NewGuides(), Changed: func() {}, Logger: quiet})
	for _, ttl := range []time.Duration{time.Minute, 24 * time.Hour, 48 * time.Hour, time.Hour} {
		if err := c.Lengthen(t.Context(), ttl); err != nil {
			t.Fatal(err)
		}
		if got := m.Read().Course.State.Longest; got < ttl || got < 24*time.Hour {
			t.Errorf("after %v: %v", ttl, got)
		}
	}
}

func TestTheCourseSurvivesASecret(t *testing.T) {
	now := time.Now()
	first, second := plugged(now, now.Add(time.Hour)), must(NewRoot("mesh", now))
	c := must(NewCourse(first, nil, now))
	for range 6 {
		back, err := ParseCourse(must(c.Data()))
		if err != nil {
			t.Fatalf("phase %s: %v", c.State.Phase, err)
		}
		if back.State.Epoch != c.State.Epoch || !back.Material.Cert.Equal(c.Material.Cert) || len(back.Material.Roots) != len(c.Material.Roots) {
			t.Errorf("phase %s reads as %+v", c.State.Phase, back.State)
		}
		if err := back.Material.Check(now); err != nil {
			t.Errorf("phase %s: %v", c.State.Phase, err)
		}
		c, _, err = back.next(second, nil, now)
		if err != nil {
			t.Fatal(err)
		}
	}
	data := must(c.Data())
	other := must(must(NewCourse(first, nil, now)).Data())
	data[keyCert], data[keyKey], data[keyChain] = other[keyCert], other[keyKey], other[keyChain]
	if _, err := ParseCourse(data); err == nil {
		t.Error("certificates that do not belong to the state are taken")
	}
}

// TestARandomFleet lets replicas crash, proxies go, come and be away, and
// authorities change, in any order, over the real parts.
func TestARandomFleet(t *testing.T) {
	for seed := range uint64(4) {
		synctest.Test(t, func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 2))
			f := newFleet(t, must(NewRoot("mesh", time.Now())), 2, 4)
			defer f.stop()
			phases := map[rotation.Phase]bool{}
			for range 150 {
				f.pass(time.Duration(r.IntN(9000)) * time.Millisecond)
				switch p := f.proxies[r.IntN(len(f.proxies))]; r.IntN(20) {
				case 0:
					f.crash(r.IntN(len(f.replicas)))
				case 1, 2:
					if p.at() == nil || r.IntN(2) == 0 {
						p.connect(f.replicas[r.IntN(len(f.replicas))])
					} else {
						p.connect(nil)
					}
				case 3:
					f.addProxy()
				case 4:
					if len(f.proxies) > 2 {
						f.mu.Lock()
						f.proxies = slices.DeleteFunc(f.proxies, func(o *proxy) bool { return o == p })
						f.mu.Unlock()
						p.stop()
					}
				case 5:
					if f.phase() == rotation.Steady || r.IntN(4) == 0 {
						f.want(must(NewRoot("mesh", time.Now())))
					}
				default:
					if p.at() == nil {
						p.connect(f.replicas[r.IntN(len(f.replicas))])
					}
				}
				f.settle()
				phases[f.phase()] = true
				if err := f.meet(); err != nil {
					t.Fatalf("seed %d, phase %s: %v", seed, f.phase(), err)
				}
			}
			if seed == 0 && len(phases) < 4 {
				t.Errorf("only phases %v", phases)
			}
		})
	}
}
