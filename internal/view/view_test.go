package view

import (
	"context"
	"errors"
	"net/netip"
	"reflect"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/internal/wire"
	"github.com/ambit-mesh/ambit/internal/xds"
)

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

// pod is an enrolled pod of namespace "ns".
func pod(name, ip string, services ...mesh.ServiceKey) *mesh.Workload {
	w := &mesh.Workload{
		UID: "c//Pod/ns/" + name, Name: name, Namespace: "ns", TrustDomain: "td", ServiceAccount: name, ClusterID: "c",
		Addresses: []netip.Addr{addr(ip)}, Tunnel: mesh.TunnelHBONE, Capacity: 1,
	}
	for _, k := range services {
		if w.Services == nil {
			w.Services = map[mesh.ServiceKey][]mesh.Port{}
		}
		w.Services[k] = []mesh.Port{{Service: 80, Target: 8080}}
	}
	return w
}

func service(ns, host string, vips ...string) *mesh.Service {
	s := &mesh.Service{Name: host, Namespace: ns, Hostname: host}
	for _, v := range vips {
		if !strings.Contains(v, "/") {
			a := addr(v)
			s.Addresses = append(s.Addresses, mesh.NetworkPrefix{Prefix: netip.PrefixFrom(a, a.BitLen())})
		} else {
			s.Addresses = append(s.Addresses, mesh.NetworkPrefix{Prefix: netip.MustParsePrefix(v)})
		}
	}
	return s
}

func newPolicy(ns, name string, scope mesh.PolicyScope) *mesh.Policy {
	return &mesh.Policy{Key: mesh.PolicyKey{Namespace: ns, Name: name}, Scope: scope}
}

// upsert is a response that carries the objects.
func upsert(objects ...any) []xds.Update {
	a, p := xds.Update{Type: xds.TypeAddress}, xds.Update{Type: xds.TypeAuthorization}
	for _, o := range objects {
		switch o := o.(type) {
		case *mesh.Workload:
			a.Upserts = append(a.Upserts, xds.Resource{Name: o.UID, Body: wire.MarshalWorkload(o)})
		case *mesh.Service:
			a.Upserts = append(a.Upserts, xds.Resource{Name: o.Key().String(), Body: wire.MarshalService(o)})
		case *mesh.Policy:
			p.Upserts = append(p.Upserts, xds.Resource{Name: o.Key.String(), Body: wire.MarshalPolicy(o)})
		}
	}
	return []xds.Update{p, a}
}

func receive(t *testing.T, s *Store, updates ...xds.Update) {
	t.Helper()
	for _, u := range updates {
		if r := s.Receive(context.Background(), u); len(r) > 0 {
			t.Fatalf("rejected: %v", r)
		}
	}
}

func names(list []Endpoint) []string {
	var out []string
	for _, e := range list {
		out = append(out, e.Workload.Name)
	}
	return out
}

func TestLookups(t *testing.T) {
	key := mesh.ServiceKey{Namespace: "ns", Hostname: "web"}
	host := pod("host", "172.18.0.2", key)
	host.NetworkMode = mesh.NetworkHost
	far := pod("far", "10.0.0.1")
	far.Network = "far"
	s := NewStore()
	receive(t, s, upsert(pod("b", "10.0.0.2", key), pod("a", "10.0.0.1", key), host, far, service("ns", "web", "10.96.0.1"))...)
	v := s.View()
	for _, tt := range []struct {
		sentence string
		got      *mesh.Workload
		want     string
	}{
		{"a pod by its address", v.WorkloadByAddress("", addr("10.0.0.1")), "a"},
		{"a pod by its address in IPv6 form", v.WorkloadByAddress("", addr("::ffff:10.0.0.1")), "a"},
		{"a pod of another network has another address", v.WorkloadByAddress("far", addr("10.0.0.1")), "far"},
		{"an unknown address", v.WorkloadByAddress("", addr("10.0.0.9")), ""},
		{"a host-network pod is not found by its address", v.WorkloadByAddress("", addr("172.18.0.2")), ""},
		{"a host-network pod is found by its name", v.Workload("c//Pod/ns/host"), "host"},
		{"a pod by its account", v.WorkloadByAccount("ns", "a", "a"), "a"},
		{"a pod under another account", v.WorkloadByAccount("ns", "a", "b"), ""},
	} {
		name := ""
		if tt.got != nil {
			name = tt.got.Name
		}
		if name != tt.want {
			t.Errorf("%s: got %q, want %q", tt.sentence, name, tt.want)
		}
	}
	if d := cmp.Diff([]string{"a", "b", "host"}, names(v.Endpoints(key))); d != "" {
		t.Errorf("endpoints (-want +got):\n%s", d)
	}
	if len(v.Workloads()) != 4 || len(v.Services()) != 1 {
		t.Errorf("%d workloads and %d services are listed, want 4 and 1", len(v.Workloads()), len(v.Services()))
	}
}

