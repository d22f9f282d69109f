package enrol_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/ambit-mesh/ambit/cni/enrol"
	"github.com/ambit-mesh/ambit/internal/mesh"
)

func TestDecide(t *testing.T) {
	labels := func(s string) map[string]string { // mode/udp, each of which may be empty
		mode, udp, _ := strings.Cut(s, "/")
		out := map[string]string{}
		if mode != "" {
			out[enrol.ModeLabel] = mode
		}
		if udp != "" {
			out[mesh.DatagramsLabel] = udp
		}
		return out
	}
	for _, c := range []struct {
		what           string
		namespace, pod string
		change         func(*corev1.Pod)
		want           enrol.Decision
	}{
		{"no labels", "", "", nil, enrol.Decision{Reason: "no istio.io/dataplane-mode label"}},
		{"the namespace is ambient", "ambient", "", nil, enrol.Decision{Enrol: true, Reason: "namespace label"}},
		{"the pod is ambient alone", "", "ambient", nil, enrol.Decision{Enrol: true, Reason: "pod label"}},
		{"the pod opts out", "ambient", "none", nil, enrol.Decision{Reason: `pod label is "none"`}},
		{"the pod opts in where the namespace is out", "none", "ambient", nil, enrol.Decision{Enrol: true, Reason: "pod label"}},
		{"a mode nobody knows", "sidecar", "", nil, enrol.Decision{Reason: `namespace label is "sidecar"`}},
		{"host network", "ambient", "ambient", func(p *corev1.Pod) { p.Spec.HostNetwork = true }, enrol.Decision{Reason: "host network"}},
		{"a sidecar", "ambient", "ambient", func(p *corev1.Pod) { p.Annotations = map[string]string{enrol.SidecarAnnotation: "{}"} }, enrol.Decision{Reason: "has a sidecar"}},
		{"an excluded namespace", "ambient", "ambient", func(p *corev1.Pod) { p.Namespace = "kube-system" }, enrol.Decision{Reason: "namespace is excluded"}},
		{"a job that succeeded", "ambient", "", func(p *corev1.Pod) { p.Status.Phase = corev1.PodSucceeded }, enrol.Decision{Reason: "has ended"}},
		{"a pod that failed", "ambient", "", func(p *corev1.Pod) { p.Status.Phase = corev1.PodFailed }, enrol.Decision{Reason: "has ended"}},
		{"a pod that is being deleted still serves", "ambient", "", func(p *corev1.Pod) { p.DeletionTimestamp = &metav1.Time{} }, enrol.Decision{Enrol: true, Reason: "namespace label"}},
		{"a namespace whose UDP is the mesh's", "ambient/mesh", "", nil, enrol.Decision{Enrol: true, Reason: "namespace label", Datagrams: true}},
		{"a pod whose UDP is", "ambient", "/mesh", nil, enrol.Decision{Enrol: true, Reason: "namespace label", Datagrams: true}},
		{"a pod whose UDP is not", "ambient/mesh", "/none", nil, enrol.Decision{Enrol: true, Reason: "namespace label"}},
		{"a word for UDP that nobody knows", "ambient/yes", "", nil, enrol.Decision{Enrol: true, Reason: "namespace label"}},
		{"UDP alone joins nothing", "/mesh", "", nil, enrol.Decision{Reason: "no istio.io/dataplane-mode label"}},
		{"inbound bypassed", "ambient", "", func(p *corev1.Pod) { p.Annotations = map[string]string{enrol.BypassAnnotation: "true"} },
			enrol.Decision{Enrol: true, Reason: "namespace label", BypassInbound: true}},
		{"a bypass that is no boolean captures", "ambient", "", func(p *corev1.Pod) { p.Annotations = map[string]string{enrol.BypassAnnotation: "yes please"} },
			enrol.Decision{Enrol: true, Reason: "namespace label"}},
	} {
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Labels: labels(c.pod)}}
		pod.Status.Phase = corev1.PodRunning
		if c.change != nil {
			c.change(pod)
		}
		got := enrol.Decide(pod, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Labels: labels(c.namespace)}}, []string{"kube-system"})
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.what, diff)
		}
	}
}

func TestProbed(t *testing.T) {
	http := func(host string, port intstr.IntOrString) corev1.ProbeHandler {
		return corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Host: host, Port: port}}
	}
	n, name := intstr.FromInt32, intstr.FromString
	ports := []corev1.ContainerPort{{Name: "web", ContainerPort: 8080}, {Name: "admin", ContainerPort: 9090}}
	for _, c := range []struct {
		what      string
		init, run corev1.Container
		want      []uint16
	}{
		{"nothing", corev1.Container{}, corev1.Container{Ports: ports}, nil},
		{"http by number", corev1.Container{}, corev1.Container{LivenessProbe: &corev1.Probe{ProbeHandler: http("", n(80))}}, []uint16{80}},
		{"http by name", corev1.Container{}, corev1.Container{Ports: ports, ReadinessProbe: &corev1.Probe{ProbeHandler: http("", name("admin"))}}, []uint16{9090}},
		{"a name nobody has", corev1.Container{}, corev1.Container{Ports: ports, ReadinessProbe: &corev1.Probe{ProbeHandler: http("", name("x"))}}, nil},
		{"tcp and grpc and startup", corev1.Container{}, corev1.Container{
			LivenessProbe:  &corev1.Probe{ProbeHandler: corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{Port: n(5432)}}},
			ReadinessProbe: &corev1.Probe{ProbeHandler: corev1.ProbeHandler{GRPC: &corev1.GRPCAction{Port: 50051}}},
			StartupProbe:   &corev1.Probe{ProbeHandler: http("", n(81))},
		}, []uint16{81, 5432, 50051}},
		{"exec", corev1.Container{}, corev1.Container{LivenessProbe: &corev1.Probe{ProbeHandler: corev1.ProbeHandler{Exec: &corev1.ExecAction{}}}}, nil},
		{"lifecycle hooks", corev1.Container{}, corev1.Container{Lifecycle: &corev1.Lifecycle{
			PostStart: &corev1.LifecycleHandler{HTTPGet: &corev1.HTTPGetAction{Port: n(82)}},
			PreStop:   &corev1.LifecycleHandler{HTTPGet: &corev1.HTTPGetAction{Port: n(83)}},
		}}, []uint16{82, 83}},
		{"an init container that stays", corev1.Container{StartupProbe: &corev1.Probe{ProbeHandler: http("", n(84))}}, corev1.Container{}, []uint16{84}},
		{"twice the same", corev1.Container{LivenessProbe: &corev1.Probe{ProbeHandler: http("", n(80))}},
			corev1.Container{LivenessProbe: &corev1.Probe{ProbeHandler: http("", n(80))}}, []uint16{80}},
		{"another host", corev1.Container{}, corev1.Container{LivenessProbe: &corev1.Probe{ProbeHandler: http("example.org", n(80))}}, nil},
		{"the pod's own address written out", corev1.Container{}, corev1.Container{LivenessProbe: &corev1.Probe{ProbeHandler: http("10.0.0.9", n(80))}}, []uint16{80}},
		{"no port", corev1.Container{}, corev1.Container{LivenessProbe: &corev1.Probe{ProbeHandler: http("", n(70000))}}, nil},
	} {
		pod := &corev1.Pod{Spec: corev1.PodSpec{InitContainers: []corev1.Container{c.init}, Containers: []corev1.Container{c.run}}}
		pod.Status.PodIPs = []corev1.PodIP{{IP: "10.0.0.9"}}
		if diff := cmp.Diff(c.want, enrol.Probed(pod)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.what, diff)
		}
	}
}
