package scenario

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	api "istio.io/api/security/v1beta1"
	corev1 "k8s.io/api/core/v1"

	"github.com/ambit-mesh/ambit/e2e/suite"
	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/internal/policy"
	"github.com/ambit-mesh/ambit/internal/spiffe"
	"github.com/ambit-mesh/ambit/internal/view"
	"github.com/ambit-mesh/ambit/internal/xds"
	"github.com/ambit-mesh/ambit/istiod-lite/objects"
	"github.com/ambit-mesh/ambit/istiod-lite/push"
	"github.com/ambit-mesh/ambit/istiod-lite/snapshot"
	"github.com/ambit-mesh/ambit/istiod-lite/translate"
	"github.com/ambit-mesh/ambit/ztunnel/route"
)

// tally is what comes out of many states.
type tally struct {
	states, steps, asked, admitted int
	// closer are connections that we deny and the strict reading admits, wider
	// those that upstream admits, looser those that upstream denies and we admit; by
	// each reason that has a part in it.
	closer, wider, looser map[string]int
}

func newTally() *tally {
	return &tally{closer: map[string]int{}, wider: map[string]int{}, looser: map[string]int{}}
}

func (t *tally) add(o *tally) {
	t.states, t.steps, t.asked, t.admitted = t.states+o.states, t.steps+o.steps, t.asked+o.asked, t.admitted+o.admitted
	for to, from := range map[*map[string]int]map[string]int{&t.closer: o.closer, &t.wider: o.wider, &t.looser: o.looser} {
		for k, n := range from {
			(*to)[k] += n
		}
	}
}

// TestNoStateAdmitsWhatTheOracleDenies goes through random states of policies and
// pods by the Translator, the snapshot, its steps in their order, a proxy's view
// and its decisions. Nothing that the oracle denies is admitted at rest, nor between
// the steps what it denies in every order of the changes: a single change opens
// nothing on its way that is closed before and after it. What is denied beyond the
// oracle is counted by its reason.
func TestNoStateAdmitsWhatTheOracleDenies(t *testing.T) {
	const chainLength = 125
	chains := suite.Times(5000, 100000) / chainLength
	total := newTally()
	var mu sync.Mutex
	var workers sync.WaitGroup
	next := make(chan uint64)
	for range runtime.GOMAXPROCS(0) {
		workers.Go(func() {
			for seed := range next {
				c := newStates(t, seed).begun()
				for range chainLength {
					if !c.step() {
						break
					}
				}
				mu.Lock()
				total.add(c.tally)
				mu.Unlock()
			}
		})
	}
	for range chains {
		next <- rand.Uint64()
	}
	close(next)
	workers.Wait()
	total.report(t)
	total.mixed(t)
}

func (t *tally) report(tt *testing.T) {
	tt.Logf("%d states, %d views between and at rest, %d connections asked about: %d admitted, 0 that the oracle denies", t.states, t.steps, t.asked, t.admitted)
	for name, classes := range map[string]map[string]int{
		"denied, though the strict reading admits": t.closer, "denied, though upstream admits": t.wider, "admitted, though upstream denies": t.looser,
	} {
		for _, k := range slices.Sorted(maps.Keys(classes)) {
			tt.Logf("%s, with a part in it: %s: %d times", name, k, classes[k])
		}
	}
	if t.asked == 0 {
		tt.Error("no connection was asked about")
	}
}

// mixed is an error if nearly all is admitted, or nearly nothing. One chain of
// states may well be so; all together are not.
func (t *tally) mixed(tt *testing.T) {
	if share := 100 * t.admitted / max(1, t.asked); !tt.Failed() && (share < 15 || share > 85) {
		tt.Errorf("%d%% are admitted: the states are too much alike to prove anything", share)
	}
}

// states is one chain of them.
type states struct {
	t          *testing.T
	seed       uint64
	a          author
	set        objects.Set
	translator *translate.Translator
	sent       *snapshot.Ztunnel
	store      *view.Store
	tally      *tally
	// deliver brings the proxy to a model in another way than settle does.
	deliver func(m mesh.Model, between func())
}

func newStates(t *testing.T, seed uint64) *states {
	s := &states{
		t: t, seed: seed, a: author{rand.New(rand.NewPCG(seed, 0))}, translator: translate.New(), store: view.NewStore(), tally: newTally(),
		set: objects.Set{Mesh: objects.MeshConfig{TrustDomain: "td"}.WithDefaults()},
	}
	s.translator.Update(s.set, nil)
	for range 12 {
		s.a.change(&s.set)
	}
	return s
}