func TestWhoClaimsAnAddress(t *testing.T) {
	entry := func(name string, tunnel mesh.TunnelProtocol) *mesh.Workload {
		w := pod(name, "10.0.0.1")
		w.UID, w.Tunnel = "c/networking.istio.io/WorkloadEntry/ns/"+name, tunnel
		return w
	}
	s := NewStore()
	find := func() string {
		if w := s.View().WorkloadByAddress("", addr("10.0.0.1")); w != nil {
			return w.Name
		}
		return ""
	}
	for _, step := range []struct {
		sentence string
		update   xds.Update
		want     string
	}{
		{"whoever is there", upsert(entry("plain", mesh.TunnelNone))[1], "plain"},
		{"one that speaks HBONE comes first", upsert(entry("tunnel", mesh.TunnelHBONE))[1], "tunnel"},
		{"a pod comes first", upsert(pod("pod", "10.0.0.1"))[1], "pod"},
		{"a pod that moves away leaves it", upsert(pod("pod", "10.0.0.2"))[1], "tunnel"},
		{"one that goes leaves it", xds.Update{Type: xds.TypeAddress, Removed: []string{entry("tunnel", 0).UID}}, "plain"},
	} {
		receive(t, s, step.update)
		if got := find(); got != step.want {
			t.Errorf("%s: got %q, want %q", step.sentence, got, step.want)
		}
	}
}

func TestWhichServiceAnAddressMeans(t *testing.T) {
	canonical := service("k8s", "web", "10.96.0.1", "10.97.0.0/16")
	canonical.Canonical = true
	secret := service("aaa-secret", "web", "10.96.0.1", "10.98.0.1")
	secret.NamespaceOnly = true
	s := NewStore()
	receive(t, s, upsert(canonical, secret, service("b", "web", "10.96.0.1", "10.97.1.0/24", "0.0.0.0/0"), service("c", "web", "10.97.0.0/16", "fd00::/8"))...)
	v := s.View()
	for _, tt := range []struct {
		sentence, address, client, want string
	}{
		{"of the client's own namespace", "10.96.0.1", "b", "b"},
		{"else the canonical one", "10.96.0.1", "x", "k8s"},
		{"one that shows itself to its own namespace only", "10.98.0.1", "aaa-secret", "aaa-secret"},
		{"and not to others, so the block around it is meant", "10.98.0.1", "x", "b"},
		{"the longest block", "10.97.1.1", "x", "b"},
		{"a block of the client's own namespace beats a longer one", "10.97.1.1", "c", "c"},
		{"the canonical one between equal blocks", "10.97.2.1", "x", "k8s"},
		{"a block of everything", "192.0.2.1", "x", "b"},
		{"an IPv6 block", "fd00::1", "x", "c"},
		{"no IPv4 block holds an IPv6 address", "fe00::1", "x", ""},
	} {
		got := ""
		if found := v.ServiceByVIP("", addr(tt.address), tt.client); found != nil {
			got = found.Namespace
		}
		if got != tt.want {
			t.Errorf("%s: %s from %s is of %q, want %q", tt.sentence, tt.address, tt.client, got, tt.want)
		}
	}
	if v.ServiceByVIP("other", addr("10.96.0.1"), "b") != nil || v.ServiceByVIP("", netip.Addr{}, "b") != nil {
		t.Error("a service was found by an address of another network, or none")
	}
	for client, want := range map[string]string{"b": "b", "x": "k8s", "aaa-secret": "aaa-secret"} {
		if got := v.ServiceByHostname("web", client); got == nil || got.Namespace != want {
			t.Errorf("hostname web from %s is %v, want one of %s", client, got, want)
		}
	}
	if v.ServiceByHostname("nothing", "b") != nil {
		t.Error("a service was found by a hostname that nobody has")
	}
}

