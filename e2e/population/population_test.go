package population

import "testing"

func TestEveryPodIsBehindOneService(t *testing.T) {
	p := &Population{Size: Size{Nodes: 7, Namespaces: 3, Services: 20, Pods: 205}}
	behind, addresses := map[string]int{}, map[string]bool{}
	for i := range p.Services {
		for _, e := range p.slice(i).Endpoints {
			behind[e.TargetRef.Namespace+"/"+e.TargetRef.Name+" "+e.Addresses[0]]++
		}
	}
	for i := range p.Pods {
		pod := p.pod(i)
		if n := behind[pod.Namespace+"/"+pod.Name+" "+pod.Status.PodIP]; n != 1 {
			t.Errorf("pod %d is behind %d services, want 1", i, n)
		}
		if pod.Labels["app"] != p.service(p.serviceOf(i)).Spec.Selector["app"] {
			t.Errorf("pod %d is not selected by its service", i)
		}
		addresses[pod.Status.PodIP] = true
	}
	if len(addresses) != p.Pods {
		t.Errorf("%d pods have %d addresses", p.Pods, len(addresses))
	}
}