// begun is s with the first state at its proxy.
func (s *states) begun() *states {
	s.settle(nil, func() {})
	return s
}

// settle brings the proxy to the set, and lets between look at every view on the
// way.
func (s *states) settle(changed []objects.Ref, between func()) {
	model, _ := s.translator.Update(s.set, changed)
	if s.deliver != nil {
		s.deliver(model, between)
		return
	}
	next := snapshot.ForZtunnels(s.sent, model)
	updates := snapshot.Diff(s.sent, next)
	s.sent = next
	for _, u := range updates {
		for _, r := range s.store.Receive(s.t.Context(), u) {
			s.t.Errorf("seed %d: the proxy rejects %s: %v", s.seed, r.Name, r.Reason)
		}
		between()
	}
}

// step changes the world and follows connections through it; false ends the chain.
func (s *states) step() bool {
	before := copyOf(s.set)
	changed := s.a.change(&s.set)
	now := world{copyOf(s.set), strict}
	asked := s.connections(before)
	orders := between(before, now.Set, changed)
	ok := true
	s.settle(changed, func() {
		s.tally.steps++
		v := s.store.View()
		for _, c := range asked {
			may := func(w world) bool { return w.judges(c) && w.admits(c) }
			if decided(v, c) == admitted && !slices.ContainsFunc(orders, may) {
				ok = s.wrong(fmt.Sprintf("between the steps after %v", changed), c, now)
			}
		}
	})
	s.tally.states++
	v := s.store.View()
	for _, c := range asked {
		if !now.judges(c) {
			continue
		}
		s.tally.asked++
		got, want := decided(v, c) == admitted, now.admits(c)
		if got {
			s.tally.admitted++
		}
		if got && !want {
			ok = s.wrong("at rest", c, now)
		}
		up := world{now.Set, upstream}.admits(c)
		if got == up && got == want {
			continue
		}
		class := now.class(c, s.verdict(c))
		count := func(classes map[string]int) {
			for _, kind := range class {
				classes[kind]++
			}
		}
		switch {
		case !got && want:
			count(s.tally.closer)
		case !got && up:
			count(s.tally.wider)
		case got && !up:
			count(s.tally.looser)
		}
		if len(class) == 0 {
			ok = s.wrong("for no reason that is documented", c, now)
		}
	}
	return ok && s.services(v, now)
}

func (s *states) wrong(when string, c arrival, now world) bool {
	s.t.Errorf("seed %d state %d: %s %s → %s %s: the view says %s; admitted by the oracle: %v, by upstream: %v\n%s", s.seed, s.tally.states, when, who(c), c.pod, c.to,
		decided(s.store.View(), c), now.judges(c) && now.admits(c), now.judges(c) && world{now.Set, upstream}.admits(c), now.describe(c))
	return false
}

func who(c arrival) string {
	if c.id.IsZero() {
		return c.from.String() + " in clear"
	}
	return c.id.String()
}

// between are the worlds on the way from one set to another, in whatever order its
// changes are made.
func between(before, now objects.Set, changed []objects.Ref) (out []world) {
	for subset := range 1 << len(changed) {
		set := copyOf(before)
		for i, ref := range changed {
			if subset&(1<<i) != 0 {
				take(&set, now, ref)
			}
		}
		out = append(out, world{set, strict})
	}
	return out
}

// take makes one object what it is in another set.
func take(set *objects.Set, from objects.Set, ref objects.Ref) {
	var o any
	switch ref.Kind {
	case objects.KindMesh:
		o = from.Mesh
	case objects.KindPod:
		o = orNil(from.Pods[ref.Key])
	case objects.KindAuthorizationPolicy:
		o = orNil(from.AuthorizationPolicies[ref.Key])
	case objects.KindPeerAuthentication:
		o = orNil(from.PeerAuthentications[ref.Key])
	case objects.KindService:
		o = orNil(from.Services[ref.Key])
	}
	if o == nil {
		set.Delete(ref)
	} else if _, err := set.Put(o); err != nil {
		panic(err) // it is out of a set
	}
}

func orNil[T any](p *T) any {
	if p == nil {
		return nil
	}
	return p
}

