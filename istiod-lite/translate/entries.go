package translate

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	networking "istio.io/client-go/pkg/apis/networking/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/istiod-lite/objects"
)

// entries are the ServiceEntries of the set by namespace, and what they made.
type entries struct {
	in groups[string]
	// made are the resources of each namespace's entries.
	services  map[string][]mesh.ServiceKey
	workloads map[string][]string
	selectors selectors
	// owner is the entry that a service's key came from, where several claim it.
	owner map[mesh.ServiceKey]objects.Key
}

func newEntries() entries {
	return entries{
		in: groups[string]{}, services: map[string][]mesh.ServiceKey{}, workloads: map[string][]string{},
		selectors: selectors{}, owner: map[mesh.ServiceKey]objects.Key{},
	}
}

func podsOfEntry(se *networking.ServiceEntry) map[string]string {
	if se == nil {
		return nil
	}
	return se.Spec.GetWorkloadSelector().GetLabels()
}

func (t *Translator) seeEntry(k objects.Key, old, now *networking.ServiceEntry, d *dirty) {
	d.entries[k.Namespace] = true
	if old != nil {
		t.entries.in.del(k.Namespace, k)
	}
	if now != nil {
		t.entries.in.put(k.Namespace, k)
	} else {
		t.bindEntry(k)
	}
	t.entries.selectors.del(k, podsOfEntry(old))
	t.entries.selectors.put(k, podsOfEntry(now))
	t.markSelected(k.Namespace, podsOfEntry(old), d)
	t.markEntries(k.Namespace, d)
}

// markEntries marks a namespace's entries and the pods that they select: a
// host may get another owner.
func (t *Translator) markEntries(namespace string, d *dirty) {
	for k := range t.entries.in[namespace] {
		d.entries[namespace] = true
		t.markSelected(namespace, podsOfEntry(t.seen.ServiceEntries[k]), d)
	}
}

// redoEntries makes everything of a namespace's entries anew; there are few.
// Of several that claim one host the oldest has it, and a Service before all.
func (t *Translator) redoEntries(namespace string) {
	oldServices, oldWorkloads := t.entries.services[namespace], t.entries.workloads[namespace]
	for _, k := range oldServices {
		delete(t.entries.owner, k)
	}
	var services []mesh.ServiceKey
	var workloads []string
	labels := labelsOf(t.seen.Namespaces[objects.Key{Name: namespace}])
	for _, k := range entriesByAge(t, t.entries.in[namespace]) {
		b, se := t.bindEntry(k), t.seen.ServiceEntries[k]
		seen := audienceOf(t.seen.Mesh, se, labels)
		e := serviceEntry(t.seen.Mesh, se, b.Address, seen)
		for _, s := range e.services {
			if _, taken := t.entries.owner[s.Key()]; taken || t.isService(s.Key()) {
				continue
			}
			t.entries.owner[s.Key()] = k
			t.services.put(s.Key(), s)
			services = append(services, s.Key())
		}
		for _, w := range e.workloads {
			t.workloads.put(w.UID, w)
			workloads = append(workloads, w.UID)
		}
		ref := e.condition.Object
		t.tell(ref, slices.Concat([]Condition{e.condition}, b.condition(ref, se.Generation), seen.condition(ref, se.Generation))...)
	}
	for _, k := range oldServices {
		if !slices.Contains(services, k) && !t.isService(k) {
			t.dropService(k)
		}
	}
	for _, uid := range oldWorkloads {
		if !slices.Contains(workloads, uid) {
			t.workloads.del(uid)
		}
	}
	t.entries.services[namespace], t.entries.workloads[namespace] = services, workloads
	if len(services)+len(workloads) == 0 {
		delete(t.entries.services, namespace)
		delete(t.entries.workloads, namespace)
	}
	for ref := range t.conditions {
		if ref.Kind == objects.KindServiceEntry && ref.Key.Namespace == namespace && t.seen.ServiceEntries[ref.Key] == nil {
			t.tell(ref)
		}
	}
}

// entriesByAge are the keys of some entries, the oldest first.
func entriesByAge[T any](t *Translator, of map[objects.Key]T) []objects.Key {
	return slices.SortedFunc(maps.Keys(of), func(a, b objects.Key) int {
		x, y := t.seen.ServiceEntries[a], t.seen.ServiceEntries[b]
		return cmp.Or(x.CreationTimestamp.Compare(y.CreationTimestamp.Time), cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
}

func labelsOf(ns *corev1.Namespace) map[string]string {
	if ns == nil {
		return nil
	}
	return ns.Labels
}

// isService reports whether a key is that of a Kubernetes Service.
func (t *Translator) isService(k mesh.ServiceKey) bool {
	name, ok := strings.CutSuffix(k.Hostname, "."+k.Namespace+".svc."+t.seen.Mesh.ClusterDomain)
	svc := t.seen.Services[objects.Key{Namespace: k.Namespace, Name: name}]
	return ok && svc != nil && svc.Spec.Type != corev1.ServiceTypeExternalName
}

// addEntries adds the entries that select a pod to its services.
func (t *Translator) addEntries(pod *corev1.Pod, to map[mesh.ServiceKey][]mesh.Port) {
	for _, k := range t.entries.selectors.find(pod.Namespace, pod.Labels) {
		se := t.seen.ServiceEntries[k]
		for _, host := range se.Spec.GetHosts() {
			key := mesh.ServiceKey{Namespace: k.Namespace, Hostname: strings.ToLower(host)}
			if t.entries.owner[key] == k {
				to[key] = entryPorts(se)
			}
		}
	}
}

// entryPorts are the ports that a selected pod serves of an entry.
func entryPorts(se *networking.ServiceEntry) []mesh.Port {
	r := entryReader{se: se}
	return r.ports()
}
