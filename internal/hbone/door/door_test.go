package door

import (
	"net/netip"
	"strings"
	"testing"
	"time"
)

// TestADoorForgetsAddressesThatAreQuiet: what is remembered of visitors is
// bounded by those that are here and those that came just now.
func TestADoorForgetsAddressesThatAreQuiet(t *testing.T) {
	d, now := New(1, 1, 500), time.Now()
	for i := range 10 * maxIdleVisitors {
		a := netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
		now = now.Add(time.Millisecond)
		v, why := d.Enter(a, now, nil)
		if why != "" {
			t.Fatal(why)
		}
		v.Settled()
		v.Left()
	}
	if n := len(d.visitors); n > maxIdleVisitors+1 {
		t.Errorf("%d visitors are remembered", n)
	}
}

// TestWhoYields: an honest peer's handshake is not the one that makes room while
// somebody has more of them.
func TestWhoYields(t *testing.T) {
	honest, greedy, deaf := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("10.0.0.3")
	var yielded []string
	d, now := New(10, 100, 500), time.Now()
	enter := func(a netip.Addr, name string) *Visit {
		yield := func() { yielded = append(yielded, name) }
		if a == deaf {
			yield = nil
		}
		v, why := d.Enter(a, now, yield)
		if why != "" {
			t.Fatal(why)
		}
		return v
	}
	first := enter(honest, "honest 1")
	for range 5 {
		enter(deaf, "deaf")
	}
	settled := enter(greedy, "greedy 1")
	for _, name := range []string{"greedy 2", "greedy 3", "greedy 4"} {
		enter(greedy, name)
	}
	settled.Settled()
	d.MakeRoom()
	d.MakeRoom()
	enter(honest, "honest 2").Settled()
	d.MakeRoom()
	d.MakeRoom() // only the honest one is left that has not been asked
	first.Settled()
	d.MakeRoom() // nobody is
	if got, want := strings.Join(yielded, ", "), "greedy 2, greedy 3, greedy 4, honest 1"; got != want {
		t.Errorf("asked were %s, want %s", got, want)
	}
}
