package snapshot

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/internal/wire"
	"github.com/ambit-mesh/ambit/internal/xds"
	"github.com/ambit-mesh/ambit/istiod-lite/objects"
	"github.com/ambit-mesh/ambit/istiod-lite/translate"
	"github.com/ambit-mesh/ambit/istiod-lite/translate/translatetest"
)

func TestWhatDoesNotChangeIsNotMadeAgain(t *testing.T) {
	set := translatetest.Cluster(300)
	tr := translate.New()
	m, _ := tr.Update(set, nil)
	before := ForZtunnels(nil, m)
	if n := len(before.Types[xds.TypeAddress]); n != 300+30 {
		t.Fatalf("%d addresses, want 330", n)
	}
	for name, r := range before.Types[xds.TypeAddress] {
		if r.Name != name || r.Version == "" || len(r.Body) == 0 {
			t.Fatalf("resource %q is %+v", name, r)
		}
	}
	ref := translatetest.ToggleReady(&set, 7)
	m, _ = tr.Update(set, []objects.Ref{ref})
	after := ForZtunnels(before, m)
	var changed []string
	for name, r := range after.Types[xds.TypeAddress] {
		if before.Types[xds.TypeAddress][name] != r {
			changed = append(changed, name)
		}
	}
	want := []string{"Kubernetes//Pod/" + translatetest.PodKey(7).String()}
	if d := cmp.Diff(want, changed); d != "" {
		t.Errorf("resources made again (-want +got):\n%s", d)
	}
	steps := Diff(before, after)
	if len(steps) != 1 || len(steps[0].Upserts) != 1 || steps[0].Upserts[0].Name != want[0] {
		t.Errorf("the steps are %v, want one with the pod", describe(steps))
	}
	// A set translated anew has other pointers, but nothing to send.
	again, _ := translate.Translate(set)
	if steps := Diff(after, ForZtunnels(after, again)); len(steps) != 0 {
		t.Errorf("equal models differ by %v", describe(steps))
	}
}

func TestEqualModelsHaveEqualVersions(t *testing.T) {
	a, _ := translate.Translate(translatetest.Cluster(100))
	b, _ := translate.Translate(translatetest.Cluster(100))
	x, y := ForZtunnels(nil, a), ForZtunnels(nil, b)
	for typ := range x.Types {
		for name, r := range x.Types[typ] {
			if other := y.Types[typ][name]; other == nil || other.Version != r.Version {
				t.Errorf("%s %s has another version in another replica", typ, name)
			}
		}
	}
}

func describe(steps []xds.Update) []string {
	var out []string
	for _, u := range steps {
		var names []string
		for _, r := range u.Upserts {
			names = append(names, "+"+r.Name)
		}
		for _, n := range u.Removed {
			names = append(names, "-"+n)
		}
		out = append(out, fmt.Sprintf("%s %s", u.Type[strings.LastIndexByte(u.Type, '.')+1:], strings.Join(names, " ")))
	}
	return out
}

