package translate

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	api "istio.io/api/networking/v1alpha3"
	networking "istio.io/client-go/pkg/apis/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ambit-mesh/ambit/istiod-lite/objects"
)

// written makes a set as it is once whoever leads has written every status.
func written(t *testing.T, entries ...*networking.ServiceEntry) objects.Set {
	t.Helper()
	set := setOf(t, entries...)
	write(set, given(set))
	return set
}

func setOf(t *testing.T, entries ...*networking.ServiceEntry) objects.Set {
	t.Helper()
	var set objects.Set
	for _, e := range entries {
		if _, err := set.Put(e); err != nil {
			t.Fatal(err)
		}
	}
	return set
}

// given is who is to have what, by a control plane that has just started.
func given(set objects.Set) map[string][]VirtualAddress {
	tr := New()
	tr.Update(set, nil)
	out := map[string][]VirtualAddress{}
	for ref, d := range tr.Details() {
		out[ref.Key.String()] = d.Virtual
	}
	return out
}

func write(set objects.Set, all map[string][]VirtualAddress) {
	for k, e := range set.ServiceEntries {
		e.Status.Addresses = nil
		for _, a := range all[k.String()] {
			e.Status.Addresses = append(e.Status.Addresses, &api.ServiceEntryAddress{Value: a.Value, Host: a.Host})
		}
	}
}

// resolved is an entry of a namespace, the older the smaller age is.
func resolved(namespace, name string, age int, hosts ...string) *networking.ServiceEntry {
	se := &networking.ServiceEntry{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, CreationTimestamp: metav1.NewTime(time.Unix(int64(age), 0))}}
	se.Spec.Hosts, se.Spec.Resolution = hosts, api.ServiceEntry_DNS
	se.Spec.Ports = []*api.ServicePort{{Number: 80, Name: "http"}}
	return se
}

// has gives an entry addresses as its status does.
func has(se *networking.ServiceEntry, host string, addresses ...string) *networking.ServiceEntry {
	for _, a := range addresses {
		se.Status.Addresses = append(se.Status.Addresses, &api.ServiceEntryAddress{Value: a, Host: host})
	}
	return se
}

func addressesIn(all []VirtualAddress) []string {
	var out []string
	for _, a := range all {
		out = append(out, a.Value)
	}
	return out
}

func TestVirtualAddressesOutliveRestarts(t *testing.T) {
	var all []*networking.ServiceEntry
	for i := range 100 {
		all = append(all, resolved(fmt.Sprint("n", i%3), fmt.Sprint("e", i), i, fmt.Sprintf("h%d.example.com", i)))
	}
	set := written(t, all...)
	before := given(set)
	if len(before) != len(all) {
		t.Fatalf("%d of %d entries have addresses", len(before), len(all))
	}
	// Who came while nobody looked, and older than all, takes nothing away, though
	// his names lead to an address of another.
	taken := map[string]bool{}
	for _, had := range before {
		for _, a := range had {
			taken[a.Value] = true
		}
	}
	late := 0
	for i := 0; late < 20; i++ {
		s := place{entry: objects.Key{Namespace: "n9", Name: fmt.Sprint("late", i)}, host: "late.example.com"}
		if !taken[nth(virtualRanges[0], s.number()).String()] {
			continue
		}
		late++
		if _, err := set.Put(resolved(s.entry.Namespace, s.entry.Name, -1, s.host)); err != nil {
			t.Fatal(err)
		}
	}
	after := given(set)
	for k, had := range before {
		if d := cmp.Diff(had, after[k]); d != "" {
			t.Fatalf("after a restart %s has others (-before +after):\n%s", k, d)
		}
	}
}

