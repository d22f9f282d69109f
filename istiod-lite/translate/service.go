package translate

import (
	"net/netip"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/istiod-lite/objects"
)

const annotationDistribution = "networking.istio.io/traffic-distribution"

// serviceKey is a Kubernetes service's name in the mesh.
func serviceKey(m objects.MeshConfig, k objects.Key) mesh.ServiceKey {
	return mesh.ServiceKey{Namespace: k.Namespace, Hostname: k.Name + "." + k.Namespace + ".svc." + m.ClusterDomain}
}

// meshService makes a service's model, without its waypoint; nil for an ExternalName, which is only
// a DNS alias.
func meshService(m objects.MeshConfig, s *corev1.Service, ns *corev1.Namespace) *mesh.Service {
	if s.Spec.Type == corev1.ServiceTypeExternalName {
		return nil
	}
	out := &mesh.Service{
		Name:      s.Name,
		Namespace: s.Namespace,
		Hostname:  serviceKey(m, objects.Key{Namespace: s.Namespace, Name: s.Name}).Hostname,
		Families:  families(s.Spec.IPFamilies),
		Canonical: true,
	}
	for _, a := range clusterIPs(s) {
		out.Addresses = append(out.Addresses, mesh.NetworkPrefix{Network: m.Network, Prefix: netip.PrefixFrom(a, a.BitLen())})
	}
	out.DatagramPorts = datagramPorts(s)
	for _, p := range portsOf(s, corev1.ProtocolTCP) {
		target := numericTarget(p)
		if len(s.Spec.Selector) == 0 {
			target = 0 // Kubernetes passes it over: the slices tell the ports
		}
		out.Ports = append(out.Ports, mesh.Port{Service: uint16(p.Port), Target: target, App: appProtocol(p)})
	}
	var nsDistribution string
	if ns != nil {
		nsDistribution = ns.Annotations[annotationDistribution]
		if !managedWaypoint(s.Labels) {
			out.IngressUseWaypoint = firstOf(s.Labels[labelIngressUseWaypoint], ns.Labels[labelIngressUseWaypoint]) == "true"
		}
	}
	out.LoadBalancing, out.Affinity = balancing(s, nsDistribution), affinity(s)
	return out
}

func clusterIPs(s *corev1.Service) []netip.Addr {
	texts := s.Spec.ClusterIPs
	if len(texts) == 0 {
		texts = []string{s.Spec.ClusterIP}
	}
	var out []netip.Addr
	for _, text := range texts {
		if a, err := netip.ParseAddr(text); err == nil { // "None" is no address
			out = append(out, a.Unmap())
		}
	}
	return out
}

func families(in []corev1.IPFamily) mesh.Families {
	v4, v6 := slices.Contains(in, corev1.IPv4Protocol), slices.Contains(in, corev1.IPv6Protocol)
	switch {
	case v4 && v6:
		return mesh.FamiliesDual
	case v4:
		return mesh.FamiliesIPv4
	case v6:
		return mesh.FamiliesIPv6
	}
	return mesh.FamiliesAutomatic
}

// balancing is the service's own rule, else its annotation, else its
// namespace's. Each service gets a value of its own: nothing is shared.
func balancing(s *corev1.Service, nsDistribution string) mesh.LoadBalancing {
	lb := mesh.LoadBalancing{AllowUnhealthy: s.Spec.PublishNotReadyAddresses}
	if p := s.Spec.InternalTrafficPolicy; p != nil && *p == corev1.ServiceInternalTrafficPolicyLocal {
		lb.Mode, lb.Preference = mesh.BalanceStrict, []mesh.Scope{mesh.ScopeNode}
		return lb
	}
	distribution := firstOf(s.Annotations[annotationDistribution], nsDistribution)
	if d := s.Spec.TrafficDistribution; d != nil {
		distribution = *d
	}
	switch distribution {
	case corev1.ServiceTrafficDistributionPreferClose, corev1.ServiceTrafficDistributionPreferSameZone:
		lb.Mode, lb.Preference = mesh.BalanceFailover, []mesh.Scope{mesh.ScopeNetwork, mesh.ScopeRegion, mesh.ScopeZone}
	case corev1.ServiceTrafficDistributionPreferSameNode:
		lb.Mode = mesh.BalanceFailover
		lb.Preference = []mesh.Scope{mesh.ScopeNetwork, mesh.ScopeRegion, mesh.ScopeZone, mesh.ScopeSubzone, mesh.ScopeNode}
	}
	return lb
}

