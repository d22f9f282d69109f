package translate

import (
	"net/netip"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/istiod-lite/objects"
)

// sliceService is the service a slice belongs to.
func sliceService(s *discoveryv1.EndpointSlice) objects.Key {
	return objects.Key{Namespace: s.Namespace, Name: s.Labels[discoveryv1.LabelServiceName]}
}

// isPod says whether an endpoint stands for a pod, which has a workload of its
// own.
func isPod(s *discoveryv1.EndpointSlice, e *discoveryv1.Endpoint) (objects.Key, bool) {
	if e.TargetRef == nil || e.TargetRef.Kind != "Pod" || e.TargetRef.Name == "" {
		return objects.Key{}, false
	}
	return objects.Key{Namespace: firstOf(e.TargetRef.Namespace, s.Namespace), Name: e.TargetRef.Name}, true
}

// slicePods are the pods that a slice names. The pods of a service with a
// selector are found by it and not here.
func slicePods(s *discoveryv1.EndpointSlice) []objects.Key {
	var out []objects.Key
	for i := range s.Endpoints {
		if k, ok := isPod(s, &s.Endpoints[i]); ok {
			out = append(out, k)
		}
	}
	return out
}

// slicePorts maps the service's ports to the slice's by name.
func slicePorts(svc *corev1.Service, s *discoveryv1.EndpointSlice) []mesh.Port {
	var out []mesh.Port
	for _, p := range portsOf(svc, corev1.ProtocolTCP) {
		for _, e := range s.Ports {
			tcp := e.Protocol == nil || *e.Protocol == corev1.ProtocolTCP
			name := ""
			if e.Name != nil {
				name = *e.Name
			}
			if tcp && name == p.Name && e.Port != nil && *e.Port > 0 && *e.Port <= 65535 {
				out = append(out, mesh.Port{Service: uint16(p.Port), Target: uint16(*e.Port), App: appProtocol(p)})
				break
			}
		}
	}
	return out
}

// sliceWorkloads makes workloads of the endpoints that are not pods. They are
// in host-network mode, since nothing says that the address is theirs alone.
func sliceWorkloads(m objects.MeshConfig, svc *corev1.Service, s *discoveryv1.EndpointSlice, locality func(node string) mesh.Locality) []*mesh.Workload {
	if s.AddressType == discoveryv1.AddressTypeFQDN {
		return nil
	}
	ports := slicePorts(svc, s)
	if len(ports) == 0 {
		return nil
	}
	services := map[mesh.ServiceKey][]mesh.Port{serviceKey(m, sliceService(s)): ports}
	var out []*mesh.Workload
	for i := range s.Endpoints {
		e := &s.Endpoints[i]
		if _, ok := isPod(s, e); ok {
			continue
		}
		for _, text := range e.Addresses {
			a, err := netip.ParseAddr(text)
			if err != nil {
				continue // the API server admits none; without an address there is no endpoint
			}
			out = append(out, sliceWorkload(m, s, e, a.Unmap().WithZone(""), services, locality))
		}
	}
	return out
}

func sliceWorkload(m objects.MeshConfig, s *discoveryv1.EndpointSlice, e *discoveryv1.Endpoint, a netip.Addr,
	services map[mesh.ServiceKey][]mesh.Port, locality func(string) mesh.Locality,
) *mesh.Workload {
	w := &mesh.Workload{
		UID:               m.ClusterID + "/discovery.k8s.io/EndpointSlice/" + s.Namespace + "/" + s.Name + "/" + a.String(),
		Name:              s.Name,
		Namespace:         s.Namespace,
		TrustDomain:       m.TrustDomain,
		ServiceAccount:    "default",
		Addresses:         []netip.Addr{a},
		Network:           m.Network,
		NetworkMode:       mesh.NetworkHost,
		ClusterID:         m.ClusterID,
		CanonicalName:     sliceService(s).Name,
		CanonicalRevision: "latest",
		Type:              mesh.WorkloadPod,
		OwnerName:         s.Name,
		Services:          services,
		Unhealthy:         e.Conditions.Ready != nil && !*e.Conditions.Ready,
		Capacity:          1,
	}
	if e.Hostname != nil && *e.Hostname != "" {
		w.Settings.Hostname, w.Settings.Subdomain = *e.Hostname, sliceService(s).Name
	}
	if e.NodeName != nil {
		w.Node = *e.NodeName
		w.Locality = locality(w.Node)
	}
	if e.Zone != nil && w.Locality.Zone == "" {
		w.Locality.Zone = *e.Zone
	}
	return w
}
