package translate

import (
	"cmp"
	"maps"
	"reflect"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/istiod-lite/objects"
)

// Translator translates a set again and again, and redoes only what changed
// objects touch. What comes out the same keeps its pointer, so that later
// stages see what changed by comparing pointers. It belongs to one goroutine.
type Translator struct {
	// seen is the objects as they were at the last Update.
	seen objects.Set

	podsIn      groups[string]                  // by namespace
	podsOn      groups[string]                  // by node
	slicesOf    groups[objects.Key]             // by service
	slicesOn    groups[string]                  // by node, those that make workloads
	slicesOfPod lists[objects.Key, objects.Key] // that name a pod
	peersIn     groups[string]                  // PeerAuthentications by namespace
	waypoints   waypoints
	screening   screening
	entries     entries

	serviceSelectors selectors
	policySelectors  selectors
	peerSelectors    selectors

	strictMesh       bool
	strictNamespaces map[string]bool // of the namespaces with a mode of their own

	workloads  published[string, *mesh.Workload]
	services   published[mesh.ServiceKey, *mesh.Service]
	policies   published[mesh.PolicyKey, *mesh.Policy]
	conditions map[objects.Ref][]Condition
	fromSlice  map[objects.Key][]string // UIDs made of a slice
	peerings   map[objects.Key]peering  // by PeerAuthentication
	alone      map[mesh.ServiceKey]map[mesh.ServiceKey][]mesh.Port
	toldRefs   []objects.Ref // whom conditions are of, sorted; nil when stale
	listed     []Condition   // conditions, sorted; nil when stale
	details    published[objects.Ref, *Detail]

	routing
	traffic traffic
	guarding
}

// New makes a Translator that has seen nothing.
func New() *Translator {
	t := &Translator{}
	t.forget()
	return t
}

func (t *Translator) forget() {
	*t = Translator{
		podsIn: groups[string]{}, podsOn: groups[string]{}, slicesOf: groups[objects.Key]{}, slicesOn: groups[string]{},
		slicesOfPod: lists[objects.Key, objects.Key]{}, peersIn: groups[string]{}, waypoints: newWaypoints(), screening: newScreening(), entries: newEntries(),
		serviceSelectors: selectors{}, policySelectors: selectors{}, peerSelectors: selectors{},
		strictNamespaces: map[string]bool{}, conditions: map[objects.Ref][]Condition{},
		fromSlice: map[objects.Key][]string{}, peerings: map[objects.Key]peering{}, alone: map[mesh.ServiceKey]map[mesh.ServiceKey][]mesh.Port{},
		// What came out before is kept to keep the pointers of what does not change.
		workloads: t.workloads, services: t.services, policies: t.policies,
		routing: newRouting(t.routes), traffic: newTraffic(t.traffic.out), guarding: newGuarding(t.authentications),
	}
}

// Update translates the set. changed names every object that was put, deleted
// or replaced since the last Update; nil means that anything may have been.
// The result is not touched by later Updates.
func (t *Translator) Update(set objects.Set, changed []objects.Ref) (mesh.Model, []Condition) {
	set.Mesh = set.Mesh.WithDefaults()
	if changed == nil || !reflect.DeepEqual(set.Mesh, t.seen.Mesh) {
		t.rebuild(set)
	} else {
		d := newDirty()
		for _, ref := range changed {
			t.see(set, ref, d)
		}
		t.redo(d)
	}
	if t.listed == nil {
		t.listed = t.list()
	}
	m := mesh.Model{
		Workloads: t.workloads.publish(), Services: t.services.publish(), Policies: t.policies.publish(),
		Routes: t.routes.publish(), Traffic: t.traffic.out.publish(), Authentications: t.authentications.publish(),
	}
	return m, t.listed
}

// rebuild looks at everything, and drops what no object makes any more.
func (t *Translator) rebuild(set objects.Set) {
	t.forget()
	t.seen.Mesh = set.Mesh
	t.workloads.begin()
	t.services.begin()
	t.policies.begin()
	t.routes.begin()
	t.traffic.out.begin()
	t.authentications.begin()
	d := newDirty()
	set.Each(func(ref objects.Ref, _ any) { t.see(set, ref, d) })
	t.redo(d)
	t.workloads.end()
	t.services.end()
	t.policies.end()
	t.routes.end()
	t.traffic.out.end()
	t.authentications.end()
}

// list makes the list of all conditions, sorted by object; those of one object
// stay in the order they were told in.
func (t *Translator) list() []Condition {
	if t.toldRefs == nil {
		t.toldRefs = slices.SortedFunc(maps.Keys(t.conditions), compareRefs)
	}
	n := 0
	for _, all := range t.conditions {
		n += len(all)
	}
	out := make([]Condition, 0, n)
	for _, ref := range t.toldRefs {
		out = append(out, t.conditions[ref]...)
	}
	return out
}

func compareRefs(a, b objects.Ref) int {
	return cmp.Or(
		strings.Compare(string(a.Kind), string(b.Kind)),
		strings.Compare(a.Key.Namespace, b.Key.Namespace), strings.Compare(a.Key.Name, b.Key.Name))
}

