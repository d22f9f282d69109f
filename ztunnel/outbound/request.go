package outbound

import (
	"encoding/binary"
	"encoding/hex"
	"math/rand/v2"

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
	return hbone.Request{
		Authority: d.Authority,
		Header: map[string]string{
			hbone.HeaderBaggage:     telemetry.Baggage(f.src),
			hbone.HeaderForwarded:   forwarded,
			hbone.HeaderTraceparent: f.flow.TraceParent,
		},
	}
}

// newTraceParent makes a W3C trace context that nobody samples. It only
// correlates the records of both ends, so it need not be secret.
func newTraceParent() string {
	var id [24]byte
	binary.BigEndian.PutUint64(id[0:], rand.Uint64()|1) // an all-zero id is invalid
	binary.BigEndian.PutUint64(id[8:], rand.Uint64())
	binary.BigEndian.PutUint64(id[16:], rand.Uint64()|1)
	return "00-" + hex.EncodeToString(id[:16]) + "-" + hex.EncodeToString(id[16:]) + "-00"
}
