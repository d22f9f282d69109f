package provision

import (
	"maps"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	gateway "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/ambit-mesh/ambit/internal/hbone"
	"github.com/ambit-mesh/ambit/istiod-lite/objects"
)

// waypoint makes the objects of one Gateway. All have the Gateway's name.
type waypoint struct {
	settings Settings
	mesh     objects.MeshConfig
	gateway  *gateway.Gateway
}

// meta names an object and its owner, with whom it goes.
func (w waypoint) meta() metav1.ObjectMeta {
	g, controller := w.gateway, true
	return metav1.ObjectMeta{
		Name: g.Name, Namespace: g.Namespace, Labels: w.labels(), Annotations: w.annotations(),
		OwnerReferences: []metav1.OwnerReference{{
			APIVersion: gateway.GroupVersion.String(), Kind: "Gateway", Name: g.Name, UID: g.UID, Controller: &controller,
		}},
	}
}

// labels are the user's and then ours, which win.
func (w waypoint) labels() map[string]string {
	out := w.infrastructure(w.gateway.Labels, func(i *gateway.GatewayInfrastructure) map[string]string {
		out := map[string]string{}
		for k, v := range i.Labels {
			out[string(k)] = string(v)
		}
		return out
	})
	out[LabelManaged] = Managed
	out[LabelGateway] = w.gateway.Name
	out[LabelClass] = string(w.gateway.Spec.GatewayClassName)
	return out
}

func (w waypoint) annotations() map[string]string {
	return w.infrastructure(w.gateway.Annotations, func(i *gateway.GatewayInfrastructure) map[string]string {
		out := map[string]string{}
		for k, v := range i.Annotations {
			out[string(k)] = string(v)
		}
		return out
	})
}

// infrastructure is what the user wants on everything: spec.infrastructure, or
// else what is on the Gateway itself.
func (w waypoint) infrastructure(own map[string]string, of func(*gateway.GatewayInfrastructure) map[string]string) map[string]string {
	out := map[string]string{}
	if i := w.gateway.Spec.Infrastructure; i != nil {
		maps.Copy(out, of(i))
	} else {
		maps.Copy(out, own)
	}
	maps.DeleteFunc(out, func(k, _ string) bool {
		return strings.HasPrefix(k, "gateway.networking.k8s.io/") || strings.HasPrefix(k, "kubectl.kubernetes.io/")
	})
	return out
}

func (w waypoint) account() *corev1.ServiceAccount {
	no := false // the API server is none of a proxy's business
	return &corev1.ServiceAccount{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "ServiceAccount"},
		ObjectMeta: w.meta(), AutomountServiceAccountToken: &no,
	}
}

// selector finds the waypoint's pods.
func (w waypoint) selector() map[string]string {
	return map[string]string{LabelGateway: w.gateway.Name}
}

func (w waypoint) service() *corev1.Service {
	families, tcp, tunnel := corev1.IPFamilyPolicyPreferDualStack, "tcp", "hbone"
	s := &corev1.Service{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Service"}, ObjectMeta: w.meta(),
		Spec: corev1.ServiceSpec{
			Type: corev1.ServiceTypeClusterIP, IPFamilyPolicy: &families, Selector: w.selector(),
			Ports: []corev1.ServicePort{
				{Name: "status-port", Port: readyPort, TargetPort: intstr.FromInt32(readyPort), Protocol: corev1.ProtocolTCP, AppProtocol: &tcp},
				{Name: w.listener(), Port: hbone.Port, TargetPort: intstr.FromInt32(hbone.Port), Protocol: corev1.ProtocolTCP, AppProtocol: &tunnel},
			},
		},
	}
	// A waypoint nearby is better than one in another zone.
	s.Annotations["networking.istio.io/traffic-distribution"] = corev1.ServiceTrafficDistributionPreferClose
	return s
}

// listener names the tunnel's port as the user did.
func (w waypoint) listener() string {
	for _, l := range w.gateway.Spec.Listeners {
		if l.Port == hbone.Port && len(l.Name) <= 63 && !strings.Contains(string(l.Name), ".") {
			return string(l.Name)
		}
	}
	return "mesh"
}

func (w waypoint) deployment() *appsv1.Deployment {
	surge, unavailable := intstr.FromInt32(1), intstr.FromInt32(0)
	return &appsv1.Deployment{
		TypeMeta: metav1.TypeMeta{APIVersion: "apps/v1", Kind: "Deployment"}, ObjectMeta: w.meta(),
		Spec: appsv1.DeploymentSpec{
			// No replicas: Kubernetes begins with one, and scaling stays the user's.
			Selector: &metav1.LabelSelector{MatchLabels: w.selector()},
			// A new pod serves before an old one goes.
			Strategy: appsv1.DeploymentStrategy{
				Type:          appsv1.RollingUpdateDeploymentStrategyType,
				RollingUpdate: &appsv1.RollingUpdateDeployment{MaxSurge: &surge, MaxUnavailable: &unavailable},
			},
			Template: w.pod(),
		},
	}
}
