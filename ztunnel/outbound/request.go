package outbound

import (
	"github.com/ambit-mesh/ambit/internal/hbone"
	"github.com/ambit-mesh/ambit/internal/telemetry"
	"github.com/ambit-mesh/ambit/ztunnel/route"
)

// request is the CONNECT of a decision (dataplane spec 1.3).
func (f *flight) request(d route.OutboundDecision) hbone.Request {
	forwarded := `for="` + f.flow.SourceAddr.String() + `"`
	if d.Service != nil {
		forwarded += ";host=" + d.Service.Hostname
	}
	protocol := ""
	if f.plainly != nil {
		protocol = hbone.ProtocolUDP
	}
	return hbone.Request{
		Protocol: protocol, Authority: d.Authority,
		Header: map[string]string{
			hbone.HeaderBaggage:     telemetry.Baggage(f.src),
			hbone.HeaderForwarded:   forwarded,
			hbone.HeaderTraceparent: f.flow.TraceParent,
			hbone.HeaderDecision:    f.flow.ID,
		},
	}
}