func TestArrivalInAnyOrderAndRemoval(t *testing.T) {
	key := mesh.ServiceKey{Namespace: "ns", Hostname: "web"}
	s := NewStore()
	receive(t, s, upsert(pod("a", "10.0.0.1", key))...)
	if v := s.View(); v.Service(key) != nil || len(v.Endpoints(key)) != 1 {
		t.Error("an endpoint does not wait for its service")
	}
	receive(t, s, upsert(service("ns", "web", "10.96.0.1"))...)
	receive(t, s, upsert(service("ns", "web", "10.96.0.2"))...)
	v := s.View()
	if v.ServiceByVIP("", addr("10.96.0.1"), "ns") != nil || v.ServiceByVIP("", addr("10.96.0.2"), "ns") == nil || len(v.Endpoints(key)) != 1 {
		t.Error("a replaced service keeps an address, or loses its endpoints")
	}
	receive(t, s, xds.Update{Type: xds.TypeAddress, Removed: []string{"ns/web", "nothing", "ns/nothing", "a/b/c"}})
	if v = s.View(); v.Service(key) != nil || v.ServiceByVIP("", addr("10.96.0.2"), "ns") != nil || len(v.Endpoints(key)) != 1 {
		t.Error("a removed service is still there, or took its endpoints along")
	}
	receive(t, s, xds.Update{Type: xds.TypeAddress, Removed: []string{"c//Pod/ns/a"}})
	if v = s.View(); v.Workload("c//Pod/ns/a") != nil || v.WorkloadByAddress("", addr("10.0.0.1")) != nil ||
		v.WorkloadByAccount("ns", "a", "a") != nil || len(v.Endpoints(key)) != 0 {
		t.Error("a removed workload is still there")
	}
}

func TestAViewNeverChanges(t *testing.T) {
	key := mesh.ServiceKey{Namespace: "ns", Hostname: "web"}
	s := NewStore()
	receive(t, s, upsert(pod("a", "10.0.0.1", key), pod("c", "10.0.0.3", key), service("ns", "web", "10.96.0.1"), newPolicy("ns", "p", mesh.ScopeNamespace))...)
	old := s.View()
	select {
	case <-old.Superseded():
		t.Fatal("the current view says that it is old")
	default:
	}
	receive(t, s, upsert(pod("b", "10.0.0.1", key), service("ns", "web", "10.96.0.9"))...)
	receive(t, s, xds.Update{Type: xds.TypeAddress, Removed: []string{"c//Pod/ns/a"}}, xds.Update{Type: xds.TypeAuthorization, Removed: []string{"ns/p"}})
	select {
	case <-old.Superseded():
	default:
		t.Error("an old view does not say so")
	}
	if d := cmp.Diff([]string{"a", "c"}, names(old.Endpoints(key))); d != "" {
		t.Errorf("endpoints of the old view (-want +got):\n%s", d)
	}
	a := old.Workload("c//Pod/ns/a")
	if a == nil || old.WorkloadByAddress("", addr("10.0.0.1")) != a || old.ServiceByVIP("", addr("10.96.0.1"), "") == nil || len(old.Policies(a).Policies) != 1 {
		t.Error("an old view changed")
	}
	if d := cmp.Diff([]string{"b", "c"}, names(s.View().Endpoints(key))); d != "" {
		t.Errorf("endpoints of the new view (-want +got):\n%s", d)
	}
}

func TestWhichPoliciesApply(t *testing.T) {
	w := pod("a", "10.0.0.1")
	w.Policies = []mesh.PolicyKey{{Namespace: "ns", Name: "listed"}, {Namespace: "root", Name: "missing"}, {Namespace: "ns", Name: "mine"}, {Namespace: "other", Name: "theirs"}}
	s := NewStore()
	receive(t, s, upsert(w, newPolicy("root", "all", mesh.ScopeGlobal), newPolicy("ns", "mine", mesh.ScopeNamespace), newPolicy("other", "theirs", mesh.ScopeNamespace),
		newPolicy("other", "elsewhere", mesh.ScopeNamespace), newPolicy("ns", "listed", mesh.ScopeSelector), newPolicy("ns", "unlisted", mesh.ScopeSelector))...)
	set := s.View().Policies(w)
	var got []string
	for _, p := range set.Policies {
		got = append(got, p.Key.String())
	}
	if d := cmp.Diff([]string{"root/all", "ns/mine", "ns/listed", "other/theirs"}, got); d != "" {
		t.Errorf("policies (-want +got):\n%s", d)
	}
	if d := cmp.Diff([]mesh.PolicyKey{{Namespace: "root", Name: "missing"}}, set.Unknown); d != "" {
		t.Errorf("unknown (-want +got):\n%s", d)
	}
	if n := len(s.View().AllPolicies()); n != 6 {
		t.Errorf("%d policies are listed, want 6", n)
	}
}

