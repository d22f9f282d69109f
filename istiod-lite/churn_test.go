package istiodlite

import (
	"fmt"
	"runtime"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ambit-mesh/ambit/istiod-lite/objects"
)

// Objects that are gone leave nothing behind: not their names either. e2e/suite
// looks at the whole program for hours, this at its rules within seconds.
func TestWhatIsGoneLeavesNothingBehind(t *testing.T) {
	p := withoutPlatform()
	rules := newTranslation(p)
	const alive = 100
	put := func(number int) {
		pod, service := fleeting(number)
		for _, o := range []any{pod, service} {
			ref, _ := objects.RefOf(o)
			p.queue.Put(ref, o)
		}
		pod, service = fleeting(number - alive)
		for _, o := range []any{pod, service} {
			ref, _ := objects.RefOf(o)
			p.queue.Put(ref, nil)
		}
		if err := rules.step(); err != nil {
			t.Fatal(err)
		}
	}
	const warm, changes, most = 3000, 4000, 50
	for i := range warm {
		put(i)
	}
	before := inUse()
	for i := range changes {
		put(warm + i)
	}
	if left := (float64(inUse()) - float64(before)) / changes; left > most {
		t.Errorf("each pod and service that went left %.0f bytes behind, at most %d are tolerated", left, most)
	}
	if n := len(p.model.Load().model.Workloads); n != alive {
		t.Errorf("%d workloads are alive, want %d", n, alive)
	}
	// What is small is not told from what the runtime does with its memory.
	if n := len(p.pods.pods); n != alive {
		t.Errorf("%d pods are placed, want %d", n, alive)
	}
	if n := len(p.pods.runs); n != alive {
		t.Errorf("%d places are known, want %d", n, alive)
	}
}

// fleeting is a pod with an account and a node of its own, and a service.
func fleeting(number int) (*corev1.Pod, *corev1.Service) {
	name := fmt.Sprintf("fleeting-%d", number)
	meta := metav1.ObjectMeta{Namespace: "shop", Name: name, ResourceVersion: fmt.Sprint(number), Labels: map[string]string{"app": name}}
	pod := &corev1.Pod{ObjectMeta: meta}
	pod.Spec.ServiceAccountName, pod.Spec.NodeName = name, name
	pod.Status = corev1.PodStatus{Phase: corev1.PodRunning, PodIP: fmt.Sprintf("10.0.%d.%d", number>>8&255, number&255)}
	service := &corev1.Service{ObjectMeta: meta}
	service.Spec = corev1.ServiceSpec{Selector: meta.Labels, Ports: []corev1.ServicePort{{Port: 80}}}
	return pod, service
}

// inUse is what stays in memory.
func inUse() uint64 {
	var m runtime.MemStats
	for range 3 { // pools are emptied by the second
		runtime.GC()
	}
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