// copyOf is the set as it is; its objects are never changed in place.
func copyOf(s objects.Set) objects.Set {
	s.Pods, s.Services = maps.Clone(s.Pods), maps.Clone(s.Services)
	s.AuthorizationPolicies, s.PeerAuthentications = maps.Clone(s.AuthorizationPolicies), maps.Clone(s.PeerAuthentications)
	return s
}

// judges reports whether a connection meets a proxy at all.
func (w world) judges(c arrival) bool { return captured(w.Pods[c.pod]) }

func captured(p *corev1.Pod) bool {
	return p != nil && p.Annotations["ambient.istio.io/redirection"] == "enabled"
}

// connections are some of those that could arrive.
func (s *states) connections(before objects.Set) []arrival {
	pods := map[objects.Key]*corev1.Pod{}
	maps.Copy(pods, before.Pods)
	maps.Copy(pods, s.set.Pods)
	keys := sorted(pods)
	var out []arrival
	for _, k := range keys {
		ip := netip.MustParseAddr(pods[k].Status.PodIPs[0].IP)
		for range 4 {
			c := arrival{pod: k, to: netip.AddrPortFrom(ip, uint16(8080+s.a.IntN(3)))}
			from := pods[keys[s.a.IntN(len(keys))]]
			c.from = netip.MustParseAddr(from.Status.PodIPs[0].IP)
			switch s.a.IntN(8) {
			case 0:
				c.from = netip.MustParseAddr("192.0.2.7")
			case 1, 2:
			default:
				c.id = spiffe.ID{TrustDomain: s.a.of("td", "td", "td", "old", "far"), Namespace: from.Namespace, ServiceAccount: from.Spec.ServiceAccountName}
			}
			out = append(out, c)
		}
	}
	return out
}

func sorted[T any](m map[objects.Key]T) []objects.Key {
	return slices.SortedFunc(maps.Keys(m), func(a, b objects.Key) int { return strings.Compare(a.String(), b.String()) })
}

type outcome string

const (
	admitted outcome = "admitted"
	denied   outcome = "denied"
	// absent is a pod without a proxy.
	absent outcome = "absent"
)

// record is a pod as the proxy knows it, if it does.
func record(v *view.View, pod objects.Key) *mesh.Workload {
	return v.Workload("Kubernetes//Pod/" + pod.String())
}

// decided is what the proxy of the pod does with a connection.
func decided(v *view.View, c arrival) outcome {
	w := record(v, c.pod)
	if w == nil || w.Tunnel != mesh.TunnelHBONE {
		return absent
	}
	in := route.InboundRequest{ConnDst: c.to, SourceIP: c.from}
	if !c.id.IsZero() {
		in.Authority, in.ConnDst, in.Source = c.to.String(), netip.AddrPortFrom(c.to.Addr(), 15008), c.id
	}
	if route.Inbound(v, w, in).Status == 200 {
		return admitted
	}
	return denied
}

// verdict is that of the pod's proxy, if it gave one.
func (s *states) verdict(c arrival) policy.Verdict {
	v := s.store.View()
	w := record(v, c.pod)
	if w == nil {
		return policy.Verdict{}
	}
	return route.Judge(v, w, policy.Connection{Source: c.id, SourceIP: c.from, Destination: c.to})
}

// class is why others may see a connection otherwise: the troubles of the policy
// that denies it; of every ALLOW, if none matches; or of all that apply.
func (w world) class(c arrival, v policy.Verdict) []string {
	found := map[string]bool{}
	for _, ap := range w.applying(c.pod) {
		deny := ap.Spec.GetAction() == api.AuthorizationPolicy_DENY
		if v.Cause == policy.CauseDenied && v.Policy != (mesh.PolicyKey{Namespace: ap.Namespace, Name: ap.Name}) || v.Cause == policy.CauseNotAllowed && deny {
			continue
		}
		for _, r := range ap.Spec.GetRules() {
			for _, kind := range troubles(ap, r) {
				found[map[bool]string{true: "DENY", false: "ALLOW"}[deny]+" with "+kind] = true
			}
		}
		if c.id.TrustDomain == "old" || c.id.TrustDomain == "td" && (len(w.Mesh.TrustDomainAliases) > 0 || namesDefault(ap.Spec.GetRules())) {
			found[aliases] = true
		}
	}
	return slices.Sorted(maps.Keys(found))
}

