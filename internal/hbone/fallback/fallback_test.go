package fallback

import (
	"context"
	"errors"
	"net/netip"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ambit-mesh/ambit/internal/hbone"
)

// transport is a dialer that answers after a time.
type transport struct {
	takes time.Duration // negative: never
	err   error

	dials, closed atomic.Int32
}

// tunnel says who made it.
type tunnel struct {
	hbone.Tunnel
	of *transport
}

func (t tunnel) Close() error { t.of.closed.Add(1); return nil }

func (tr *transport) Dial(ctx context.Context, _ hbone.Target) (hbone.Tunnel, error) {
	tr.dials.Add(1)
	var after <-chan time.Time
	if tr.takes >= 0 {
		after = time.After(tr.takes)
	}
	select {
	case <-after:
		if tr.err != nil {
			return nil, tr.err
		}
		return tunnel{of: tr}, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func to(last byte, over hbone.Transport) hbone.Target {
	return hbone.Target{Address: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, last}), hbone.Port), Transport: over}
}

var errRefused = errors.New("connection refused")

func TestOverWhatATunnelIsMade(t *testing.T) {
	stranger := &hbone.PeerError{Err: errors.New("another identity")}
	for _, tt := range []struct {
		name    string
		over    hbone.Transport
		h2, h3  *transport
		want    string // "h2", "h3" or the error
		within  time.Duration
		blocked int
	}{
		{"HTTP/2 where nothing else is offered", hbone.OnlyH2, &transport{}, &transport{}, "h2", 0, 0},
		{"HTTP/3 where it is offered", hbone.PreferH3, &transport{}, &transport{takes: 20 * time.Millisecond}, "h3", 20 * time.Millisecond, 0},
		{"HTTP/2 where UDP is blocked", hbone.PreferH3, &transport{takes: time.Millisecond}, &transport{takes: -1}, "h2", 251 * time.Millisecond, 1},
		{"HTTP/2 at once where UDP is refused", hbone.PreferH3, &transport{takes: time.Millisecond}, &transport{err: errRefused}, "h2", time.Millisecond, 1},
		{"HTTP/3 that is slow, if HTTP/2 is slower", hbone.PreferH3, &transport{takes: time.Second}, &transport{takes: 300 * time.Millisecond}, "h3", 300 * time.Millisecond, 0},
		{"HTTP/3 that is slow, if HTTP/2 fails", hbone.PreferH3, &transport{err: errRefused}, &transport{takes: time.Second}, "h3", time.Second, 0},
		{"nothing where both fail", hbone.PreferH3, &transport{err: errRefused}, &transport{takes: time.Millisecond, err: errors.New("unreachable")}, "connection refused; over HTTP/3: unreachable", time.Millisecond, 0},
		{"nothing where HTTP/3 meets a stranger", hbone.PreferH3, &transport{}, &transport{err: stranger}, stranger.Error(), 0, 0},
		{"nothing where HTTP/2 meets a stranger", hbone.PreferH3, &transport{err: stranger}, &transport{takes: -1}, stranger.Error(), 250 * time.Millisecond, 0},
		{"nothing where only HTTP/3 is allowed, and fails", hbone.OnlyH3, &transport{}, &transport{err: errRefused}, "connection refused", 0, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := New(Config{H2: tt.h2, H3: tt.h3})
				defer d.Close()
				began := time.Now()
				got, err := d.Dial(t.Context(), to(1, tt.over))
				took := time.Since(began)
				which := "h2"
				switch {
				case err != nil:
					which = err.Error()
				case got.(tunnel).of == tt.h3:
					which = "h3"
				}
				if which != tt.want || took != tt.within || d.Blocked() != tt.blocked {
					t.Errorf("got %s after %v with %d addresses blocked, want %s after %v with %d", which, took, d.Blocked(), tt.want, tt.within, tt.blocked)
				}
			})
		})
	}
}

func TestABlockedAddressDelaysOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h2, h3 := &transport{}, &transport{takes: -1}
		fallen := 0
		d := New(Config{H2: h2, H3: h3, Fallen: func(at netip.Addr, why error) { fallen++ }})
		defer d.Close()
		began := time.Now()
		for range 100 {
			if got, err := d.Dial(t.Context(), to(1, hbone.PreferH3)); err != nil || got.(tunnel).of != h2 {
				t.Fatalf("%v, %v, want a tunnel over HTTP/2", got, err)
			}
		}
		if took := time.Since(began); took != 250*time.Millisecond || h3.dials.Load() != 1 || fallen != 1 {
			t.Errorf("100 tunnels took %v, HTTP/3 was tried %d times, %d falls were told; want 250ms, 1 and 1", took, h3.dials.Load(), fallen)
		}
		if _, err := d.Dial(t.Context(), to(2, hbone.PreferH3)); err != nil || time.Since(began) != 500*time.Millisecond {
			t.Errorf("another address was not tried by itself: %v after %v", err, time.Since(began))
		}
	})
}

// TestABlockIsNotForEver: it is tried again beside, nobody waits for that, and
// HTTP/3 comes back once it gets through.
func TestABlockIsNotForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h2, h3 := &transport{}, &transport{takes: -1}
		d := New(Config{H2: h2, H3: h3})
		dial := func(want *transport) {
			t.Helper()
			began := time.Now()
			got, err := d.Dial(t.Context(), to(1, hbone.PreferH3))
			if err != nil || got.(tunnel).of != want || time.Since(began) != 0 {
				t.Fatalf("%v, %v after %v", got, err, time.Since(began))
			}
		}
		d.Silent(to(1, hbone.PreferH3), errSlow)
		dial(h2)
		if h3.dials.Load() != 0 {
			t.Error("it was tried at once again")
		}
		time.Sleep(time.Minute)
		h3.err, h3.takes = errRefused, 0
		dial(h2)
		synctest.Wait()
		dial(h2)
		if n := h3.dials.Load(); n != 1 || d.Blocked() != 1 {
			t.Errorf("tried %d times within a minute, %d addresses blocked; want 1 and 1", n, d.Blocked())
		}
		time.Sleep(time.Minute)
		h3.err = nil
		dial(h2)
		synctest.Wait()
		dial(h3)
		if d.Blocked() != 0 || h3.closed.Load() != 1 {
			t.Errorf("%d addresses are blocked, %d probes closed; want 0 and 1", d.Blocked(), h3.closed.Load())
		}
		d.Close()
	})
}

func TestTheSlowerOfTwoTunnelsIsClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h2, h3 := &transport{takes: 10 * time.Millisecond}, &stubborn{takes: time.Second}
		d := New(Config{H2: h2, H3: h3})
		defer d.Close()
		if got, err := d.Dial(t.Context(), to(1, hbone.PreferH3)); err != nil || got.(tunnel).of != h2 {
			t.Fatalf("%v, %v, want a tunnel over HTTP/2", got, err)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if n := h3.made.closed.Load(); n != 1 {
			t.Errorf("the tunnel that came late was closed %d times, want once", n)
		}
	})
}

// stubborn makes its tunnel even if nobody wants it any more.
type stubborn struct {
	takes time.Duration
	made  transport
}

func (s *stubborn) Dial(context.Context, hbone.Target) (hbone.Tunnel, error) {
	time.Sleep(s.takes)
	return tunnel{of: &s.made}, nil
}

func TestWhatIsRememberedIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h2, h3 := &transport{}, &transport{takes: -1}
		d := New(Config{H2: h2, H3: h3, MaxBlocked: 10})
		defer d.Close()
		for i := range byte(30) {
			d.Silent(to(i, hbone.PreferH3), errSlow)
			time.Sleep(time.Millisecond)
		}
		if d.Blocked() != 10 {
			t.Errorf("%d addresses are remembered, want 10", d.Blocked())
		}
		began := time.Now()
		if _, err := d.Dial(t.Context(), to(29, hbone.PreferH3)); err != nil || time.Since(began) != 0 {
			t.Errorf("the newest was forgotten: %v after %v", err, time.Since(began))
		}
	})
}

func TestWhoGivesUpIsNotHeld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := New(Config{H2: &transport{takes: -1}, H3: &transport{takes: -1}})
		defer d.Close()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := d.Dial(ctx, to(1, hbone.PreferH3)); !errors.Is(err, context.DeadlineExceeded) || d.Blocked() != 0 {
			t.Errorf("%v with %d addresses blocked, want the end of its time and none", err, d.Blocked())
		}
	})
}
