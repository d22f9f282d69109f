package telemetry

import (
	"slices"
	"strings"

	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/internal/spiffe"
)

// unknown stands for every label without a value.
const unknown = "unknown"

// end is one end's labels, in Istio's order.
type end struct {
	workload, canonicalService, canonicalRevision, namespace, principal, app, version, cluster, region, zone string
}

// labels tell series apart. The response flag is not among them: a series
// counts each flag.
type labels struct {
	direction                       Direction
	datagrams                       bool
	source, destination             end
	service, serviceNS, serviceName string
	mutualTLS                       bool
	locality                        bool // whether any end is known
}

func labelsOf(f *Flow) labels {
	l := labels{
		direction:   f.Direction,
		datagrams:   f.Datagrams,
		source:      endOf(f.Source, f.SourceID),
		destination: endOf(f.Destination, f.DestinationID),
		service:     unknown, serviceNS: unknown, serviceName: unknown,
		mutualTLS: !f.SourceID.IsZero() || !f.DestinationID.IsZero(),
		locality:  f.Source != nil || f.Destination != nil,
	}
	if s := f.Service; s != nil {
		l.service, l.serviceNS, l.serviceName = or(s.Hostname), or(s.Namespace), or(s.Name)
	} else if f.Destination != nil {
		l.serviceNS = or(f.Destination.Namespace)
	}
	return l
}

func endOf(w *mesh.Workload, id spiffe.ID) end {
	e := end{unknown, unknown, unknown, unknown, unknown, unknown, unknown, unknown, unknown, unknown}
	if w != nil {
		name, revision := or(w.CanonicalName), or(w.CanonicalRevision)
		e = end{or(w.OwnerName), name, revision, or(w.Namespace), unknown, name, revision, or(w.ClusterID),
			or(w.Locality.Region), or(w.Locality.Zone)}
	}
	e.principal = or(id.String())
	return e
}

func or(s string) string {
	if s == "" {
		return unknown
	}
	// Baggage comes from a peer, and the metrics' text form takes only UTF-8.
	return strings.ToValidUTF8(s, "�")
}

// endNames are the labels of both ends, in the order of endValues; every metric
// begins with them. localityNames are left out when no end is known.
var (
	endNames = []string{
		"reporter",
		"source_workload", "source_canonical_service", "source_canonical_revision", "source_workload_namespace",
		"source_principal", "source_app", "source_version", "source_cluster",
		"destination_service", "destination_service_namespace", "destination_service_name",
		"destination_workload", "destination_canonical_service", "destination_canonical_revision", "destination_workload_namespace",
		"destination_principal", "destination_app", "destination_version", "destination_cluster",
	}
	connectionNames = append(slices.Clone(endNames), "request_protocol", "response_flags", "connection_security_policy")
	localityNames   = []string{"source_region", "source_zone", "destination_region", "destination_zone"}
)

// values are those of connectionNames and, if an end is known, localityNames.
func (l *labels) values(f Flag) []string {
	v := append(l.endValues(), l.overIP(), f.String(), l.security())
	if l.locality {
		s, d := &l.source, &l.destination
		v = append(v, s.region, s.zone, d.region, d.zone)
	}
	return v
}

func (l *labels) endValues() []string {
	s, d := &l.source, &l.destination
	return append(make([]string, 0, 28),
		l.direction.reporter(),
		s.workload, s.canonicalService, s.canonicalRevision, s.namespace, s.principal, s.app, s.version, s.cluster,
		l.service, l.serviceNS, l.serviceName,
		d.workload, d.canonicalService, d.canonicalRevision, d.namespace, d.principal, d.app, d.version, d.cluster,
	)
}

// overIP is what connections or flows are of.
func (l *labels) overIP() string {
	if l.datagrams {
		return "udp"
	}
	return "tcp"
}

func (l *labels) security() string {
	if l.mutualTLS {
		return "mutual_tls"
	}
	return unknown
}
