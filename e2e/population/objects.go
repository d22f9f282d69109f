package population

import (
	"fmt"
	"net/netip"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
)

func namespaceName(n int) string { return fmt.Sprintf("team-%02d", n) }
func nodeName(n int) string      { return fmt.Sprintf("node-%03d", n) }
func appName(i int) string       { return fmt.Sprintf("app-%04d", i) }

// serviceOf is the service of pod i, namespaceOf the namespace of service i.
func (p *Population) serviceOf(pod int) int    { return pod % p.Services }
func (p *Population) namespaceOf(i int) string { return namespaceName(i % p.Namespaces) }
func (p *Population) podName(pod int) string {
	return fmt.Sprintf("%s-7d4b9c6f5-%05d", appName(p.serviceOf(pod)), pod)
}
func (p *Population) podAddress(pod int) string { return address(192, pod) }

func address(second byte, i int) string {
	return netip.AddrFrom4([4]byte{10, second + byte(i>>16), byte(i >> 8), byte(i)}).String()
}

func namespace(name string, labels map[string]string) *corev1.Namespace {
	return &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels}}
}

func node(i int) *corev1.Node {
	return &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: nodeName(i), Labels: map[string]string{
			corev1.LabelTopologyRegion: "region", corev1.LabelTopologyZone: fmt.Sprint("zone-", i%3), corev1.LabelHostname: nodeName(i),
		}},
		Status: corev1.NodeStatus{
			Addresses:  []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: address(180, i)}},
			Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue, Reason: "KubeletReady"}},
			NodeInfo:   corev1.NodeSystemInfo{KubeletVersion: "v1.37.2", OSImage: "Debian", KernelVersion: "6.12", ContainerRuntimeVersion: "containerd://2.4.2"},
		},
	}
}

func (p *Population) service(i int) *corev1.Service {
	return &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: appName(i), Labels: map[string]string{"app": appName(i)}},
		Spec: corev1.ServiceSpec{
			Selector: map[string]string{"app": appName(i)},
			Ports:    []corev1.ServicePort{{Name: "http", Port: 80, TargetPort: intstr.FromString("http")}},
		},
	}
}

// slice is what the endpoint slice controller would make, if one ran.
func (p *Population) slice(i int) *discoveryv1.EndpointSlice {
	name, port, yes := "http", int32(8080), true
	s := &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Name: appName(i) + "-x7k2p", Labels: map[string]string{discoveryv1.LabelServiceName: appName(i)}},
		AddressType: discoveryv1.AddressTypeIPv4,
		Ports:       []discoveryv1.EndpointPort{{Name: &name, Port: &port}},
	}
	for pod := i; pod < p.Pods; pod += p.Services {
		on := nodeName(pod % p.Nodes)
		s.Endpoints = append(s.Endpoints, discoveryv1.Endpoint{
			Addresses: []string{p.podAddress(pod)}, NodeName: &on, Conditions: discoveryv1.EndpointConditions{Ready: &yes, Serving: &yes},
			TargetRef: &corev1.ObjectReference{Kind: "Pod", Namespace: p.namespaceOf(i), Name: p.podName(pod)},
		})
	}
	return s
}

// pod is one of a Deployment, enrolled in the mesh.
func (p *Population) pod(i int) *corev1.Pod {
	app, yes := appName(p.serviceOf(i)), true
	probe := &corev1.Probe{ProbeHandler: corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: "/healthz", Port: intstr.FromString("http")}}}
	few := corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("100m"), corev1.ResourceMemory: resource.MustParse("128Mi")}
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Name: p.podName(i), Namespace: p.namespaceOf(p.serviceOf(i)),
			Labels:      map[string]string{"app": app, "version": fmt.Sprint("v", i%2+1), "pod-template-hash": "7d4b9c6f5"},
			Annotations: map[string]string{"ambient.istio.io/redirection": "enabled", "prometheus.io/scrape": "true", "prometheus.io/port": "8080"},
			OwnerReferences: []metav1.OwnerReference{{
				APIVersion: "apps/v1", Kind: "ReplicaSet", Name: app + "-7d4b9c6f5", UID: types.UID(fmt.Sprintf("1b7d1a44-0000-4000-8000-%012d", i)), Controller: &yes,
			}},
		},
		Spec: corev1.PodSpec{
			NodeName: nodeName(i % p.Nodes), ServiceAccountName: app,
			Containers: []corev1.Container{{
				Name: "app", Image: "registry.example/shop/" + app + ":v1", Args: []string{"serve", "--port=8080", "--log=json"},
				Ports:     []corev1.ContainerPort{{Name: "http", ContainerPort: 8080}, {Name: "metrics", ContainerPort: 9090}},
				Env:       []corev1.EnvVar{{Name: "LOG_LEVEL", Value: "info"}, {Name: "DATABASE", Value: "postgres://db.shop:5432/" + app}},
				Resources: corev1.ResourceRequirements{Requests: few}, ReadinessProbe: probe, LivenessProbe: probe,
				VolumeMounts: []corev1.VolumeMount{{Name: "data", MountPath: "/data"}},
			}},
			Volumes: []corev1.Volume{{Name: "data", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}},
		},
		Status: p.status(i),
	}
}

func (p *Population) status(i int) corev1.PodStatus {
	started := metav1.Now()
	s := corev1.PodStatus{
		Phase: corev1.PodRunning, HostIP: address(180, i%p.Nodes), HostIPs: []corev1.HostIP{{IP: address(180, i%p.Nodes)}},
		PodIP: p.podAddress(i), PodIPs: []corev1.PodIP{{IP: p.podAddress(i)}}, StartTime: &started, QOSClass: corev1.PodQOSBurstable,
		ContainerStatuses: []corev1.ContainerStatus{{
			Name: "app", Ready: true, Image: "registry.example/shop/app:v1", ImageID: fmt.Sprintf("registry.example/shop/app@sha256:%064d", i),
			ContainerID: fmt.Sprintf("containerd://%064d", i), State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: started}},
		}},
	}
	for _, t := range []corev1.PodConditionType{corev1.PodReady, corev1.PodInitialized, corev1.PodScheduled, corev1.ContainersReady, corev1.PodReadyToStartContainers} {
		s.Conditions = append(s.Conditions, corev1.PodCondition{Type: t, Status: corev1.ConditionTrue, LastTransitionTime: started})
	}
	return s
}