// affinity is how long clients stay with an endpoint.
func affinity(s *corev1.Service) time.Duration {
	if s.Spec.SessionAffinity != corev1.ServiceAffinityClientIP {
		return 0
	}
	if c := s.Spec.SessionAffinityConfig; c != nil && c.ClientIP != nil && c.ClientIP.TimeoutSeconds != nil && *c.ClientIP.TimeoutSeconds > 0 {
		return time.Duration(*c.ClientIP.TimeoutSeconds) * time.Second
	}
	return time.Duration(corev1.DefaultClientIPServiceAffinitySeconds) * time.Second
}

// portsOf are the ports of one protocol.
func portsOf(s *corev1.Service, protocol corev1.Protocol) []corev1.ServicePort {
	var out []corev1.ServicePort
	for _, p := range s.Spec.Ports {
		if isOf(p.Protocol, protocol) && p.Port > 0 && p.Port <= 65535 {
			out = append(out, p)
		}
	}
	return out
}

// isOf reads a protocol, of which none is TCP.
func isOf(said, protocol corev1.Protocol) bool {
	return said == protocol || said == "" && protocol == corev1.ProtocolTCP
}

// datagramPorts are the ports of UDP of a service that selects its pods. Of others
// the mesh knows nothing: what is sent to them is left to the cluster.
func datagramPorts(s *corev1.Service) (out []mesh.Port) {
	if len(s.Spec.Selector) == 0 {
		return nil
	}
	for _, p := range portsOf(s, corev1.ProtocolUDP) {
		out = append(out, mesh.Port{Service: uint16(p.Port), Target: numericTarget(p)})
	}
	return out
}

// numericTarget is 0 for a named port, which each pod maps by itself.
func numericTarget(p corev1.ServicePort) uint16 {
	switch {
	case p.TargetPort.Type == intstr.String && p.TargetPort.StrVal != "":
		return 0
	case p.TargetPort.IntVal == 0:
		return uint16(p.Port)
	}
	return uint16(p.TargetPort.IntVal)
}

// podPorts are the ports that a pod serves of a service it is selected by. A
// named port that no container of the pod has is left out.
func podPorts(s *corev1.Service, pod *corev1.Pod) []mesh.Port {
	var out []mesh.Port
	for _, p := range portsOf(s, corev1.ProtocolTCP) {
		target := numericTarget(p)
		if target == 0 {
			target = namedPort(pod, p.TargetPort.StrVal, corev1.ProtocolTCP)
		}
		if target != 0 {
			out = append(out, mesh.Port{Service: uint16(p.Port), Target: target, App: appProtocol(p)})
		}
	}
	return out
}

// podDatagramPorts are those of UDP that only the pod's containers number.
func podDatagramPorts(s *corev1.Service, pod *corev1.Pod) (out []mesh.Port) {
	for _, p := range portsOf(s, corev1.ProtocolUDP) {
		if numericTarget(p) != 0 {
			continue
		}
		if target := namedPort(pod, p.TargetPort.StrVal, corev1.ProtocolUDP); target != 0 {
			out = append(out, mesh.Port{Service: uint16(p.Port), Target: target})
		}
	}
	return out
}

// namedPort looks through containers and those init containers that keep
// running beside them.
func namedPort(pod *corev1.Pod, name string, protocol corev1.Protocol) uint16 {
	find := func(c *corev1.Container) uint16 {
		for _, p := range c.Ports {
			if p.Name == name && isOf(p.Protocol, protocol) {
				return uint16(p.ContainerPort)
			}
		}
		return 0
	}
	for i := range pod.Spec.Containers {
		if p := find(&pod.Spec.Containers[i]); p != 0 {
			return p
		}
	}
	for i := range pod.Spec.InitContainers {
		c := &pod.Spec.InitContainers[i]
		if c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways {
			if p := find(c); p != 0 {
				return p
			}
		}
	}
	return 0
}

// appProtocols are the names of appProtocol, and the first words of port names.
var appProtocols = map[string]mesh.AppProtocol{
	"http":               mesh.AppHTTP11,
	"http2":              mesh.AppHTTP2,
	"grpc":               mesh.AppGRPC,
	"grpc-web":           mesh.AppHTTP11,
	"https":              mesh.AppTLS,
	"tls":                mesh.AppTLS,
	"tcp":                mesh.AppTCP,
	"kubernetes.io/h2c":  mesh.AppHTTP2,
	"kubernetes.io/ws":   mesh.AppHTTP11,
	"kubernetes.io/wss":  mesh.AppTLS,
	"kubernetes.io/grpc": mesh.AppGRPC,
}

func appProtocol(p corev1.ServicePort) mesh.AppProtocol {
	if p.AppProtocol != nil {
		return appProtocols[strings.ToLower(*p.AppProtocol)]
	}
	name := strings.ToLower(p.Name)
	if strings.HasPrefix(name, "grpc-web") {
		return mesh.AppHTTP11
	}
	word, _, _ := strings.Cut(name, "-")
	return appProtocols[word]
}
