package journal

import (
	"net/netip"
	"strings"

	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/internal/telemetry"
)

// separator is in none of the texts.
const separator = "\x00"

// The directions in a slot.
const inbound, outbound = "i", "o"

// format is what of a flow is remembered. Names come last: they are what may be
// cut off.
func format(f *telemetry.Flow) string {
	direction := inbound
	if f.Direction == telemetry.Outbound {
		direction = outbound
	}
	return strings.Join([]string{
		direction, f.ID, f.SourceAddr.String(), f.DestinationAddr.String(), f.HBONEAddr, nameOf(f.Source), nameOf(f.Destination),
	}, separator)
}

func nameOf(w *mesh.Workload) string {
	if w == nil {
		return ""
	}
	return w.Namespace + "/" + w.Name
}

// parse reads what format wrote, as far as it was not cut off.
func parse(text string) (f telemetry.Flow, ok bool) {
	part := append(strings.Split(text, separator), "", "", "") // what was cut off is empty
	if len(part) < 4+3 || part[0] != inbound && part[0] != outbound {
		return f, false
	}
	if part[0] == outbound {
		f.Direction = telemetry.Outbound
	}
	f.ID, f.HBONEAddr = part[1], part[4]
	f.SourceAddr, _ = netip.ParseAddrPort(part[2])
	f.DestinationAddr, _ = netip.ParseAddrPort(part[3])
	f.Source, f.Destination = workload(part[5]), workload(part[6])
	return f, true
}

func workload(text string) *mesh.Workload {
	ns, name, ok := strings.Cut(text, "/")
	if !ok {
		return nil
	}
	return &mesh.Workload{Namespace: ns, Name: name}
}
