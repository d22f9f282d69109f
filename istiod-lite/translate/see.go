package translate

import (
	"maps"
	"reflect"

	security "istio.io/client-go/pkg/apis/security/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	gateway "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/ambit-mesh/ambit/istiod-lite/objects"
)

// see takes note of one object that may have changed: it updates the indexes
// and marks what depends on it.
func (t *Translator) see(set objects.Set, ref objects.Ref, d *dirty) {
	k := ref.Key
	switch ref.Kind {
	case objects.KindPod:
		if old, now, changed := swap(&t.seen.Pods, set.Pods, k); changed {
			t.seePod(k, old, now, d)
		}
	case objects.KindNode:
		old, now, _ := swap(&t.seen.Nodes, set.Nodes, k)
		if localityOf(old) != localityOf(now) { // a heartbeat changes nothing
			maps.Copy(d.pods, t.podsOn[k.Name])
			maps.Copy(d.slices, t.slicesOn[k.Name])
		}
	case objects.KindNamespace:
		old, now, _ := swap(&t.seen.Namespaces, set.Namespaces, k)
		t.seeNamespace(k, old, now, d)
	case objects.KindService:
		if old, now, changed := swap(&t.seen.Services, set.Services, k); changed {
			t.seeService(k, old, now, d)
		}
	case objects.KindEndpointSlice:
		if old, now, changed := swap(&t.seen.EndpointSlices, set.EndpointSlices, k); changed {
			t.seeSlice(k, old, now, d)
		}
	case objects.KindAuthorizationPolicy:
		if old, now, changed := swap(&t.seen.AuthorizationPolicies, set.AuthorizationPolicies, k); changed {
			t.seePolicy(k, old, now, d)
		}
	case objects.KindPeerAuthentication:
		if old, now, changed := swap(&t.seen.PeerAuthentications, set.PeerAuthentications, k); changed {
			t.seePeer(k, old, now, d)
		}
	case objects.KindGateway:
		if old, now, changed := swap(&t.seen.Gateways, set.Gateways, k); changed {
			t.seeGateway(k, old, now, d)
			t.seeAimedGateway(old, now, d)
		}
	case objects.KindGatewayClass:
		if _, _, changed := swap(&t.seen.GatewayClasses, set.GatewayClasses, k); changed {
			t.seeClass(k, d)
		}
	case objects.KindXMesh:
		if _, now, changed := swap(&t.seen.XMeshes, set.XMeshes, k); changed {
			t.seeMesh(k, now)
		}
	case objects.KindHTTPRoute:
		seeRoute(&t.seen.HTTPRoutes, set.HTTPRoutes, ref, func(r *gateway.HTTPRoute) any { return r.Spec }, d)
	case objects.KindGRPCRoute:
		seeRoute(&t.seen.GRPCRoutes, set.GRPCRoutes, ref, func(r *gateway.GRPCRoute) any { return r.Spec }, d)
	case objects.KindTLSRoute:
		seeRoute(&t.seen.TLSRoutes, set.TLSRoutes, ref, func(r *gateway.TLSRoute) any { return r.Spec }, d)
	case objects.KindTCPRoute:
		seeRoute(&t.seen.TCPRoutes, set.TCPRoutes, ref, func(r *gateway.TCPRoute) any { return r.Spec }, d)
	case objects.KindServiceEntry:
		if old, now, changed := swap(&t.seen.ServiceEntries, set.ServiceEntries, k); changed {
			t.seeEntry(k, old, now, d)
		}
	case objects.KindDestinationRule:
		if _, _, changed := swap(&t.seen.DestinationRules, set.DestinationRules, k); changed {
			d.traffic.destinations[k] = true
		}
	case objects.KindXBackendTrafficPolicy:
		if _, _, changed := swap(&t.seen.XBackendTrafficPolicies, set.XBackendTrafficPolicies, k); changed {
			d.traffic.retryPolicies[k] = true
		}
	case objects.KindRequestAuthentication:
		if old, now, changed := swap(&t.seen.RequestAuthentications, set.RequestAuthentications, k); changed {
			t.seeAuthentication(k, old, now, d)
		}
	case objects.KindKeySet:
		if _, _, changed := swap(&t.seen.KeySets, set.KeySets, k); changed {
			t.seeKeySet(k, d)
		}
	case objects.KindMesh:
	}
}