// dirty is what must be made anew.
type dirty struct {
	pods, services, slices, policies, peers, gateways, screens map[objects.Key]bool

	levels  bool // namespace-wide PeerAuthentication
	routes  dirtyRoutes
	guards  dirtyGuards
	entries map[string]bool // namespaces whose ServiceEntries are made anew
	traffic dirtyTraffic
}

func newDirty() *dirty {
	return &dirty{
		pods: map[objects.Key]bool{}, services: map[objects.Key]bool{}, slices: map[objects.Key]bool{},
		policies: map[objects.Key]bool{}, peers: map[objects.Key]bool{}, gateways: map[objects.Key]bool{}, screens: map[objects.Key]bool{},
		routes: newDirtyRoutes(), entries: map[string]bool{}, traffic: newDirtyTraffic(),
		guards: dirtyGuards{redo: map[objects.Ref]bool{}},
	}
}

// redo makes it, each thing once.
func (t *Translator) redo(d *dirty) {
	if d.levels {
		t.redoLevels(d)
	}
	for k := range d.policies {
		t.redoPolicy(k, d)
	}
	for k := range d.peers {
		t.redoPeer(k)
	}
	t.redoStrict()
	for k := range d.gateways {
		t.redoWaypoint(k, d)
	}
	t.drawRoutes(d)
	for k := range d.services {
		t.redoService(k)
		d.traffic.services[serviceKey(t.seen.Mesh, k)] = true
	}
	if len(d.entries) > 0 {
		t.allocate()
	}
	for ns := range d.entries {
		d.traffic.mark(t.entries.services[ns])
		t.redoEntries(ns)
		d.traffic.mark(t.entries.services[ns])
	}
	t.redoGuards(d)
	t.finishRoutes(d)
	t.redoTraffic(&d.traffic)
	maps.Copy(d.screens, d.services)
	for k := range d.screens {
		t.redoScreen(k, d)
	}
	for k := range d.slices {
		t.redoSlice(k)
	}
	for k := range d.pods {
		t.redoPod(k)
	}
}

func (t *Translator) redoService(k objects.Key) {
	var out *mesh.Service
	ref := objects.Ref{Kind: objects.KindService, Key: k}
	s := t.seen.Services[k]
	b := t.bindService(k, s)
	if s != nil {
		out = meshService(t.seen.Mesh, s, t.seen.Namespaces[objects.Key{Name: k.Namespace}])
		t.tell(ref, b.condition(ref, s.Generation)...)
	} else {
		t.tell(ref)
	}
	if out == nil {
		key := serviceKey(t.seen.Mesh, k)
		if _, claimed := t.entries.owner[key]; !claimed {
			t.dropService(key)
		}
		return
	}
	out.Waypoint = b.Address
	t.services.put(out.Key(), out)
}

func (t *Translator) redoSlice(k objects.Key) {
	var uids []string
	if s := t.seen.EndpointSlices[k]; s != nil {
		svc := t.seen.Services[sliceService(s)]
		if svc != nil && svc.Spec.Type != corev1.ServiceTypeExternalName {
			for _, w := range sliceWorkloads(t.seen.Mesh, svc, s, t.locality) {
				t.workloads.put(w.UID, w)
				uids = append(uids, w.UID)
			}
		}
	}
	for _, uid := range t.fromSlice[k] {
		if !slices.Contains(uids, uid) {
			t.workloads.del(uid)
		}
	}
	delete(t.fromSlice, k)
	if len(uids) > 0 {
		t.fromSlice[k] = uids
	}
}

func (t *Translator) redoPod(k objects.Key) {
	uid := podUID(t.seen.Mesh.ClusterID, k)
	pod := t.seen.Pods[k]
	b := t.bindPod(k, pod)
	var w *mesh.Workload
	if pod != nil {
		w = podWorkload(t.seen.Mesh, pod, t.locality(pod.Spec.NodeName))
	}
	if w == nil {
		t.workloads.del(uid)
		return
	}
	w.Settings.Transport = transportOf(t.seen.Mesh, t.seen.Namespaces[objects.Key{Name: k.Namespace}], pod)
	t.datagrams(w, k, pod)
	w.Waypoint = b.Address
	w.Services = t.servicesOf(pod)
	w.Policies = t.policiesOf(pod, w.Services)
	t.workloads.put(uid, w)
}

// datagrams says whether a pod's UDP is the mesh's, and at which ports it takes
// what is sent to its services. A pod that speaks HBONE itself is not captured. Its
// proxy is told before its peers: these may come only when its node captures it.
func (t *Translator) datagrams(w *mesh.Workload, k objects.Key, pod *corev1.Pod) {
	namespace := t.seen.Namespaces[objects.Key{Name: k.Namespace}]
	w.Settings.CaptureDatagrams = !w.NativeTunnel && mesh.Datagrams(pod.Labels, labelsOf(namespace))
	w.Settings.Datagrams = w.Settings.CaptureDatagrams && w.Tunnel == mesh.TunnelHBONE && pod.Annotations[mesh.DatagramsAnnotation] == "enabled"
	w.Settings.NamedDatagramPorts = t.namedDatagramPorts(pod)
}

