package xds

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// res makes a resource whose body and version are the text.
func res(name, text string) *Resource {
	return &Resource{Name: name, Version: text, Body: []byte(text)}
}

func set(rs ...*Resource) Resources {
	out := Resources{}
	for _, r := range rs {
		out[r.Name] = r
	}
	return out
}

// say writes responses as sentences: "policies +a +b -c".
func say(out []response) []string {
	var lines []string
	for _, r := range out {
		if r.empty() {
			continue
		}
		line := map[string]string{TypeAuthorization: "policies", TypeAddress: "workloads", TypeWaypoint: "waypoint"}[r.typ]
		for _, u := range r.upserts {
			line += " +" + u.Name
		}
		for _, name := range r.removed {
			line += " -" + name
		}
		lines = append(lines, line)
	}
	return lines
}

func TestPushOrder(t *testing.T) {
	narrows := func(_ string, old, new *Resource) bool {
		return strings.HasPrefix(string(new.Body), "narrow") && !strings.HasPrefix(string(old.Body), "narrow")
	}
	moves := func(guards map[string]Replaced, old, new *Resource) (m Move) {
		if new != nil && string(new.Body) == string(old.Body) {
			return m
		}
		if _, replaced := guards[string(old.Body)]; replaced {
			m.Leaves = []string{string(old.Body)}
		}
		if new == nil {
			return m
		}
		if _, replaced := guards[string(new.Body)]; replaced {
			m.Comes = []string{string(new.Body)}
		}
		return m
	}
	standIns := func(guards, addresses []*Resource) (copies, standing []*Resource) {
		for _, g := range guards {
			copies = append(copies, &Resource{Name: g.Name + "~"})
		}
		for _, a := range addresses {
			standing = append(standing, &Resource{Name: a.Name})
		}
		return copies, standing
	}
	for _, tt := range []struct {
		name                       string
		oldPolicies, newPolicies   Resources
		oldAddresses, newAddresses Resources
		want                       []string
	}{
		{
			name:        "a new policy goes before the workload that names it",
			newPolicies: set(res("p", "1")), newAddresses: set(res("w", "p")),
			want: []string{"policies +p", "workloads +w"},
		}, {
			name:        "a policy leaves after the workload stopped naming it",
			oldPolicies: set(res("p", "1")), oldAddresses: set(res("w", "p")), newAddresses: set(res("w", "")),
			want: []string{"workloads +w", "policies -p"},
		}, {
			name:        "a policy that comes to select waits for the workloads that will name it",
			oldPolicies: set(res("p", "wide")), newPolicies: set(res("p", "narrow")),
			oldAddresses: set(res("w", "")), newAddresses: set(res("w", "p")),
			want: []string{"workloads +w", "policies +p"},
		}, {
			name:        "a policy that stops selecting goes before workloads stop naming it",
			oldPolicies: set(res("p", "narrow")), newPolicies: set(res("p", "wide")),
			oldAddresses: set(res("w", "p")), newAddresses: set(res("w", "")),
			want: []string{"policies +p", "workloads +w"},
		}, {
			name:        "one policy replaced by another has no moment without either",
			oldPolicies: set(res("p", "1")), newPolicies: set(res("q", "1")),
			oldAddresses: set(res("w", "p")), newAddresses: set(res("w", "q")),
			want: []string{"policies +q", "workloads +w", "policies -p"},
		}, {
			name:        "a workload that stops naming a policy goes before what this becomes, and after new ones",
			oldPolicies: set(res("p", "1"), res("q", "1")), newPolicies: set(res("n", "1"), res("p", "2"), res("q", "2")),
			oldAddresses: set(res("v", "x"), res("w", "p")), newAddresses: set(res("v", "p"), res("w", "x")),
			want: []string{"policies +n +q", "workloads +w", "policies +p", "workloads +v"},
		}, {
			name:        "workloads that go from one policy to the next take turns with what these become",
			oldPolicies: set(res("p", "1"), res("q", "1"), res("r", "1")), newPolicies: set(res("p", "2"), res("q", "2"), res("r", "2")),
			oldAddresses: set(res("u", "x"), res("v", "q"), res("w", "p")), newAddresses: set(res("u", "p"), res("v", "r"), res("w", "q")),
			want: []string{"policies +r", "workloads +v", "policies +q", "workloads +w", "policies +p", "workloads +u"},
		}, {
			name:        "of workloads that change places each is guarded by what was, until it is by what comes",
			oldPolicies: set(res("p", "1"), res("q", "1"), res("r", "1")), newPolicies: set(res("p", "2"), res("q", "2"), res("r", "2")),
			oldAddresses: set(res("u", "x"), res("v", "q"), res("w", "p")), newAddresses: set(res("u", "p"), res("v", "p"), res("w", "q")),
			want: []string{"policies +r", "policies +p~ +q~", "workloads +v +w", "policies +p +q", "workloads +u +v +w", "policies -p~ -q~"},
		}, {
			name:        "a workload that ends with what a policy was goes before what this becomes, and no other does",
			oldPolicies: set(res("p", "1"), res("q", "1")), newPolicies: set(res("n", "1"), res("p", "2"), res("q", "1")),
			oldAddresses: set(res("u", "q"), res("v", "x"), res("w", "p")), newAddresses: set(res("v", "n")),
			want: []string{"policies +n", "workloads -w", "policies +p", "workloads +v -u"},
		}, {
			name:        "equal versions are not sent",
			oldPolicies: set(res("p", "1")), newPolicies: set(res("p", "1")),
			oldAddresses: set(res("w", "x")), newAddresses: set(res("w", "x")),
		}, {
			name:         "a workload that ends is removed",
			oldAddresses: set(res("v", ""), res("w", "x")), newAddresses: set(res("w", "x")),
			want: []string{"workloads -v"},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, order := range [][]string{{TypeAuthorization, TypeAddress}, {TypeAddress, TypeAuthorization}} {
				got := steps(order, map[string]*Delta{
					TypeAuthorization: diff(TypeAuthorization, tt.oldPolicies, tt.newPolicies, narrows),
					TypeAddress:       diff(TypeAddress, tt.oldAddresses, tt.newAddresses, narrows),
				}, func(typ, _ string) bool { return typ == TypeAuthorization }, ServerConfig{Late: narrows, Moves: moves, StandIns: standIns})
				if d := cmp.Diff(tt.want, say(got)); d != "" {
					t.Errorf("asked in order %v:\n%s", order, d)
				}
			}
		})
	}
}

