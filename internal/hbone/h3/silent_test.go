package h3

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ambit-mesh/ambit/internal/hbone"
	"github.com/ambit-mesh/ambit/internal/spiffe"
)

// unhurried is for tests that are not about silence, on a machine that has much
// else to do.
const unhurried = time.Minute

// cuttable is a socket to which nothing comes once the path is cut.
type cuttable struct {
	net.PacketConn
	cut *atomic.Bool
}

func (d cuttable) ReadFrom(p []byte) (int, net.Addr, error) {
	for {
		n, from, err := d.PacketConn.ReadFrom(p)
		if err != nil || !d.cut.Load() {
			return n, from, err
		}
	}
}

// TestATunnelThroughWhichNothingComes: a request that is open goes on, the next
// is given up, and there are no more; it is told once. Who merely takes long to
// answer is waited for.
func TestATunnelThroughWhichNothingComes(t *testing.T) {
	s := serve(t, ServerConfig{Handler: func(in hbone.Incoming) {
		if in.Request().Authority == "slow:1" {
			time.Sleep(500 * time.Millisecond)
		}
		in.Accept(nil)
		<-in.Context().Done()
	}})
	var cut atomic.Bool
	told := make(chan error, 10)
	d := NewDialer(Config{
		Credentials: s.creds, Silence: 200 * time.Millisecond,
		Silent: func(to hbone.Target, why error) {
			if to.Address != s.addr {
				t.Errorf("told of %v", to)
			}
			told <- why
		},
		Listen: func(ctx context.Context, to netip.AddrPort) (net.PacketConn, error) {
			c, err := listen(ctx, to)
			return cuttable{c, &cut}, err
		},
	})
	tn, err := d.Dial(t.Context(), hbone.Target{Address: s.addr, Self: otherID, Accept: []spiffe.ID{serverID}})
	if err != nil {
		t.Fatal(err)
	}
	defer tn.Close()
	open, _, err := tn.Open(t.Context(), hbone.Request{Authority: "slow:1"})
	if err != nil {
		t.Fatalf("who takes long to answer: %v", err)
	}
	cut.Store(true)
	for range 2 {
		if _, _, err := tn.Open(t.Context(), hbone.Request{Authority: "a:1"}); !errors.Is(err, hbone.ErrSilent) && !errors.Is(err, hbone.ErrDraining) {
			t.Errorf("a request where nothing comes: %v", err)
		}
	}
	select {
	case <-tn.Done():
	default:
		t.Error("the tunnel takes more")
	}
	if n := len(told); n != 1 {
		t.Errorf("it is told %d times", n)
	}
	if _, err := open.Write([]byte("x")); err != nil {
		t.Errorf("what was open has ended: %v", err)
	}
}
