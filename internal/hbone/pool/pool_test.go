package pool

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ambit-mesh/ambit/internal/hbone"
	"github.com/ambit-mesh/ambit/internal/spiffe"
)

// network is a dialer whose tunnels are in memory. Streams are only counted.
type network struct {
	capacity int
	delay    time.Duration

	mu      sync.Mutex
	err     error
	tunnels []*tunnel
	dialing int
	most    int // dials at the same time
}

func (n *network) Dial(ctx context.Context, t hbone.Target) (hbone.Tunnel, error) {
	n.mu.Lock()
	n.dialing++
	n.most = max(n.most, n.dialing)
	n.mu.Unlock()
	defer func() { n.mu.Lock(); n.dialing--; n.mu.Unlock() }()
	select {
	case <-time.After(n.delay):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.err != nil {
		return nil, n.err
	}
	tn := &tunnel{target: t, capacity: n.capacity, done: make(chan struct{}), empty: make(chan struct{}, 1)}
	n.tunnels = append(n.tunnels, tn)
	return tn, nil
}

type tunnel struct {
	target   hbone.Target
	capacity int

	mu      sync.Mutex
	refuses bool // streams, as a peer whose GOAWAY is on its way
	streams int
	isDone  bool
	closed  bool
	done    chan struct{}
	empty   chan struct{}
}

type stream struct {
	hbone.Stream
	t *tunnel
}

func (s stream) Close() error {
	s.t.mu.Lock()
	defer s.t.mu.Unlock()
	if s.t.streams--; s.t.streams == 0 {
		select {
		case s.t.empty <- struct{}{}:
		default:
		}
	}
	return nil
}

func (t *tunnel) Open(context.Context, hbone.Request) (hbone.Stream, hbone.Response, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.isDone || t.refuses || t.streams >= t.capacity {
		return nil, hbone.Response{}, hbone.ErrDraining
	}
	t.streams++
	return stream{t: t}, hbone.Response{Status: 200}, nil
}

func (t *tunnel) finish() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.isDone {
		t.isDone = true
		close(t.done)
	}
}

func (t *tunnel) Drain(ctx context.Context) error {
	t.finish()
	defer t.Close()
	for t.Streams() > 0 {
		select {
		case <-t.empty:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

func (t *tunnel) Close() error {
	t.finish()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = true
	return nil
}

func (t *tunnel) isClosed() bool { t.mu.Lock(); defer t.mu.Unlock(); return t.closed }

func (t *tunnel) Peer() hbone.Peer      { return hbone.Peer{ID: t.target.Accept[0]} }
func (t *tunnel) Done() <-chan struct{} { return t.done }
func (t *tunnel) Capacity() int         { return t.capacity }
func (t *tunnel) Streams() int          { t.mu.Lock(); defer t.mu.Unlock(); return t.streams }

func target(host int, workload string) hbone.Target {
	id := spiffe.ID{TrustDomain: "cluster.local", Namespace: "shop", ServiceAccount: fmt.Sprint("app", host)}
	return hbone.Target{
		Address: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, byte(host >> 8), byte(host)}), 15008),
		Self:    spiffe.ID{TrustDomain: "cluster.local", Namespace: "shop", ServiceAccount: "front"}, Accept: []spiffe.ID{id}, Workload: workload,
	}
}

// inPool runs f with a pool, in time that only passes when everybody waits.
func inPool(t *testing.T, cfg Config, n *network, f func(t *testing.T, p *Pool)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		n.capacity = max(n.capacity, 1)
		cfg.Dialer = n
		p := New(cfg)
		defer p.Close()
		f(t, p)
	})
}

func open(t *testing.T, p *Pool, to hbone.Target) hbone.Stream {
	t.Helper()
	s, _, peer, err := p.Open(t.Context(), to, hbone.Request{})
	if err != nil {
		t.Fatal(err)
	}
	if peer.ID != to.Accept[0] {
		t.Errorf("peer %s, want %s", peer.ID, to.Accept[0])
	}
	return s
}

func TestManyWhoAskAtOnceShareOneDial(t *testing.T) {
	n := &network{capacity: 100, delay: time.Second}
	inPool(t, Config{}, n, func(t *testing.T, p *Pool) {
		var all sync.WaitGroup
		for range 100 {
			all.Go(func() { open(t, p, target(1, "a")) })
		}
		all.Wait()
		if len(n.tunnels) != 1 || p.Handshakes() != 1 {
			t.Errorf("%d tunnels, %d handshakes, want 1", len(n.tunnels), p.Handshakes())
		}
	})
}

