package changes_test

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/ambit-mesh/ambit/cni/changes"
	"github.com/ambit-mesh/ambit/cni/netnstest"
	"github.com/ambit-mesh/ambit/cni/rules"
	"github.com/ambit-mesh/ambit/internal/linux"
)

// watch runs a watcher and gives what it tells.
func watch(t testing.TB) (*changes.Watcher, <-chan string) {
	t.Helper()
	w, err := changes.New()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	told, done := make(chan string, 4096), make(chan error, 1)
	go func() { done <- w.Run(ctx, func(key string) { told <- key }) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		for range 2 {
			if err := w.Close(); err != nil {
				t.Error(err)
			}
		}
	})
	return w, told
}

// hears waits until key is told and says how often it was; what else is told
// is an error.
func hears(t *testing.T, what string, told <-chan string, key string) (n int) {
	t.Helper()
	select {
	case got := <-told:
		if got != key {
			t.Errorf("%s: told of %q, want %q", what, got, key)
		}
	case <-time.After(netnstest.Patience):
		t.Fatalf("%s: not told", what)
	}
	// One change may be several messages.
	for n = 1; ; n++ {
		select {
		case got := <-told:
			if got != key {
				t.Errorf("%s: told of %q, want %q", what, got, key)
			}
		case <-time.After(50 * time.Millisecond):
			return n
		}
	}
}

func TestChangesAreToldByNamespace(t *testing.T) {
	w, told := watch(t)
	a, b := netnstest.New(t), netnstest.New(t)
	if err := w.Add("a", a); err != nil {
		t.Fatal(err)
	}
	if err := w.Add("b", b); err != nil {
		t.Fatal(err)
	}
	if err := rules.Apply(b, rules.Spec{}); err != nil {
		t.Fatal(err)
	}
	hears(t, "rules made", told, "b")
	ip := netip.MustParseAddr("10.1.2.3")
	for _, c := range []struct {
		what string
		do   func() error
	}{
		{"an ip rule", func() error {
			r := netlink.NewRule()
			r.Family, r.Table, r.Priority = unix.AF_INET6, 77, 77
			return netlink.RuleAdd(r)
		}},
		{"an address", func() error {
			lo, err := netlink.LinkByName("lo")
			if err != nil {
				return err
			}
			return netlink.AddrAdd(lo, &netlink.Addr{IPNet: netlink.NewIPNet(ip.AsSlice())})
		}},
		{"a route", func() error {
			routes, err := netlink.RouteListFiltered(unix.AF_INET, &netlink.Route{Table: 255}, netlink.RT_FILTER_TABLE)
			if err != nil || len(routes) == 0 {
				return fmt.Errorf("no routes: %w", err)
			}
			return netlink.RouteDel(&routes[0])
		}},
		{"a table of somebody else", func() error {
			c := &nftables.Conn{}
			c.AddTable(&nftables.Table{Name: "other", Family: nftables.TableFamilyINet})
			return c.Flush()
		}},
	} {
		netnstest.Do(t, a, c.do)
		hears(t, c.what, told, "a")
	}
}

func TestWhatIsNoLongerWatchedIsNotToldAndNothingIsLeft(t *testing.T) {
	w, told := watch(t)
	a, b := netnstest.New(t), netnstest.New(t)
	before := descriptors(t)
	for range 3 { // again under the same key takes the place of what was
		if err := w.Add("a", a); err != nil {
			t.Fatal(err)
		}
	}
	w.Remove("a")
	w.Remove("a")
	if w.Len() != 0 || descriptors(t) != before {
		t.Errorf("%d watched, %d descriptors; want 0 and %d", w.Len(), descriptors(t), before)
	}
	if err := w.Add("b", b); err != nil {
		t.Fatal(err)
	}
	for _, ns := range []*linux.NetNS{a, b} {
		if err := rules.Apply(ns, rules.Spec{}); err != nil {
			t.Fatal(err)
		}
	}
	hears(t, "only the one that is watched", told, "b")
}

func descriptors(t *testing.T) int {
	t.Helper()
	all, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(all)
}

// TestAFightCostsLittle: changes without end are told at a pace that slows.
func TestAFightCostsLittle(t *testing.T) {
	w, told := watch(t)
	ns := netnstest.New(t)
	if err := w.Add("a", ns); err != nil {
		t.Fatal(err)
	}
	for range 200 {
		if err := rules.Apply(ns, rules.Spec{}); err != nil {
			t.Fatal(err)
		}
	}
	if n := hears(t, "200 changes", told, "a"); n > 50 {
		t.Errorf("told %d times of 200 changes", n)
	}
}
