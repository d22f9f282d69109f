package translate

import (
	"maps"

	security "istio.io/client-go/pkg/apis/security/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/istiod-lite/objects"
)

// oldestPeer is the PeerAuthentication that counts for a whole namespace.
func (t *Translator) oldestPeer(namespace string) *security.PeerAuthentication {
	var found *security.PeerAuthentication
	for k := range t.peersIn[namespace] {
		pa := t.seen.PeerAuthentications[k]
		if !hasSelector(pa) && (found == nil || older(pa, found) < 0) {
			found = pa
		}
	}
	return found
}

// strictIn reports whether a namespace's workloads refuse plaintext unless
// they say otherwise themselves.
func (t *Translator) strictIn(namespace string) bool {
	if strict, own := t.strictNamespaces[namespace]; own {
		return strict
	}
	return t.strictMesh
}

// redoLevels finds the modes of the mesh and of namespaces, and marks what is
// in those whose mode came out different.
func (t *Translator) redoLevels(d *dirty) {
	before := map[string]bool{}
	for ns := range t.podsIn {
		before[ns] = t.strictIn(ns)
	}
	for ns := range t.peersIn {
		before[ns] = t.strictIn(ns)
	}
	root := t.seen.Mesh.RootNamespace
	t.strictMesh, t.strictNamespaces = false, map[string]bool{}
	for ns := range t.peersIn {
		pa := t.oldestPeer(ns)
		if pa == nil || modeOf(pa.Spec.GetMtls()) == modeUnset {
			continue
		}
		strict := modeOf(pa.Spec.GetMtls()) == modeStrict
		if ns == root {
			t.strictMesh = strict
		} else {
			t.strictNamespaces[ns] = strict
		}
	}
	for ns, was := range before {
		if was != t.strictIn(ns) {
			maps.Copy(d.pods, t.podsIn[ns])
			maps.Copy(d.peers, t.peersIn[ns])
		}
	}
}

// redoPeer makes the policy of a workload's PeerAuthentication.
func (t *Translator) redoPeer(k objects.Key) {
	key := mesh.PolicyKey{Namespace: k.Namespace, Name: convertedPrefix + k.Name}
	ref := objects.Ref{Kind: objects.KindPeerAuthentication, Key: k}
	pa := t.seen.PeerAuthentications[k]
	delete(t.peerings, k)
	if pa == nil {
		t.policies.del(key)
		t.tell(ref)
		return
	}
	t.tell(ref, told(peerCondition(t.seen.Mesh, pa))...)
	if len(t.peerSelector(pa)) == 0 {
		t.policies.del(key)
		return
	}
	p := peeringOf(pa, t.strictIn(k.Namespace))
	t.peerings[k] = p
	if p.own == nil {
		t.policies.del(key)
	} else {
		t.policies.put(key, p.own)
	}
}

// redoStrict keeps the policy of strict workloads while there is any
// PeerAuthentication at all, as upstream does.
func (t *Translator) redoStrict() {
	if len(t.seen.PeerAuthentications) == 0 {
		t.policies.del(strictPolicyKey(t.seen.Mesh))
		return
	}
	t.policies.put(strictPolicyKey(t.seen.Mesh), strictPolicy(t.seen.Mesh))
}

// peerPoliciesOf are the policies that peer authentication attaches to a pod.
func (t *Translator) peerPoliciesOf(pod *corev1.Pod) []mesh.PolicyKey {
	var oldest *security.PeerAuthentication
	for _, k := range t.peerSelectors.find(pod.Namespace, pod.Labels) {
		if pa := t.seen.PeerAuthentications[k]; oldest == nil || older(pa, oldest) < 0 {
			oldest = pa
		}
	}
	p := peering{strict: t.strictIn(pod.Namespace)}
	if oldest != nil {
		p = t.peerings[objects.Key{Namespace: oldest.Namespace, Name: oldest.Name}]
	}
	var out []mesh.PolicyKey
	if p.strict {
		out = append(out, strictPolicyKey(t.seen.Mesh))
	}
	if p.own != nil {
		out = append(out, p.own.Key)
	}
	return out
}