// namedDatagramPorts are the ports of UDP that a pod serves of services that name
// them, sorted.
func (t *Translator) namedDatagramPorts(pod *corev1.Pod) (out []mesh.NamedPort) {
	for _, k := range t.serviceSelectors.find(pod.Namespace, pod.Labels) {
		for _, p := range podDatagramPorts(t.seen.Services[k], pod) {
			out = append(out, mesh.NamedPort{Of: serviceKey(t.seen.Mesh, k), Service: p.Service, Target: p.Target})
		}
	}
	slices.SortFunc(out, func(a, b mesh.NamedPort) int {
		return cmp.Or(strings.Compare(a.Of.String(), b.Of.String()), cmp.Compare(a.Service, b.Service))
	})
	return out
}

func (t *Translator) locality(node string) mesh.Locality {
	return localityOf(t.seen.Nodes[objects.Key{Name: node}])
}

// servicesOf are the services that select a pod, and those without a selector
// whose slices name it.
func (t *Translator) servicesOf(pod *corev1.Pod) map[mesh.ServiceKey][]mesh.Port {
	out := map[mesh.ServiceKey][]mesh.Port{}
	for _, k := range t.serviceSelectors.find(pod.Namespace, pod.Labels) {
		out[serviceKey(t.seen.Mesh, k)] = podPorts(t.seen.Services[k], pod)
	}
	for _, k := range t.slicesOfPod[objects.Key{Namespace: pod.Namespace, Name: pod.Name}] {
		slice := t.seen.EndpointSlices[k]
		svc := t.seen.Services[sliceService(slice)]
		if svc == nil || len(svc.Spec.Selector) > 0 || svc.Spec.Type == corev1.ServiceTypeExternalName {
			continue
		}
		key := serviceKey(t.seen.Mesh, sliceService(slice))
		if _, ok := out[key]; !ok { // dual stack has a slice for each family
			out[key] = slicePorts(svc, slice)
		}
	}
	t.addEntries(pod, out)
	if len(out) == 0 {
		return nil
	}
	return t.alike(out)
}

// alike gives what the last pod had that served the same service alone, if the
// ports are the same too: most pods of a service share one map.
func (t *Translator) alike(services map[mesh.ServiceKey][]mesh.Port) map[mesh.ServiceKey][]mesh.Port {
	if len(services) > 1 {
		return services
	}
	for k, ports := range services {
		if last, ok := t.alone[k]; ok && slices.Equal(last[k], ports) {
			return last
		}
		t.alone[k] = services
	}
	return services
}

// dropService is for one that is gone.
func (t *Translator) dropService(k mesh.ServiceKey) {
	t.services.del(k)
	delete(t.alone, k)
}

// policiesOf are the keys of the selector policies that apply to a pod of these
// services, sorted.
func (t *Translator) policiesOf(pod *corev1.Pod, services map[mesh.ServiceKey][]mesh.Port) []mesh.PolicyKey {
	var out []mesh.PolicyKey
	namespaces := []string{pod.Namespace}
	if root := t.seen.Mesh.RootNamespace; root != pod.Namespace {
		namespaces = append(namespaces, root)
	}
	for _, ns := range namespaces {
		for _, k := range t.policySelectors.find(ns, pod.Labels) {
			key := mesh.PolicyKey{Namespace: k.Namespace, Name: k.Name}
			if p := t.policies.get(key); p != nil && p.Scope == mesh.ScopeSelector {
				out = append(out, key)
			}
		}
	}
	out = append(out, t.peerPoliciesOf(pod)...)
	out = append(out, t.screensOf(services)...)
	slices.SortFunc(out, func(a, b mesh.PolicyKey) int { return strings.Compare(a.String(), b.String()) })
	return out
}

func (t *Translator) redoPolicy(k objects.Key, d *dirty) {
	ref := objects.Ref{Kind: objects.KindAuthorizationPolicy, Key: k}
	d.guards.redo[ref] = true
	if len(t.refsOf(ref)) > 0 {
		return // redoGuards has it, once targets can be looked up
	}
	key := mesh.PolicyKey{Namespace: k.Namespace, Name: k.Name}
	var p *mesh.Policy
	var c *Condition
	if ap := t.seen.AuthorizationPolicies[k]; ap != nil {
		p, c = authorization(t.seen.Mesh, ap)
	}
	if p == nil {
		t.policies.del(key)
	} else {
		t.policies.put(key, p)
	}
	t.tell(ref, told(c)...)
}

// tell replaces what an object's owner is told.
func (t *Translator) tell(ref objects.Ref, all ...Condition) {
	was := t.conditions[ref]
	if slices.Equal(was, all) {
		return
	}
	if (len(was) == 0) != (len(all) == 0) {
		t.toldRefs = nil
	}
	if len(all) == 0 {
		delete(t.conditions, ref)
	} else {
		t.conditions[ref] = all
	}
	t.listed = nil
}

// told are the conditions of an object with one at most.
func told(c *Condition) []Condition {
	if c == nil {
		return nil
	}
	return []Condition{*c}
}