func TestOneVirtualAddressIsNeverGivenTwice(t *testing.T) {
	const host = "api.example.com"
	where := virtualRanges[0]
	wish := addressesIn(given(setOf(t, resolved("shop", "a", 1, host)))["shop/a"])
	byHand := func(namespace string, age int, addresses ...string) *networking.ServiceEntry {
		se := resolved(namespace, "by-hand", age, "hand.example.com")
		se.Spec.Addresses = addresses
		return se
	}
	for _, tt := range []struct {
		sentence string
		all      []*networking.ServiceEntry
		keeps    string // the entry that has the address wished for
	}{
		{"the only one has it", []*networking.ServiceEntry{resolved("shop", "a", 1, host)}, "shop/a"},
		{"who has it keeps it, younger and in another namespace", []*networking.ServiceEntry{resolved("shop", "a", 1, host), has(resolved("bank", "b", 2, host), host, wish...)}, "bank/b"},
		{"of two that have it the older keeps it", []*networking.ServiceEntry{has(resolved("shop", "z", 1, host), host, wish...), has(resolved("bank", "b", 2, host), host, wish...)}, "shop/z"},
		{"of two of one age the first by name keeps it", []*networking.ServiceEntry{has(resolved("shop", "z", 1, host), host, wish...), has(resolved("bank", "b", 1, host), host, wish...)}, "bank/b"},
		{"what a user wrote goes first, though it is younger", []*networking.ServiceEntry{has(resolved("shop", "a", 1, host), host, wish...), byHand("bank", 2, wish...)}, ""},
		{"a block that a user wrote is kept free", []*networking.ServiceEntry{has(resolved("shop", "a", 1, host), host, wish...), byHand("bank", 2, netip.PrefixFrom(netip.MustParseAddr(wish[0]), 24).Masked().String(), wish[1])}, ""},
		{"the address of another host of the entry is not this one's", []*networking.ServiceEntry{has(resolved("shop", "a", 1, host), "other.example.com", "240.240.0.1")}, "shop/a"},
	} {
		all := given(setOf(t, tt.all...))
		seen := map[string]string{}
		for k, has := range all {
			if len(has) != 2 {
				t.Errorf("%s: %s has %v, want one of each family", tt.sentence, k, has)
			}
			for _, a := range has {
				if seen[a.Value] != "" {
					t.Errorf("%s: %s is given to %s and to %s", tt.sentence, a.Value, seen[a.Value], k)
				}
				seen[a.Value] = k
				if p := netip.MustParseAddr(a.Value); !virtualRanges[0].Contains(p) && !virtualRanges[1].Contains(p) {
					t.Errorf("%s: %s is in none of the ranges", tt.sentence, a.Value)
				}
			}
		}
		if got := seen[wish[0]]; got != tt.keeps || !where.Contains(netip.MustParseAddr(wish[0])) {
			t.Errorf("%s: %s is %q's, want %q's", tt.sentence, wish[0], got, tt.keeps)
		}
	}
}

func TestARangeThatIsUsedUp(t *testing.T) {
	const left = 3
	p := pool{taken: map[netip.Addr]bool{}}
	for n := range uint64(rangeSize - left) {
		if a := nth(virtualRanges[0], 1000+n); !p.take(a, 0) || !virtualRanges[0].Contains(a) {
			t.Fatalf("%v is not free, or of another range", a)
		}
	}
	for i := range left {
		one := place{host: fmt.Sprint("h", i, ".example.com")}
		if p.give(&one); !one.has.IsValid() {
			t.Errorf("host %d has no address, though some are left", i)
		}
	}
	last := place{host: "last.example.com"}
	if p.give(&last); last.has.IsValid() {
		t.Errorf("when all are given, %v is given", last.has)
	}
	last.of = 1
	if p.give(&last); !last.has.IsValid() {
		t.Error("of the other range nothing is left, which nobody used")
	}
	kept := place{host: "kept.example.com"}
	p.keep(&kept, has(resolved("shop", "b", 1, "kept.example.com"), "kept.example.com", "240.240.0.1"))
	if kept.has.IsValid() {
		t.Errorf("%v is two hosts'", kept.has)
	}
}

func TestWhoOptsOutLosesItsAddresses(t *testing.T) {
	set := written(t, resolved("shop", "a", 1, "api.example.com"))
	tr := New()
	m, _ := tr.Update(set, nil)
	addresses := func() (n int) {
		for _, s := range m.Services {
			n += len(s.Addresses)
		}
		return n
	}
	if addresses() != 2 {
		t.Fatalf("the entry has %d addresses", addresses())
	}
	k := objects.Key{Namespace: "shop", Name: "a"}
	out := set.ServiceEntries[k].DeepCopy()
	out.Labels = map[string]string{labelAllocate: "false"}
	ref, err := set.Put(out)
	if err != nil {
		t.Fatal(err)
	}
	m, _ = tr.Update(set, []objects.Ref{ref})
	if addresses() != 0 || len(tr.Details()) != 0 {
		t.Errorf("it has %d addresses, and %d are to be written", addresses(), len(tr.Details()))
	}
}
