package door

import (
	"net/netip"
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
		if why := d.Enter(a, now); why != "" {
			t.Fatal(why)
		}
		d.Settled(a)
		d.Left(a)
	}
	if n := len(d.visitors); n > maxIdleVisitors+1 {
		t.Errorf("%d visitors are remembered", n)
	}
}