// swap makes the new object the seen one. Nil stands for none.
func swap[T any](seen *map[objects.Key]*T, set map[objects.Key]*T, k objects.Key) (old, now *T, changed bool) {
	old, now = (*seen)[k], set[k]
	switch {
	case now == nil:
		delete(*seen, k)
	case *seen == nil:
		*seen = map[objects.Key]*T{k: now}
	default:
		(*seen)[k] = now
	}
	return old, now, old != now
}

func (t *Translator) seePod(k objects.Key, old, now *corev1.Pod, d *dirty) {
	d.pods[k] = true
	for _, pod := range []*corev1.Pod{old, now} {
		if pod != nil {
			t.seeScreened(pod, d)
		}
	}
	if old != nil {
		t.podsIn.del(k.Namespace, k)
		t.podsOn.del(old.Spec.NodeName, k)
		t.seeInstance(k, old, t.waypoints.pods.del, d)
	}
	if now != nil {
		t.podsIn.put(k.Namespace, k)
		t.podsOn.put(now.Spec.NodeName, k)
		t.seeInstance(k, now, t.waypoints.pods.put, d)
	}
}

func (t *Translator) seeNamespace(k objects.Key, old, now *corev1.Namespace, d *dirty) {
	says := func(ns *corev1.Namespace) (map[string]string, [2]string) {
		if ns == nil {
			return nil, [2]string{}
		}
		return ns.Labels, [2]string{ns.Annotations[annotationDistribution], ns.Annotations[annotationMissing]}
	}
	wasLabels, was := says(old)
	nowLabels, is := says(now)
	if was == is && maps.Equal(wasLabels, nowLabels) {
		return
	}
	t.markEntries(k.Name, d)
	maps.Copy(d.pods, t.podsIn[k.Name])
	for s := range t.seen.Services {
		if s.Namespace == k.Name {
			d.services[s] = true
		}
	}
}

// seeInstance indexes a pod by the Gateway whose waypoint it is of, if any.
func (t *Translator) seeInstance(k objects.Key, pod *corev1.Pod, index func(objects.Key, objects.Key), d *dirty) {
	if name := pod.Labels[labelGatewayName]; name != "" {
		g := objects.Key{Namespace: k.Namespace, Name: name}
		index(g, k)
		d.gateways[g] = true
	}
}

func (t *Translator) seeGateway(k objects.Key, old, now *gateway.Gateway, d *dirty) {
	d.gateways[k] = true
	t.seeRouteGateway(k, old, now, d)
	if old != nil {
		t.waypoints.ofClass.del(string(old.Spec.GatewayClassName), k)
	}
	if now != nil {
		t.waypoints.ofClass.put(string(now.Spec.GatewayClassName), k)
	}
}

// seeClass marks the Gateways of a class.
func (t *Translator) seeClass(k objects.Key, d *dirty) {
	for g := range t.waypoints.ofClass[k.Name] {
		d.gateways[g] = true
		for r := range t.routesOfGateway[g] {
			d.routes.draw[r] = true
		}
	}
	t.tellClass(k)
}

// podSelector is how a service finds its pods; nil if it does not.
func podSelector(s *corev1.Service) map[string]string {
	if s == nil || s.Spec.Type == corev1.ServiceTypeExternalName {
		return nil
	}
	return s.Spec.Selector
}

func (t *Translator) seeService(k objects.Key, old, now *corev1.Service, d *dirty) {
	d.services[k] = true
	d.gateways[k] = true // a waypoint's service has its name
	t.seeRouteService(k, old, now, d)
	if old == nil || now == nil || old.Spec.Type != now.Spec.Type {
		t.markEntries(k.Namespace, d)
	}
	t.serviceSelectors.del(k, podSelector(old))
	t.serviceSelectors.put(k, podSelector(now))
	if old != nil && now != nil && old.Spec.Type == now.Spec.Type &&
		maps.Equal(old.Spec.Selector, now.Spec.Selector) && reflect.DeepEqual(old.Spec.Ports, now.Spec.Ports) {
		return
	}
	t.markSelected(k.Namespace, podSelector(old), d)
	t.markSelected(k.Namespace, podSelector(now), d)
	for s := range t.slicesOf[k] {
		d.slices[s] = true
		for _, pod := range slicePods(t.seen.EndpointSlices[s]) {
			d.pods[pod] = true
		}
	}
}

