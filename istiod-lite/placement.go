package istiodlite

import (
	"fmt"
	"maps"
	"slices"
	"sync"

	corev1 "k8s.io/api/core/v1"

	"github.com/ambit-mesh/ambit/istiod-lite/ca"
	"github.com/ambit-mesh/ambit/istiod-lite/feed"
	"github.com/ambit-mesh/ambit/istiod-lite/objects"
	"github.com/ambit-mesh/ambit/istiod-lite/provision"
	"github.com/ambit-mesh/ambit/istiod-lite/rotation"
)

// placement knows which pods run where, for the certificate authority.
type placement struct {
	mu   sync.RWMutex
	pods map[objects.Key]ca.Pod
	runs map[place]int // pods that have not ended
	// members are the pods of the mesh's own parts.
	members map[objects.Key]rotation.Member
	kind    func(objects.Key, *corev1.Pod) string // of a part, empty for others
}

// place is a service account on a node.
type place struct {
	node    string
	account ca.Account
}

func newPlacement(kind func(objects.Key, *corev1.Pod) string) *placement {
	return &placement{pods: map[objects.Key]ca.Pod{}, runs: map[place]int{}, members: map[objects.Key]rotation.Member{}, kind: kind}
}

// kindOf is which part of the mesh a pod is.
func (c Config) kindOf(k objects.Key, pod *corev1.Pod) string {
	account := ca.Account{Namespace: k.Namespace, Name: pod.Spec.ServiceAccountName}
	switch {
	case slices.Contains(c.Trusted, account):
		return rotation.KindZtunnel
	case pod.Labels[provision.LabelManaged] == provision.Managed:
		return rotation.KindWaypoint
	case k.Namespace == c.Namespace && pod.Labels["app"] == "istiod":
		return rotation.KindReplica
	}
	return ""
}

// Members are the parts of the mesh that run or are about to.
func (p *placement) Members() []rotation.Member {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return slices.Collect(maps.Values(p.members))
}

// member finds the part of the mesh that a caller is.
func (p *placement) member(c ca.Caller) (rotation.Member, error) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	k := objects.Key{Namespace: c.Account.Namespace, Name: c.PodName}
	m, ok := p.members[k]
	if !ok || m.ID != c.PodUID {
		return m, fmt.Errorf("pod %s is no proxy of the mesh that is known here", k)
	}
	return m, nil
}

// Pod implements ca.Pods.
func (p *placement) Pod(namespace, name string) (ca.Pod, bool) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	pod, ok := p.pods[objects.Key{Namespace: namespace, Name: name}]
	return pod, ok
}

// Runs implements ca.Pods.
func (p *placement) Runs(node string, account ca.Account) bool {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.runs[place{node, account}] > 0
}

// update follows the pods among changed objects.
func (p *placement) update(changes feed.Changes) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for ref, object := range changes {
		if ref.Kind != objects.KindPod {
			continue
		}
		p.dropLocked(ref.Key)
		if pod, ok := object.(*corev1.Pod); ok {
			p.addLocked(ref.Key, pod)
		}
	}
}

func (p *placement) addLocked(k objects.Key, pod *corev1.Pod) {
	v := ca.Pod{
		UID: string(pod.UID), Node: pod.Spec.NodeName, ServiceAccount: pod.Spec.ServiceAccountName,
		Ended: pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed,
	}
	p.pods[k] = v
	if kind := p.kind(k, pod); kind != "" && v.Node != "" && !v.Ended {
		m := rotation.Member{ID: v.UID, Name: k.String(), Node: v.Node, Kind: kind}
		if kind == rotation.KindReplica {
			m.Name = k.Name
		}
		p.members[k] = m
	}
	if at, ok := placeOf(k, v); ok {
		p.runs[at]++
	}
}

func (p *placement) dropLocked(k objects.Key) {
	old, had := p.pods[k]
	if !had {
		return
	}
	delete(p.pods, k)
	delete(p.members, k)
	if at, ok := placeOf(k, old); ok {
		if p.runs[at]--; p.runs[at] == 0 {
			delete(p.runs, at)
		}
	}
}

// placeOf is where a pod counts; one that ended or has no node nowhere.
func placeOf(k objects.Key, pod ca.Pod) (place, bool) {
	return place{pod.Node, ca.Account{Namespace: k.Namespace, Name: pod.ServiceAccount}}, pod.Node != "" && !pod.Ended
}