func TestWhatIsRejectedNeverOpens(t *testing.T) {
	bad := func(name string) xds.Update {
		return xds.Update{Type: xds.TypeAuthorization, Upserts: []xds.Resource{{Name: name, Body: []byte{0xff}}}}
	}
	listed := pod("listed", "10.0.0.1")
	listed.Policies = []mesh.PolicyKey{{Namespace: "ns", Name: "p"}}
	other := pod("other", "10.0.0.2")
	other.Namespace = "elsewhere"
	s := NewStore()
	receive(t, s, upsert(listed, other, newPolicy("ns", "p", mesh.ScopeSelector))...)
	unknown := func(w *mesh.Workload) int { return len(s.View().Policies(w).Unknown) }

	if r := s.Receive(context.Background(), bad("ns/p")); len(r) != 1 || r[0].Name != "ns/p" || r[0].Reason == nil {
		t.Fatalf("a policy that is no message was not rejected: %v", r)
	}
	if unknown(listed) == 0 {
		t.Error("a policy that is not understood does not close the pod that lists it")
	}
	if unknown(other) != 0 {
		t.Error("a policy that is not understood closes another namespace")
	}
	if _, err := s.View().Policy(mesh.PolicyKey{Namespace: "ns", Name: "p"}); err == nil {
		t.Error("the view does not say what is wrong with the policy")
	}
	receive(t, s, upsert(newPolicy("ns", "p", mesh.ScopeSelector))...)
	if set := s.View().Policies(listed); len(set.Unknown) != 0 || len(set.Policies) != 1 {
		t.Error("a policy that is understood again still closes")
	}
	s.Receive(context.Background(), bad("ns/p"))
	receive(t, s, xds.Update{Type: xds.TypeAuthorization, Removed: []string{"ns/p"}})
	receive(t, s, upsert(pod("listed", "10.0.0.1"))...)
	if unknown(s.View().Workload(listed.UID)) != 0 {
		t.Error("a policy that is gone still closes")
	}

	before := s.View()
	for _, u := range []xds.Update{
		{Type: xds.TypeAddress, Upserts: []xds.Resource{{Name: listed.UID, Body: []byte{0xff}}}},
		{Type: xds.TypeAddress, Upserts: []xds.Resource{{Name: "another/name", Body: wire.MarshalWorkload(listed)}}},
	} {
		good := pod("good", "10.0.0.3")
		u.Upserts = append(u.Upserts, xds.Resource{Name: good.UID, Body: wire.MarshalWorkload(good)})
		if r := s.Receive(context.Background(), u); len(r) != 1 || r[0].Name != u.Upserts[0].Name {
			t.Errorf("rejections %v, want %s only", r, u.Upserts[0].Name)
		}
		if v := s.View(); v.Workload(listed.UID) != before.Workload(listed.UID) || v.Workload(good.UID) == nil {
			t.Error("a rejected workload was forgotten, or took others of its response along")
		}
	}
	if r := s.Receive(context.Background(), xds.Update{Type: "later", Upserts: []xds.Resource{{Name: "x"}}, Removed: []string{"y"}}); len(r) != 0 {
		t.Errorf("a type of a later protocol was rejected: %v", r)
	}
}