func TestMoreStreamsThanATunnelTakesMakeAnotherOneAtATime(t *testing.T) {
	n := &network{capacity: 100, delay: time.Second}
	inPool(t, Config{MaxStreams: 10}, n, func(t *testing.T, p *Pool) {
		var all sync.WaitGroup
		for range 400 {
			all.Go(func() { open(t, p, target(1, "a")) })
		}
		all.Wait()
		if len(n.tunnels) < 4 || n.most != 1 {
			t.Errorf("%d tunnels, %d dials at once", len(n.tunnels), n.most)
		}
		for _, tn := range n.tunnels {
			if tn.Streams() > 100 {
				t.Errorf("%d streams on a tunnel", tn.Streams())
			}
		}
	})
}

func TestATunnelThatWasFullIsUsedAgain(t *testing.T) {
	n := &network{capacity: 1}
	inPool(t, Config{}, n, func(t *testing.T, p *Pool) {
		for range 5 {
			open(t, p, target(1, "a")).Close()
		}
		if len(n.tunnels) != 1 {
			t.Errorf("%d tunnels, want 1", len(n.tunnels))
		}
	})
}

func TestTargetsThatDifferShareNothing(t *testing.T) {
	a := target(1, "a")
	other := target(1, "a")
	other.Self.ServiceAccount = "back"
	accept := target(1, "a")
	accept.Accept = append(accept.Accept, target(2, "").Accept...)
	n := &network{capacity: 100}
	inPool(t, Config{}, n, func(t *testing.T, p *Pool) {
		for _, to := range []hbone.Target{a, other, accept, target(1, "b"), target(2, "a"), a} {
			open(t, p, to)
		}
		if len(n.tunnels) != 5 {
			t.Errorf("%d tunnels, want 5", len(n.tunnels))
		}
	})
}

func TestAFailedDialIsEverybodysErrorAndNotRemembered(t *testing.T) {
	n := &network{capacity: 10, delay: time.Second, err: errors.New("no route")}
	inPool(t, Config{}, n, func(t *testing.T, p *Pool) {
		var all sync.WaitGroup
		for range 10 {
			all.Go(func() {
				if _, _, _, err := p.Open(t.Context(), target(1, "a"), hbone.Request{}); !errors.Is(err, n.err) {
					t.Errorf("error %v", err)
				}
			})
		}
		all.Wait()
		if s := p.Stats(); s.Failed != 1 {
			t.Errorf("%d dials failed, want 1", s.Failed)
		}
		n.err = nil
		open(t, p, target(1, "a"))
	})
}

func TestWhoGivesUpDoesNotEndTheDialOfOthers(t *testing.T) {
	n := &network{capacity: 10, delay: time.Second}
	inPool(t, Config{}, n, func(t *testing.T, p *Pool) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		if _, _, _, err := p.Open(ctx, target(1, "a"), hbone.Request{}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error %v", err)
		}
		open(t, p, target(1, "a"))
		if n := p.Handshakes(); n != 1 {
			t.Errorf("%d handshakes, want 1", n)
		}
	})
}

func TestIdleTunnelsAreClosedAndUsedOnesKept(t *testing.T) {
	n := &network{capacity: 10}
	inPool(t, Config{MaxAge: 24 * time.Hour}, n, func(t *testing.T, p *Pool) {
		open(t, p, target(1, "a")).Close()
		s := open(t, p, target(2, "b"))
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		if !n.tunnels[0].isClosed() {
			t.Error("the idle tunnel is open")
		}
		if n.tunnels[1].isClosed() {
			t.Error("the tunnel with a stream is closed")
		}
		s.Close()
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		if !n.tunnels[1].isClosed() || len(p.List()) != 0 {
			t.Error("the tunnel is kept after its last stream")
		}
	})
}

func TestAnOldTunnelIsReplacedAndItsStreamsLive(t *testing.T) {
	n := &network{capacity: 10}
	inPool(t, Config{MaxAge: time.Hour}, n, func(t *testing.T, p *Pool) {
		s := open(t, p, target(1, "a"))
		time.Sleep(61 * time.Minute)
		open(t, p, target(1, "a"))
		synctest.Wait()
		if len(n.tunnels) != 2 || n.tunnels[0].isClosed() {
			t.Fatalf("%d tunnels, first closed: %v", len(n.tunnels), n.tunnels[0].isClosed())
		}
		s.Close()
		synctest.Wait()
		if !n.tunnels[0].isClosed() {
			t.Error("the old tunnel outlives its last stream")
		}
	})
}

func TestATunnelThatDrainsIsNotOffered(t *testing.T) {
	n := &network{capacity: 10}
	inPool(t, Config{}, n, func(t *testing.T, p *Pool) {
		open(t, p, target(1, "a"))
		n.tunnels[0].finish()
		open(t, p, target(1, "a"))
		if len(n.tunnels) != 2 {
			t.Errorf("%d tunnels, want 2", len(n.tunnels))
		}
	})
}