// namesDefault reports whether rules speak of cluster.local, which is the mesh's
// trust domain here and another one upstream.
func namesDefault(rules []*api.Rule) bool {
	return strings.Contains(fmt.Sprint(rules), "cluster.local")
}

func (w world) describe(c arrival) string {
	var b strings.Builder
	show := func(what string, o any) {
		text, _ := json.Marshal(o)
		fmt.Fprintf(&b, "%s %s\n", what, text)
	}
	if p := w.Pods[c.pod]; p != nil {
		show("pod", p.ObjectMeta)
	}
	for _, ap := range w.applying(c.pod) {
		show("policy", ap)
	}
	for _, pa := range w.PeerAuthentications {
		if pa.Namespace == c.pod.Namespace || pa.Namespace == w.Mesh.RootNamespace {
			show("peers", pa)
		}
	}
	return b.String()
}

// services: what a pod dials by a service's address ends at an endpoint that the
// service has now, at its port.
func (s *states) services(v *view.View, w world) bool {
	// In an order: a seed makes the same chain each time.
	for _, k := range sorted(w.Services) {
		svc := w.Services[k]
		for _, from := range sorted(w.Pods) {
			if !captured(w.Pods[from]) || s.a.IntN(6) > 0 {
				continue
			}
			src := record(v, from)
			if src == nil {
				s.t.Errorf("seed %d: %s is not known", s.seed, from)
				return false
			}
			d := route.Outbound(v, src, netip.AddrPortFrom(netip.MustParseAddr(svc.Spec.ClusterIP), 80), rand.IntN, nil)
			eligible := w.endpoints(k)
			if (d.Kind == route.Refuse) != (len(eligible) == 0) || d.Kind != route.Refuse && !slices.Contains(eligible, d.Endpoint) {
				s.t.Errorf("seed %d state %d: %s leads to %v %v (%s), want one of %v", s.seed, s.tally.states, k, d.Kind, d.Endpoint, d.Reason, eligible)
				return false
			}
		}
	}
	return true
}

// endpoints are those that a service may lead to.
func (w world) endpoints(k objects.Key) (out []netip.AddrPort) {
	svc := w.Services[k]
	for _, p := range w.Pods {
		ready := p.Status.Conditions[0].Status == corev1.ConditionTrue
		if p.Namespace == k.Namespace && selects(svc.Spec.Selector, p.Labels) && (ready || svc.Spec.PublishNotReadyAddresses) {
			out = append(out, netip.AddrPortFrom(netip.MustParseAddr(p.Status.PodIPs[0].IP), uint16(svc.Spec.Ports[0].TargetPort.IntVal)))
		}
	}
	return out
}

// TestNoStateAdmitsWhatTheOracleDeniesOverXDS is the same with the real control
// plane's pusher and the real client, which order and cut the responses as they
// like.
func TestNoStateAdmitsWhatTheOracleDeniesOverXDS(t *testing.T) {
	s := newStates(t, rand.Uint64())
	pusher := push.New(push.Config{Logger: slog.New(slog.DiscardHandler)})
	w := &onTheWay{Store: s.store}
	connect(t, pusher, w)
	s.deliver = func(m mesh.Model, between func()) {
		w.mu.Lock()
		w.look = between
		w.mu.Unlock()
		pusher.Publish(m, time.Now())
		m = ofZtunnels(m)
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		if _, err := s.store.Wait(ctx, func(v *view.View) bool { return cmp.Equal(m, held(v), same...) }); err != nil {
			t.Fatalf("seed %d: the proxy does not come to hold the model: %v\n%s", s.seed, err, cmp.Diff(m, held(s.store.View()), same...))
		}
		w.mu.Lock()
		w.look = nil
		w.mu.Unlock()
	}
	s.begun() // by the client too, or it would never know what it has to let go of
	for range suite.Times(150, 5000) {
		if !s.step() {
			break
		}
	}
	s.tally.report(t)
}

// onTheWay looks at the store after each response.
type onTheWay struct {
	*view.Store
	mu   sync.Mutex
	look func()
}

// Receive implements xds.Receiver.
func (w *onTheWay) Receive(ctx context.Context, u xds.Update) []xds.Rejection {
	w.mu.Lock()
	defer w.mu.Unlock()
	rejected := w.Store.Receive(ctx, u)
	if w.look != nil {
		w.look()
	}
	return rejected
}
