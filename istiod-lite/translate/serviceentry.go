package translate

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	api "istio.io/api/networking/v1alpha3"
	networking "istio.io/client-go/pkg/apis/networking/v1"

	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/internal/spiffe"
	"github.com/ambit-mesh/ambit/istiod-lite/objects"
)

// entry is what one ServiceEntry makes.
type entry struct {
	services  []*mesh.Service
	workloads []*mesh.Workload
	condition Condition
}

// entryProtocols are the protocols of a ServiceEntry's ports.
var entryProtocols = map[string]mesh.AppProtocol{
	"HTTP": mesh.AppHTTP11, "HTTP2": mesh.AppHTTP2, "GRPC": mesh.AppGRPC, "GRPC-WEB": mesh.AppHTTP11,
	"TCP": mesh.AppTCP, "MONGO": mesh.AppTCP, "MYSQL": mesh.AppTCP, "REDIS": mesh.AppTCP,
	"TLS": mesh.AppTLS, "HTTPS": mesh.AppTLS,
}

// serviceEntry makes services of the hosts and workloads of the endpoints.
// What it says and the mesh cannot do is told. A host of which the endpoints
// cannot be found is made without any, so that connections to it fail; one that
// is no name is left out, and proxies pass its traffic on as any other that is
// not in the mesh.
func serviceEntry(m objects.MeshConfig, se *networking.ServiceEntry, waypoint mesh.GatewayAddress, seen audience) entry {
	r := entryReader{mesh: m, se: se, seen: seen}
	for _, to := range seen.unread {
		r.note("exportTo %q is neither a namespace nor \".\", \"*\" or \"~\", and is left out.", to)
	}
	if seen.nobody() {
		r.out.condition = r.condition()
		return r.out
	}
	ports := r.ports()
	addresses := r.addresses()
	bare := false // whether a host has no address at all
	for _, host := range se.Spec.GetHosts() {
		if !sound(host) {
			r.note("Host %q is left out: a wildcard is the whole first label of a name, as in *.example.com.", host)
			continue
		}
		s := &mesh.Service{
			Name: se.Name, Namespace: se.Namespace, Hostname: strings.ToLower(host),
			Addresses: addresses, Ports: ports, Waypoint: waypoint,
			NamespaceOnly: !seen.everybody,
		}
		if !seen.everybody && !seen.only(se.Namespace) {
			s.VisibleIn = seen.namespaces
		}
		if len(addresses) == 0 {
			s.Addresses = r.allocated(s.Hostname)
		}
		bare = bare || len(s.Addresses) == 0
		for _, san := range se.Spec.GetSubjectAltNames() {
			r.subject(s, san)
		}
		r.out.services = append(r.out.services, s)
	}
	if bare {
		r.note("The entry has no addresses, so programs reach its hosts at the addresses that DNS tells them, outside of the mesh.")
	}
	r.endpoints(ports)
	r.out.condition = r.condition()
	return r.out
}

// wildcard reports whether a host stands for all names that end in it.
func wildcard(host string) bool { return strings.HasPrefix(host, "*.") }

// sound reports whether a host is a name, or a wildcard that the mesh knows how to
// look for.
func sound(host string) bool {
	return !strings.Contains(strings.TrimPrefix(host, "*."), "*") && strings.TrimPrefix(host, "*.") != ""
}

// entryReader is one ServiceEntry being read, with what its author must know.
type entryReader struct {
	mesh  objects.MeshConfig
	se    *networking.ServiceEntry
	seen  audience
	out   entry
	notes []string
}

func (r *entryReader) note(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	if !slices.Contains(r.notes, text) {
		r.notes = append(r.notes, text)
	}
}

func (r *entryReader) condition() Condition {
	c := Condition{
		Object:     objects.Ref{Kind: objects.KindServiceEntry, Key: objects.Key{Namespace: r.se.Namespace, Name: r.se.Name}},
		Generation: r.se.Generation, Type: TypeEntryAccepted, Status: len(r.notes) == 0,
		Reason: ReasonAccepted, Message: "The entry is known to the mesh as written.",
	}
	if !c.Status {
		c.Reason, c.Message = ReasonUnsupportedValue, strings.Join(r.notes, " ")
	}
	if r.seen.barred {
		c.Status, c.Reason = false, ReasonNotVisible
		_, c.Message = r.seen.words(r.se.Namespace)
	}
	return c
}

func (r *entryReader) ports() []mesh.Port {
	var out []mesh.Port
	for _, p := range r.se.Spec.GetPorts() {
		app, known := entryProtocols[strings.ToUpper(p.GetProtocol())]
		if !known && p.GetProtocol() != "" {
			r.note("Port %d: protocol %q is not supported; the port is carried as TCP.", p.GetNumber(), p.GetProtocol())
			app = mesh.AppTCP
		}
		if p.GetNumber() == 0 || p.GetNumber() > 65535 || p.GetTargetPort() > 65535 {
			r.note("Port %q is no port number and is left out.", p.GetName())
			continue
		}
		target := uint16(cmp.Or(p.GetTargetPort(), p.GetNumber()))
		out = append(out, mesh.Port{Service: uint16(p.GetNumber()), Target: target, App: app})
	}
	return out
}

func (r *entryReader) addresses() []mesh.NetworkPrefix {
	var out []mesh.NetworkPrefix
	for _, text := range r.se.Spec.GetAddresses() {
		blocks, why := ipBlock(text)
		if why != "" {
			r.note("Address %q %s and is left out.", text, why)
			continue
		}
		out = append(out, mesh.NetworkPrefix{Network: r.mesh.Network, Prefix: blocks[0]})
	}
	return out
}

