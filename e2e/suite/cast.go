package suite

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/ambit-mesh/ambit/e2e/stage"
)

// Pod says what a pod of a scene is; zero values are the common case.
type Pod struct {
	Name string
	// Namespace is the scene's own if empty.
	Namespace string
	// Account is the service account; the pod's name if empty. It is also the
	// value of the label app.
	Account string
	// Node is 1 or 2, counted among the nodes that take pods. Zero is any.
	Node        int
	Labels      map[string]string
	Annotations map[string]string
	// Image is the name of an image of ours; echo if empty.
	Image string
	// Args are the arguments; echo's "serve" if nil.
	Args        []string
	HostNetwork bool
	// Ready is the readiness probe; nil means HTTP on 8080 for echo serving,
	// none for everything else.
	Ready *corev1.Probe
	Alive *corev1.Probe
	// Once is a pod that is not restarted.
	Once bool
}

// The ports on which `echo serve` serves.
const (
	httpPort  = 8080
	tcpPort   = 9000
	firstPort = 9001
	bulkPort  = 9002
	grpcPort  = 9003
)

// probePatience is how many seconds a probe waits for its answer, as long as the
// loads of tests do. With Kubernetes' one second, a machine that has no time for
// three takes a server out of its services: requests are then refused that are
// late at most.
const probePatience = 10

// HTTPProbe asks a port over HTTP, every second.
func HTTPProbe(port int) *corev1.Probe {
	return &corev1.Probe{PeriodSeconds: 1, TimeoutSeconds: probePatience, ProbeHandler: corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: "/", Port: intstr.FromInt32(int32(port))}}}
}

// TCPProbe connects to a port, every second.
func TCPProbe(port int) *corev1.Probe {
	return &corev1.Probe{PeriodSeconds: 1, TimeoutSeconds: probePatience, ProbeHandler: corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{Port: intstr.FromInt32(int32(port))}}}
}

// GRPCProbe asks the gRPC health service, every second.
func GRPCProbe(port int) *corev1.Probe {
	return &corev1.Probe{PeriodSeconds: 1, TimeoutSeconds: probePatience, ProbeHandler: corev1.ProbeHandler{GRPC: &corev1.GRPCAction{Port: int32(port)}}}
}

// ExecProbe runs a program in the container, every second.
func ExecProbe(command ...string) *corev1.Probe {
	return &corev1.Probe{PeriodSeconds: 1, TimeoutSeconds: probePatience, ProbeHandler: corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: command}}}
}

// Start creates pods and waits until they are ready.
func (sc *Scene) Start(ctx context.Context, pods ...Pod) error {
	for _, p := range pods {
		if err := sc.Create(ctx, p); err != nil {
			return err
		}
	}
	for _, p := range pods {
		if err := sc.BecomesReady(ctx, sc.namespace(p), p.Name); err != nil {
			return err
		}
	}
	return nil
}

// BecomesReady waits until one pod is ready.
func (sc *Scene) BecomesReady(ctx context.Context, namespace, name string) error {
	return stage.Within(ctx, 90*time.Second, func(ctx context.Context) error {
		p, err := sc.Stage.Pod(ctx, namespace, name)
		if err == nil && !stage.Ready(p) {
			err = fmt.Errorf("pod %s/%s on %s is %s and not ready", namespace, name, p.Spec.NodeName, p.Status.Phase)
		}
		return err
	})
}

func (sc *Scene) namespace(p Pod) string {
	if p.Namespace == "" {
		return sc.NS
	}
	return p.Namespace
}

// Create creates one pod and its account; it does not wait.
func (sc *Scene) Create(ctx context.Context, p Pod) error {
	p.Namespace = sc.namespace(p)
	if p.Account == "" {
		p.Account = p.Name
	}
	sa := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: p.Account, Namespace: p.Namespace}}
	if _, err := sc.Reach.Client.CoreV1().ServiceAccounts(p.Namespace).Create(ctx, sa, metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
		return err
	}
	pod, err := sc.object(ctx, p)
	if err != nil {
		return err
	}
	// The account of a namespace that was just made may be a moment late.
	return stage.Within(ctx, 20*time.Second, func(ctx context.Context) error {
		_, err := sc.Reach.Client.CoreV1().Pods(p.Namespace).Create(ctx, pod, metav1.CreateOptions{})
		return err
	})
}

// gone deletes a pod and waits until it is.
func (sc *Scene) gone(ctx context.Context, pod string) error {
	pods := sc.Reach.Client.CoreV1().Pods(sc.NS)
	if err := pods.Delete(ctx, pod, metav1.DeleteOptions{}); err != nil {
		return err
	}
	return Soon(ctx, func(ctx context.Context) error {
		_, err := pods.Get(ctx, pod, metav1.GetOptions{})
		switch {
		case apierrors.IsNotFound(err):
			return nil
		case err == nil:
			return fmt.Errorf("pod %s is still there", pod)
		}
		return err
	})
}