func TestAStreamThatATunnelRefusesIsOpenedInAnother(t *testing.T) {
	n := &network{capacity: 10}
	inPool(t, Config{}, n, func(t *testing.T, p *Pool) {
		open(t, p, target(1, "a"))
		n.tunnels[0].mu.Lock()
		n.tunnels[0].refuses = true
		n.tunnels[0].mu.Unlock()
		open(t, p, target(1, "a"))
		if len(n.tunnels) != 2 || n.tunnels[1].Streams() != 1 {
			t.Errorf("%d tunnels, want another for the stream that was refused", len(n.tunnels))
		}
	})
}

func TestForgottenTargetsGetNewTunnelsAndOthersKeepTheirs(t *testing.T) {
	n := &network{capacity: 10, delay: time.Second}
	inPool(t, Config{}, n, func(t *testing.T, p *Pool) {
		s := open(t, p, target(1, "a"))
		open(t, p, target(2, "b"))
		gone := func(to hbone.Target) bool { return to.Workload == "a" }
		p.Forget(gone)
		synctest.Wait()
		if n.tunnels[0].isClosed() {
			t.Error("a stream to a forgotten target was cut")
		}
		s.Close()
		synctest.Wait()
		if !n.tunnels[0].isClosed() || n.tunnels[1].isClosed() {
			t.Error("wrong tunnel closed")
		}
		// One that is being dialled meanwhile is not used either.
		opened := make(chan bool)
		go func() { open(t, p, target(1, "a")); close(opened) }()
		synctest.Wait()
		p.Forget(gone)
		<-opened
		if len(n.tunnels) != 4 || n.tunnels[2].Streams() != 0 || n.tunnels[3].Streams() != 1 {
			t.Errorf("%d tunnels", len(n.tunnels))
		}
	})
}

func TestHeldAreTunnelsThatAreMadeOfferedAndEnding(t *testing.T) {
	n := &network{capacity: 10, delay: time.Second}
	inPool(t, Config{}, n, func(t *testing.T, p *Pool) {
		held := func(when string, want int) {
			t.Helper()
			synctest.Wait()
			if got := p.Held(); got != want {
				t.Errorf("%s: %d tunnels are held, want %d", when, got, want)
			}
		}
		held("at first", 0)
		opened := make(chan hbone.Stream)
		go func() { opened <- open(t, p, target(1, "a")) }()
		held("one is dialled", 1)
		a := <-opened
		held("it is offered", 1)
		open(t, p, target(2, "b")).Close()
		p.Forget(func(hbone.Target) bool { return true })
		held("both are retired, one with a stream", 1)
		a.Close()
		held("its stream has ended", 0)
		n.err = errors.New("nobody is there")
		if _, _, _, err := p.Open(t.Context(), target(1, "a"), hbone.Request{}); err == nil {
			t.Error("a tunnel to nobody")
		}
		held("a dial has failed", 0)
	})
}

func TestBoundsHold(t *testing.T) {
	n := &network{capacity: 1}
	inPool(t, Config{MaxPerTarget: 2, MaxTotal: 3}, n, func(t *testing.T, p *Pool) {
		a := open(t, p, target(1, "a"))
		open(t, p, target(1, "a"))
		if _, _, _, err := p.Open(t.Context(), target(1, "a"), hbone.Request{}); !errors.Is(err, ErrFull) {
			t.Errorf("third tunnel to one target: %v", err)
		}
		open(t, p, target(2, "b"))
		if _, _, _, err := p.Open(t.Context(), target(3, "c"), hbone.Request{}); !errors.Is(err, ErrFull) {
			t.Errorf("fourth tunnel: %v", err)
		}
		a.Close() // an idle one makes room
		open(t, p, target(3, "c"))
	})
}

func TestDrainWaitsForStreamsAndCloseDoesNot(t *testing.T) {
	n := &network{capacity: 10}
	inPool(t, Config{}, n, func(t *testing.T, p *Pool) {
		s := open(t, p, target(1, "a"))
		open(t, p, target(2, "b"))
		drained := make(chan error, 1)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		go func() { drained <- p.Drain(ctx) }()
		synctest.Wait()
		if _, _, _, err := p.Open(t.Context(), target(1, "a"), hbone.Request{}); !errors.Is(err, hbone.ErrDraining) {
			t.Errorf("Open while draining: %v", err)
		}
		s.Close()
		synctest.Wait()
		if !n.tunnels[0].isClosed() || n.tunnels[1].isClosed() {
			t.Error("not exactly the tunnel without streams is closed")
		}
		if err := <-drained; !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Drain: %v", err)
		}
		if !n.tunnels[1].isClosed() {
			t.Error("a tunnel survived the drain")
		}
		if err := errors.Join(p.Close(), p.Close()); err != nil {
			t.Error(err)
		}
	})
}
