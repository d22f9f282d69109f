package enrol_test

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ambit-mesh/ambit/cni/enrol"
)

func TestDNS(t *testing.T) {
	for _, c := range []struct {
		what, annotation string
		serves           int32
		otherwise, want  bool
	}{
		{"as the agent is set", "", 80, true, true},
		{"as the agent is set", "", 80, false, false},
		{"the pod opts out", "false", 80, true, false},
		{"the pod opts in", "true", 80, false, true},
		{"an annotation that is no boolean", "perhaps", 80, true, true},
		{"a pod that serves DNS", "", 53, true, false},
		{"a pod that serves DNS and opts in", "true", 53, true, true},
	} {
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Annotations: map[string]string{}}}
		if c.annotation != "" {
			pod.Annotations[enrol.DNSAnnotation] = c.annotation
		}
		pod.Spec.Containers = []corev1.Container{{Ports: []corev1.ContainerPort{{ContainerPort: c.serves}}}}
		if got := enrol.DNS(pod, c.otherwise); got != c.want {
			t.Errorf("%s: %v, want %v (annotation %q, otherwise %v)", c.what, got, c.want, c.annotation, c.otherwise)
		}
	}
}