func TestOrderOfSteps(t *testing.T) {
	policy := func(name string, scope mesh.PolicyScope) *mesh.Policy {
		return &mesh.Policy{Key: mesh.PolicyKey{Namespace: "n", Name: name}, Scope: scope}
	}
	deny := func(name string) *mesh.Policy {
		p := policy(name, mesh.ScopeSelector)
		p.Action = mesh.ActionDeny
		return p
	}
	workload := func(name string, policies ...string) *mesh.Workload {
		w := &mesh.Workload{UID: name, Network: "net", Capacity: 1, Hostname: name}
		for _, p := range policies {
			w.Policies = append(w.Policies, mesh.PolicyKey{Namespace: "n", Name: p})
		}
		return w
	}
	model := func(objects ...any) mesh.Model {
		m := mesh.Model{Workloads: map[string]*mesh.Workload{}, Policies: map[mesh.PolicyKey]*mesh.Policy{}}
		for _, o := range objects {
			switch o := o.(type) {
			case *mesh.Workload:
				m.Workloads[o.UID] = o
			case *mesh.Policy:
				m.Policies[o.Key] = o
			}
		}
		return m
	}
	for _, tt := range []struct {
		sentence string
		old, new *mesh.Model
		want     []string
	}{
		{"the first state has both types, even if empty", nil, ptr(model()), []string{"Authorization ", "Address "}},
		{"policies come before the workloads that name them", nil, ptr(model(workload("w", "p"), policy("p", mesh.ScopeSelector))), []string{"Authorization +n/p", "Address +w"}},
		{
			"policies go after the workloads that named them",
			ptr(model(workload("w", "p"), policy("p", mesh.ScopeSelector))), ptr(model(workload("w"))),
			[]string{"Address +w", "Authorization -n/p"},
		},
		{
			"a policy that comes to apply by name waits for the names",
			ptr(model(workload("w"), policy("p", mesh.ScopeNamespace))), ptr(model(workload("w", "p"), policy("p", mesh.ScopeSelector))),
			[]string{"Address +w", "Authorization +n/p"},
		},
		{
			"a policy that comes to apply to all comes first",
			ptr(model(workload("w", "p"), policy("p", mesh.ScopeSelector))), ptr(model(workload("w"), policy("p", mesh.ScopeGlobal))),
			[]string{"Authorization +n/p", "Address +w"},
		},
		{
			"all at once",
			ptr(model(workload("a", "x"), workload("b"), policy("x", mesh.ScopeSelector), policy("y", mesh.ScopeNamespace))),
			ptr(model(workload("a", "y", "z"), policy("y", mesh.ScopeSelector), policy("z", mesh.ScopeSelector))),
			[]string{"Authorization +n/z", "Address +a -b", "Authorization +n/y -n/x"},
		},
		{
			"a workload that goes is not judged by what its policy becomes for others",
			ptr(model(workload("a", "x"), workload("b", "y"), workload("c"), policy("x", mesh.ScopeSelector), policy("y", mesh.ScopeSelector))),
			ptr(model(workload("c", "x"), deny("x"), policy("y", mesh.ScopeSelector))),
			[]string{"Address -a", "Authorization +n/x", "Address +c -b"},
		},
		{
			"workloads that change places are judged by what was, until by what comes",
			ptr(model(workload("a", "x"), workload("b", "y"), policy("x", mesh.ScopeSelector), policy("y", mesh.ScopeSelector))),
			ptr(model(workload("a", "y"), workload("b", "x"), deny("x"), deny("y"))),
			[]string{"Authorization +n/x~before +n/y~before", "Address +a +b", "Authorization +n/x +n/y", "Address +a +b", "Authorization -n/x~before -n/y~before"},
		},
		{"nothing", ptr(model(workload("w"))), ptr(model(workload("w"))), nil},
	} {
		var old *Ztunnel
		if tt.old != nil {
			old = ForZtunnels(nil, *tt.old)
		}
		if d := cmp.Diff(tt.want, describe(Diff(old, ForZtunnels(old, *tt.new)))); d != "" {
			t.Errorf("%s (-want +got):\n%s", tt.sentence, d)
		}
	}
}

func ptr[T any](x T) *T { return &x }

func TestSingleResourcesAreFoundByAddressServiceAndNode(t *testing.T) {
	set := translatetest.Cluster(10)
	m, _ := translate.Translate(set)
	z := ForZtunnels(nil, m)
	var pod, service *xds.Resource
	for _, name := range slices.Sorted(maps.Keys(z.Types[xds.TypeAddress])) {
		if r := z.Types[xds.TypeAddress][name]; strings.Contains(name, "//Pod/") {
			pod = r
		} else {
			service = r
		}
	}
	if d := cmp.Diff([]string{"/10.200.0.0"}, service.Aliases); d != "" {
		t.Errorf("aliases of the service (-want +got):\n%s", d)
	}
	if d := cmp.Diff([]string{"/10.100.0.9"}, pod.Aliases); d != "" {
		t.Errorf("aliases of the pod (-want +got):\n%s", d)
	}
	if d := cmp.Diff([]string{service.Name, xds.NodeKey("node-0000")}, pod.Follows); d != "" {
		t.Errorf("what the pod follows (-want +got):\n%s", d)
	}
}

func TestAStandInNamesCopiesInThePlaceOfPolicies(t *testing.T) {
	p := &mesh.Policy{Key: mesh.PolicyKey{Namespace: "n", Name: "x"}, Scope: mesh.ScopeSelector, Action: mesh.ActionDeny}
	w := &mesh.Workload{UID: "w", Network: "net", Capacity: 1, Hostname: "w", Policies: []mesh.PolicyKey{p.Key, {Namespace: "n", Name: "y"}}}
	copies, standing := StandIns([]*xds.Resource{policy(p)}, []*xds.Resource{workload(w)})
	if len(copies) != 1 || len(standing) != 1 {
		t.Fatalf("%d copies, %d that stand in", len(copies), len(standing))
	}
	same, err := wire.UnmarshalPolicy(copies[0].Name, copies[0].Body)
	if err != nil || same.Action != p.Action || same.Scope != p.Scope || same.Key == p.Key {
		t.Errorf("the copy is %+v (%v)", same, err)
	}
	stands, _, err := wire.UnmarshalAddress(standing[0].Body)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]mesh.PolicyKey{same.Key, {Namespace: "n", Name: "y"}}, stands.Policies); d != "" || standing[0].Version == "" {
		t.Errorf("version %q, names:\n%s", standing[0].Version, d)
	}
}