func (sc *Scene) object(ctx context.Context, p Pod) (*corev1.Pod, error) {
	no, short := false, int64(1)
	labels := map[string]string{"app": p.Account, "pod": p.Name}
	for k, v := range p.Labels {
		labels[k] = v
	}
	image, serves := p.Image, p.Args == nil && p.Image == ""
	if image == "" {
		image = "echo"
	}
	args := p.Args
	if serves {
		args = []string{"serve"}
	}
	ready := p.Ready
	if ready == nil && serves {
		ready = HTTPProbe(httpPort)
	}
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: p.Name, Namespace: p.Namespace, Labels: labels, Annotations: p.Annotations},
		Spec: corev1.PodSpec{
			ServiceAccountName: p.Account, AutomountServiceAccountToken: &no,
			TerminationGracePeriodSeconds: &short, HostNetwork: p.HostNetwork,
			Containers: []corev1.Container{{
				Name: "app", Image: sc.Image(image), ImagePullPolicy: corev1.PullIfNotPresent, Args: args,
				ReadinessProbe: ready, LivenessProbe: p.Alive,
			}},
		},
	}
	if serves {
		pod.Spec.Containers[0].Ports = []corev1.ContainerPort{{Name: "web", ContainerPort: httpPort}}
	}
	if p.Once {
		pod.Spec.RestartPolicy = corev1.RestartPolicyNever
	}
	if p.Node > 0 {
		node, err := sc.Node(ctx, p.Node)
		if err != nil {
			return nil, err
		}
		pod.Spec.NodeSelector = map[string]string{corev1.LabelHostname: node}
	}
	return pod, nil
}

// Service creates a service for the pods of one account: 80 → 8080, 90 → 9000,
// 91 → 9001, 92 → 9002.
func (sc *Scene) Service(ctx context.Context, name, app string, change ...func(*corev1.Service)) error {
	both := corev1.IPFamilyPolicyPreferDualStack
	port := func(name string, port, target int) corev1.ServicePort {
		return corev1.ServicePort{Name: name, Port: int32(port), TargetPort: intstr.FromInt32(int32(target))}
	}
	svc := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: sc.NS},
		Spec: corev1.ServiceSpec{
			Selector: map[string]string{"app": app}, IPFamilyPolicy: &both,
			Ports: []corev1.ServicePort{port("http", 80, httpPort), port("tcp", 90, tcpPort), port("first", 91, firstPort), port("bulk", 92, bulkPort)},
		},
	}
	for _, c := range change {
		c(svc)
	}
	_, err := sc.Reach.Client.CoreV1().Services(sc.NS).Create(ctx, svc, metav1.CreateOptions{})
	return err
}

// Headless makes a service have no virtual address. Its ports lead nowhere
// else than the pods' own, so they are declared as those.
func Headless(s *corev1.Service) {
	s.Spec.ClusterIP = corev1.ClusterIPNone
	s.Spec.Ports = []corev1.ServicePort{{Name: "http", Port: httpPort, TargetPort: intstr.FromInt32(httpPort)}}
}

// NamedPort makes port 80 lead to the container port by its name.
func NamedPort(s *corev1.Service) { s.Spec.Ports[0].TargetPort = intstr.FromString("web") }

// IPs are a pod's addresses, IPv4 first.
func (sc *Scene) IPs(ctx context.Context, pod string) (v4, v6 string, err error) {
	p, err := sc.Stage.Pod(ctx, sc.NS, pod)
	if err != nil {
		return "", "", err
	}
	for _, ip := range p.Status.PodIPs {
		v4, v6 = sortFamily(ip.IP, v4, v6)
	}
	return v4, v6, nil
}

// VIPs are a service's addresses, IPv4 first.
func (sc *Scene) VIPs(ctx context.Context, service string) (v4, v6 string, err error) {
	s, err := sc.Reach.Client.CoreV1().Services(sc.NS).Get(ctx, service, metav1.GetOptions{})
	if err != nil {
		return "", "", err
	}
	for _, ip := range s.Spec.ClusterIPs {
		v4, v6 = sortFamily(ip, v4, v6)
	}
	return v4, v6, nil
}

// Join lets the scene's namespace join the mesh and waits until it has.
func (sc *Scene) Join(ctx context.Context) error {
	if err := sc.Label(ctx, sc.NS, modeLabel, "ambient"); err != nil {
		return err
	}
	return sc.PodsBecome(ctx, sc.NS, "captured", stage.Enrolled)
}

// Leave takes the scene's namespace out of the mesh and waits until it is out.
func (sc *Scene) Leave(ctx context.Context) error {
	if err := sc.Label(ctx, sc.NS, modeLabel, ""); err != nil {
		return err
	}
	return sc.PodsBecome(ctx, sc.NS, "released", func(p *corev1.Pod) bool { return p.Annotations["ambient.istio.io/redirection"] == "" })
}
