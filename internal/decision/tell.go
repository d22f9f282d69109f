package decision

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/internal/spiffe"
	"github.com/ambit-mesh/ambit/internal/telemetry"
)

// OfExchange is the part of a request's story that its access record has too.
// Policies, routes and the choice are for the caller to add.
func OfExchange(e *telemetry.Exchange) Story {
	s := Story{
		ID: e.ID, Kind: Request, At: e.Start, Generation: e.Generation,
		Source: EndOf(e.Source, e.SourceID, e.SourceAddr), Destination: EndOf(e.Destination, e.DestinationID, e.DestinationAddr),
		Asked: asked(e), Service: serviceName(e.Service, e.Port), Trace: e.TraceParent,
		Outcome: Outcome{
			Status: e.Status, Flag: string(e.Flag), Reason: e.Reason,
			Sent: e.ResponseBytes, Received: e.RequestBytes, Duration: e.Duration,
		},
	}
	if e.Backend.Hostname != "" {
		s.Backend = fmt.Sprintf("%s:%d", e.Backend, e.BackendPort)
	}
	if e.Protocol == "grpc" {
		s.Outcome.GRPCStatus = &e.GRPCStatus
	}
	if !e.Policy.IsZero() {
		s.Outcome.Policy = e.Policy.String()
	}
	if e.Err != nil {
		s.Outcome.Error = e.Err.Error()
	}
	for _, a := range e.Attempts {
		s.Attempts = append(s.Attempts, Attempt{Workload: a.Workload, Address: a.Addr.String(), Status: a.Status, Error: a.Err, Duration: a.Duration})
	}
	return s
}

// OfFlow is the same of a connection.
func OfFlow(f *telemetry.Flow, o telemetry.Outcome) Story {
	s := Story{
		ID: f.ID, Kind: Connection, Generation: f.Generation,
		Source: EndOf(f.Source, f.SourceID, f.SourceAddr), Destination: EndOf(f.Destination, f.DestinationID, f.DestinationAddr),
		Asked: f.HBONEAddr, Service: serviceName(f.Service, 0), Trace: f.TraceParent,
		Outcome: Outcome{Flag: o.Flag.String(), Reason: o.Reason},
	}
	if !o.Policy.IsZero() {
		s.Outcome.Policy = o.Policy.String()
	}
	if o.Err != nil {
		s.Outcome.Error = o.Err.Error()
	}
	return s
}

// EndOf describes one end.
func EndOf(w *mesh.Workload, id spiffe.ID, addr netip.AddrPort) End {
	e := End{Identity: id.String()}
	if w != nil {
		e.Workload = w.Namespace + "/" + w.Name
		if w.Name == "" {
			e.Workload = w.Namespace + "/" + w.OwnerName // from baggage, which does not tell an instance's name
		}
	}
	if addr.IsValid() {
		e.Address = addr.String()
	}
	return e
}

func asked(e *telemetry.Exchange) string {
	path, _, query := strings.Cut(e.Path, "?")
	if query {
		path += "?…" // it may hold secrets
	}
	return strings.TrimSpace(fmt.Sprintf("%s %s%s %s", e.Method, e.Host, path, e.Proto))
}

func serviceName(s *mesh.Service, port uint16) string {
	switch {
	case s == nil:
		return ""
	case port == 0:
		return s.Key().String()
	}
	return fmt.Sprintf("%s:%d", s.Key(), port)
}