// allocated are the addresses that the status gives to a host, as an allocator of
// virtual addresses writes them there.
func (r *entryReader) allocated(host string) []mesh.NetworkPrefix {
	if !allocatable(r.se) {
		return nil
	}
	var out []mesh.NetworkPrefix
	for _, given := range r.se.Status.GetAddresses() {
		a, err := netip.ParseAddr(given.GetValue())
		if err != nil || !strings.EqualFold(given.GetHost(), host) {
			continue
		}
		a = a.Unmap().WithZone("")
		out = append(out, mesh.NetworkPrefix{Network: r.mesh.Network, Prefix: netip.PrefixFrom(a, a.BitLen())})
	}
	return out
}

// subject adds an identity that the endpoints may have beside their own.
func (r *entryReader) subject(s *mesh.Service, san string) {
	id, err := spiffe.Parse(san)
	if err != nil {
		r.note("subjectAltName %q is not a SPIFFE identity and is left out.", san)
		return
	}
	s.SubjectAltNames = append(s.SubjectAltNames, id)
}

// endpoints makes workloads: of what is listed, or for DNS of the hosts.
func (r *entryReader) endpoints(ports []mesh.Port) {
	spec := &r.se.Spec
	switch spec.GetResolution() {
	case api.ServiceEntry_NONE:
		for _, s := range r.out.services {
			s.LoadBalancing.Mode = mesh.BalancePassthrough
		}
		return
	case api.ServiceEntry_STATIC, api.ServiceEntry_DNS, api.ServiceEntry_DNS_ROUND_ROBIN:
	default:
		r.note("Resolution %s is not supported: the hosts have no endpoints, and connections to them fail.", spec.GetResolution())
		return
	}
	dns := spec.GetResolution() != api.ServiceEntry_STATIC
	for _, e := range spec.GetEndpoints() {
		r.endpoint(e, ports, dns)
	}
	if dns && len(spec.GetEndpoints()) == 0 && spec.GetWorkloadSelector() == nil {
		for _, s := range r.out.services {
			if wildcard(s.Hostname) {
				r.note("Host %q has no endpoints, and a wildcard cannot be looked up: connections to it fail.", s.Hostname)
				continue
			}
			w := r.workload(s.Hostname)
			w.Hostname = s.Hostname
			w.Services = map[mesh.ServiceKey][]mesh.Port{s.Key(): ports}
			r.out.workloads = append(r.out.workloads, w)
		}
	}
}

func (r *entryReader) endpoint(e *api.WorkloadEntry, ports []mesh.Port, dns bool) {
	if e.GetNetwork() != "" && e.GetNetwork() != r.mesh.Network {
		r.note("Endpoint %q is in network %q: gateways between networks are not supported.", e.GetAddress(), e.GetNetwork())
		return
	}
	w := r.workload(e.GetAddress())
	a, err := netip.ParseAddr(e.GetAddress())
	switch {
	case err == nil:
		w.Addresses = []netip.Addr{a.Unmap().WithZone("")}
	case dns && e.GetAddress() != "":
		w.Hostname = strings.ToLower(e.GetAddress())
	default:
		r.note("Endpoint %q is not an address and is left out.", e.GetAddress())
		return
	}
	if e.GetServiceAccount() != "" {
		w.ServiceAccount = e.GetServiceAccount()
	}
	if e.GetWeight() > 0 {
		w.Capacity = e.GetWeight()
	}
	region, rest, _ := strings.Cut(e.GetLocality(), "/")
	zone, subzone, _ := strings.Cut(rest, "/")
	w.Locality = mesh.Locality{Region: region, Zone: zone, Subzone: subzone}
	own := r.endpointPorts(e, ports)
	w.Services = map[mesh.ServiceKey][]mesh.Port{}
	for _, s := range r.out.services {
		w.Services[s.Key()] = own
	}
	r.out.workloads = append(r.out.workloads, w)
}

// endpointPorts are the entry's ports with the numbers that an endpoint has for
// their names.
func (r *entryReader) endpointPorts(e *api.WorkloadEntry, ports []mesh.Port) []mesh.Port {
	out := slices.Clone(ports)
	for _, p := range r.se.Spec.GetPorts() {
		target, named := e.GetPorts()[p.GetName()]
		if !named || target == 0 || target > 65535 {
			continue
		}
		for i := range out {
			if out[i].Service == uint16(p.GetNumber()) {
				out[i].Target = uint16(target)
			}
		}
	}
	return out
}

// workload is an endpoint before its address. It is in host-network mode, since
// nothing says that the address is its alone.
func (r *entryReader) workload(address string) *mesh.Workload {
	return &mesh.Workload{
		UID:  r.mesh.ClusterID + "/networking.istio.io/ServiceEntry/" + r.se.Namespace + "/" + r.se.Name + "/" + address,
		Name: r.se.Name, Namespace: r.se.Namespace, TrustDomain: r.mesh.TrustDomain, ServiceAccount: "default",
		Network: r.mesh.Network, NetworkMode: mesh.NetworkHost, ClusterID: r.mesh.ClusterID,
		CanonicalName: r.se.Name, CanonicalRevision: "latest", Type: mesh.WorkloadPod, OwnerName: r.se.Name, Capacity: 1,
	}
}
