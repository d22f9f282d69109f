package translate

import (
	"slices"

	security "istio.io/client-go/pkg/apis/security/v1"
	gateway "sigs.k8s.io/gateway-api/apis/v1"

	typev1 "istio.io/api/type/v1beta1"

	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/istiod-lite/objects"
)

// guarding is the Translator's part for what waypoints enforce: policies and
// authentications with targets.
type guarding struct {
	authentications published[mesh.PolicyKey, *mesh.Authentication]
	// aimed are the objects with targets, as these were looked up last.
	aimed map[objects.Ref][]aim
	// keyed are the RequestAuthentications by where keys are fetched for them.
	keyed groups[string]
}

func newGuarding(authentications published[mesh.PolicyKey, *mesh.Authentication]) guarding {
	return guarding{authentications: authentications, aimed: map[objects.Ref][]aim{}, keyed: groups[string]{}}
}

// dirtyGuards is what of it must be made anew.
type dirtyGuards struct {
	redo map[objects.Ref]bool
	// look is set when targets may be found otherwise.
	look bool
}

func (t *Translator) seeAimedGateway(old, now *gateway.Gateway, d *dirty) {
	if old == nil || now == nil || old.Spec.GatewayClassName != now.Spec.GatewayClassName {
		d.guards.look = true
	}
}

func (t *Translator) seeAuthentication(k objects.Key, old, now *security.RequestAuthentication, d *dirty) {
	ref := objects.Ref{Kind: objects.KindRequestAuthentication, Key: k}
	d.guards.redo[ref] = true
	t.seeAims(ref, authenticates(old), t.screening.aimedAt.del, d)
	t.seeAims(ref, authenticates(now), t.screening.aimedAt.put, d)
	if old != nil {
		for _, r := range old.Spec.GetJwtRules() {
			t.keyed.del(objects.KeysAt(r), k)
		}
	}
	if now != nil {
		for _, r := range now.Spec.GetJwtRules() {
			t.keyed.put(objects.KeysAt(r), k)
		}
	}
}

func (t *Translator) seeKeySet(k objects.Key, d *dirty) {
	for user := range t.keyed[k.Name] {
		d.guards.redo[objects.Ref{Kind: objects.KindRequestAuthentication, Key: user}] = true
	}
}

// redoGuards makes anew what was marked, and what aims at something that is
// found otherwise than before.
func (t *Translator) redoGuards(d *dirty) {
	if d.guards.look || len(d.services) > 0 || len(d.entries) > 0 {
		for ref, old := range t.aimed {
			if !slices.Equal(t.aims(ref.Key.Namespace, t.refsOf(ref)), old) {
				d.guards.redo[ref] = true
			}
		}
	}
	for ref := range d.guards.redo {
		if refs := t.refsOf(ref); len(refs) > 0 {
			t.aimed[ref] = t.aims(ref.Key.Namespace, refs)
		} else {
			delete(t.aimed, ref)
		}
		if ref.Kind == objects.KindAuthorizationPolicy {
			t.redoGuard(ref)
		} else {
			t.redoAuthentication(ref)
		}
	}
}

// refsOf are the references of an object that has targets.
func (t *Translator) refsOf(ref objects.Ref) []*typev1.PolicyTargetReference {
	if ref.Kind == objects.KindAuthorizationPolicy {
		if ap := t.seen.AuthorizationPolicies[ref.Key]; ap != nil {
			return targetRefs(ap.Spec.GetTargetRef(), ap.Spec.GetTargetRefs())
		}
		return nil
	}
	if ra := t.seen.RequestAuthentications[ref.Key]; ra != nil {
		return targetRefs(ra.Spec.GetTargetRef(), ra.Spec.GetTargetRefs())
	}
	return nil
}

// redoGuard makes the policy of waypoints. One without a target that is there
// guards nothing.
func (t *Translator) redoGuard(ref objects.Ref) {
	aims, ok := t.aimed[ref]
	if !ok {
		return // redoPolicy's
	}
	p, c := guardPolicy(t.seen.Mesh, t.seen.AuthorizationPolicies[ref.Key], aims)
	if len(p.Targets) == 0 {
		t.policies.del(p.Key)
	} else {
		t.policies.put(p.Key, p)
	}
	t.tell(ref, c)
}

func (t *Translator) redoAuthentication(ref objects.Ref) {
	key := mesh.PolicyKey{Namespace: ref.Key.Namespace, Name: ref.Key.Name}
	ra := t.seen.RequestAuthentications[ref.Key]
	if ra == nil {
		t.authentications.del(key)
		t.tell(ref)
		return
	}
	a, c := authentication(ra, t.aimed[ref], t.keysFrom)
	if len(a.Targets) == 0 {
		t.authentications.del(key)
	} else {
		t.authentications.put(key, a)
	}
	t.tell(ref, c)
}

// keysFrom is what was fetched, with the reason why it is not what is there now.
func (t *Translator) keysFrom(uri string) (keys, problem string) {
	s := t.seen.KeySets[objects.Key{Name: uri}]
	switch {
	case s == nil:
		return "", "have not been fetched yet"
	case s.Problem != "":
		return s.Keys, s.Problem
	}
	return s.Keys, ""
}