func TestWhatRefersToAddressesComesAfterThemAndLeavesBefore(t *testing.T) {
	guard := func(_, name string) bool { return strings.HasPrefix(name, "guard") }
	deltas := map[string]*Delta{
		TypeWaypoint: diff(TypeWaypoint, set(res("route1", ""), res("guard1", "")), set(res("route2", ""), res("guard2", "")), nil),
		TypeAddress:  diff(TypeAddress, set(res("v", "")), set(res("w", "")), nil),
	}
	for _, order := range [][]string{{TypeWaypoint, TypeAddress}, {TypeAddress, TypeWaypoint}} {
		want := []string{"waypoint +guard2", "workloads +w", "waypoint +route2 -route1", "workloads -v", "waypoint -guard1"}
		if d := cmp.Diff(want, say(steps(order, deltas, guard, ServerConfig{}))); d != "" {
			t.Errorf("asked in order %v:\n%s", order, d)
		}
	}
}

func TestUnversionedResourcesAreAlwaysSentAgain(t *testing.T) {
	d := diffVersions(TypeAddress, map[string]string{"a": "", "b": "1", "gone": "1"}, set(res("a", ""), res("b", "1"), res("c", "1")), nil, nil)
	got := say([]response{{typ: TypeAddress, upserts: d.Upserts, removed: d.Removed}})
	if d := cmp.Diff([]string{"workloads +a +c -gone"}, got); d != "" {
		t.Error(d)
	}
}

func TestSameStepIsComputedOnce(t *testing.T) {
	calls := 0
	d := differ{late: func(string, *Resource, *Resource) bool { calls++; return false }}
	old, new := set(res("w", "1")), set(res("w", "2"))
	for range 3 {
		d.delta(TypeAddress, old, new)
	}
	if calls != 1 {
		t.Errorf("compared %d times, want 1", calls)
	}
	if got := d.delta(TypeAddress, new, new); !got.empty() || len(d.last) != 1 {
		t.Errorf("a step to itself is %v and remembered", got)
	}
	for range 3 * remembered {
		d.delta(TypeAddress, set(res("w", "1")), new)
	}
	if len(d.last) > remembered {
		t.Errorf("remembers %d steps, want at most %d", len(d.last), remembered)
	}
	d.delta(TypeAddress, nil, old)
	d.delta(TypeAddress, nil, new)
	for _, s := range d.last {
		if s.old == nil && identical(s.new, old) {
			t.Error("remembers a step to a set that is over")
		}
	}
}

func TestBackoffDoublesToItsCap(t *testing.T) {
	var b backoff
	prev := time.Duration(0)
	for i := range 20 {
		d := b.next()
		if d < prev || d < firstPause || d > maxPause {
			t.Fatalf("pause %d is %v after %v", i, d, prev)
		}
		prev = b.last
	}
	if prev != maxPause {
		t.Errorf("after 20 failures the pause is %v, want %v", prev, maxPause)
	}
	b.reset()
	if d := b.next(); d > firstPause+firstPause/5+1 {
		t.Errorf("after a reset the pause is %v, want about %v", d, firstPause)
	}
}

func TestRejectionTextIsBounded(t *testing.T) {
	if got, want := rejections([]Rejection{{"a", errors.New("no ip")}, {"b", errors.New("bad port")}}), "a: no ip; b: bad port"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	var many []Rejection
	for i := range 10_000 {
		many = append(many, Rejection{fmt.Sprintf("cluster1//Pod/ns/é%d", i), errors.New("unparsable")})
	}
	got := rejections(many)
	if len(got) > maxReason+100 || !strings.Contains(got, "more") {
		t.Errorf("%d bytes ending in %q", len(got), got[len(got)-30:])
	}
}