// markSelected marks the pods of a namespace that a selector matches.
func (t *Translator) markSelected(namespace string, selector map[string]string, d *dirty) {
	if len(selector) == 0 {
		return
	}
	for k := range t.podsIn[namespace] {
		if matches(selector, t.seen.Pods[k].Labels) {
			d.pods[k] = true
		}
	}
}

func (t *Translator) seeSlice(k objects.Key, old, now *discoveryv1.EndpointSlice, d *dirty) {
	d.slices[k] = true
	if old != nil {
		d.screens[sliceService(old)] = true
		t.slicesOf.del(sliceService(old), k)
		t.eachEndpoint(k, old, t.slicesOn.del, t.slicesOfPod.del, d)
	}
	if now != nil {
		d.screens[sliceService(now)] = true
		t.slicesOf.put(sliceService(now), k)
		t.eachEndpoint(k, now, t.slicesOn.put, t.slicesOfPod.put, d)
	}
}

// eachEndpoint indexes a slice by its pods and nodes. Only a service without a
// selector has its pods by slices, so only there do pods depend on them.
func (t *Translator) eachEndpoint(k objects.Key, s *discoveryv1.EndpointSlice,
	node func(string, objects.Key), pod func(objects.Key, objects.Key), d *dirty,
) {
	selected := len(podSelector(t.seen.Services[sliceService(s)])) > 0
	for i := range s.Endpoints {
		e := &s.Endpoints[i]
		if p, ok := isPod(s, e); ok {
			pod(p, k)
			if !selected {
				d.pods[p] = true
			}
		} else if e.NodeName != nil {
			node(*e.NodeName, k)
		}
	}
}

func (t *Translator) seePolicy(k objects.Key, old, now *security.AuthorizationPolicy, d *dirty) {
	d.policies[k] = true
	ref := objects.Ref{Kind: objects.KindAuthorizationPolicy, Key: k}
	t.seeAims(ref, guards(old), t.screening.aimedAt.del, d)
	t.seeAims(ref, guards(now), t.screening.aimedAt.put, d)
	var before, after map[string]string
	if old != nil {
		before = old.Spec.GetSelector().GetMatchLabels()
	}
	if now != nil {
		after = now.Spec.GetSelector().GetMatchLabels()
	}
	t.policySelectors.del(k, before)
	t.policySelectors.put(k, after)
	namespaces := []string{k.Namespace}
	if k.Namespace == t.seen.Mesh.RootNamespace {
		namespaces = namespaces[:0]
		for ns := range t.podsIn {
			namespaces = append(namespaces, ns)
		}
	}
	for _, ns := range namespaces {
		t.markSelected(ns, before, d)
		t.markSelected(ns, after, d)
	}
}

// peerSelector is how a PeerAuthentication finds its pods; nil if it speaks of
// a whole namespace. In the root namespace selectors have no effect.
func (t *Translator) peerSelector(pa *security.PeerAuthentication) map[string]string {
	if pa == nil || pa.Namespace == t.seen.Mesh.RootNamespace {
		return nil
	}
	return pa.Spec.GetSelector().GetMatchLabels()
}

func (t *Translator) seePeer(k objects.Key, old, now *security.PeerAuthentication, d *dirty) {
	d.peers[k] = true
	if old != nil {
		t.peersIn.del(k.Namespace, k)
	}
	if now != nil {
		t.peersIn.put(k.Namespace, k)
	}
	before, after := t.peerSelector(old), t.peerSelector(now)
	t.peerSelectors.del(k, before)
	t.peerSelectors.put(k, after)
	t.markSelected(k.Namespace, before, d)
	t.markSelected(k.Namespace, after, d)
	d.levels = d.levels || old != nil && !hasSelector(old) || now != nil && !hasSelector(now)
}