func TestPolicyEpochTellsWhetherToJudgeAgain(t *testing.T) {
	s := NewStore()
	receive(t, s, upsert(pod("a", "10.0.0.1"))...)
	before := s.View()
	receive(t, s, upsert(pod("b", "10.0.0.2"))...)
	if v := s.View(); v.PolicyEpoch() != before.PolicyEpoch() || v.Generation() == before.Generation() || v.Workload("c//Pod/ns/a") != before.Workload("c//Pod/ns/a") {
		t.Error("another pod's arrival looks like a change of policy")
	}
	receive(t, s, upsert(newPolicy("ns", "p", mesh.ScopeNamespace))...)
	if s.View().PolicyEpoch() == before.PolicyEpoch() {
		t.Error("a policy's arrival does not change the epoch")
	}
	was := s.View()
	receive(t, s, xds.Update{Type: xds.TypeAuthorization, Removed: []string{"nothing/here"}})
	if s.View() != was {
		t.Error("a response that changes nothing made a new view")
	}
}

func TestReplace(t *testing.T) {
	s := NewStore()
	receive(t, s, upsert(pod("old", "10.0.0.1"))...)
	before := s.View()
	p := newPolicy("ns", "p", mesh.ScopeNamespace)
	svc := service("ns", "web", "10.96.0.1")
	w := pod("new", "10.0.0.2", svc.Key())
	s.Replace(mesh.Model{
		Workloads: map[string]*mesh.Workload{w.UID: w}, Services: map[mesh.ServiceKey]*mesh.Service{svc.Key(): svc}, Policies: map[mesh.PolicyKey]*mesh.Policy{p.Key: p},
	})
	v := s.View()
	if len(v.Workloads()) != 1 || v.Workload(w.UID) != w || v.Service(svc.Key()) != svc || len(v.Policies(w).Policies) != 1 {
		t.Error("the model is not what the view holds")
	}
	if v.Generation() <= before.Generation() || v.PolicyEpoch() == before.PolicyEpoch() {
		t.Error("the new view does not come after the old one")
	}
	<-before.Superseded()
}

func TestWaitingForALocalWorkload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewStore()
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		type result struct {
			w   *mesh.Workload
			err error
		}
		got := make(chan result, 2)
		wait := func(name string) {
			w, err := s.Local(ctx, "ns", name, name)
			got <- result{w, err}
		}
		go wait("a")
		go wait("never")
		time.Sleep(2 * time.Second)
		receive(t, s, upsert(pod("other", "10.0.0.2"))...)
		receive(t, s, upsert(pod("a", "10.0.0.1"))...)
		if r := <-got; r.err != nil || r.w.Name != "a" {
			t.Errorf("waiting gave %v, %v", r.w, r.err)
		}
		if r := <-got; !errors.Is(r.err, context.DeadlineExceeded) || !strings.Contains(r.err.Error(), "ns/never") {
			t.Errorf("waiting in vain gave %v, %v", r.w, r.err)
		}
	})
}

func TestReadersAndTheWriterAtOnce(t *testing.T) {
	key := mesh.ServiceKey{Namespace: "ns", Hostname: "web"}
	s := NewStore()
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				v := s.View()
				for _, e := range v.Endpoints(key) {
					if v.Workload(e.Workload.UID) != e.Workload || v.WorkloadByAddress("", e.Workload.Addresses[0]) == nil {
						t.Error("a view disagrees with itself")
						return
					}
				}
			}
		})
	}
	for i := range 300 {
		name := string(rune('a' + i%7))
		receive(t, s, upsert(pod(name, "10.0.0."+string(rune('1'+i%5)), key), service("ns", "web", "10.96.0.1"))...)
		if i%3 == 0 {
			receive(t, s, xds.Update{Type: xds.TypeAddress, Removed: []string{"c//Pod/ns/" + name}})
		}
	}
	close(stop)
	wg.Wait()
}

func TestTableSharesWhatItDoesNotChange(t *testing.T) {
	e := editing(table[int, int]{})
	for i := range 5000 {
		e.put(i, i)
	}
	old := e.table
	next := editing(old)
	next.put(7, 8)
	next.del(9)
	next.del(99999)
	shared := 0
	for i := range old.part {
		if reflect.ValueOf(old.part[i]).Pointer() == reflect.ValueOf(next.part[i]).Pointer() {
			shared++
		}
	}
	if shared < parts-2 {
		t.Errorf("two changes copied %d of %d parts", parts-shared, parts)
	}
	if old.get(7) != 7 || next.get(7) != 8 || old.get(9) != 9 || next.get(9) != 0 || old.n != 5000 || next.n != 4999 {
		t.Error("a change shows in the old table, or not in the new one")
	}
}
