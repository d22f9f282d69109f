package exchange

import (
	"encoding/binary"
	"time"

	"github.com/ambit-mesh/ambit/internal/telemetry"
	"github.com/ambit-mesh/ambit/waypoint/balance"
)

// resultOfNothing is a try that says nothing of its endpoint.
var resultOfNothing balance.Result

// end writes the record, also of an exchange that was aborted.
func (e *exchange) end() {
	if e.record.Status != 101 {
		e.record.RequestBytes, _ = e.body.received()
		e.record.ResponseBytes += e.answered.bytes
	}
	if e.grpc {
		e.record.RequestMessages, e.record.ResponseMessages = e.body.messages(), e.answered.messages
	}
	e.body.end()
	e.record.Duration = time.Since(e.record.Start)
	e.config.Record(&e.record)
	e.noteDryRuns()
	e.span.End(&e.record)
	if e.config.Decisions != nil {
		passed := e.record.Flag == telemetry.ExchangeOK && e.record.Status < 500
		e.config.Decisions.Keep(e.record.ID, passed, e.story())
	}
}

// noteDryRuns tells what dry-run policies would have made of the verdict.
func (e *exchange) noteDryRuns() {
	if len(e.verdict.DryRun) == 0 {
		return
	}
	r := &e.record
	e.config.DryRuns.Note(&telemetry.Flow{
		ID: r.ID, Direction: telemetry.Waypoint, Source: r.Source, SourceID: r.SourceID, SourceAddr: r.SourceAddr,
		Service: r.Service, Destination: r.Destination, DestinationID: r.DestinationID, TraceParent: r.TraceParent, Generation: r.Generation,
	}, e.verdict)
}

// counter counts the bytes of a body, and in gRPC its messages: each is a byte
// of flags and four of length, and then so many bytes.
type counter struct {
	grpc     bool
	bytes    uint64
	messages uint64

	head [5]byte
	have int    // of head
	left uint32 // of the message
}

func (c *counter) add(p []byte) {
	c.bytes += uint64(len(p))
	for c.grpc && len(p) > 0 {
		if c.left > 0 {
			n := min(int(c.left), len(p))
			c.left -= uint32(n)
			p = p[n:]
			continue
		}
		n := copy(c.head[c.have:], p)
		c.have += n
		p = p[n:]
		if c.have == len(c.head) {
			c.have = 0
			c.messages++
			c.left = binary.BigEndian.Uint32(c.head[1:])
		}
	}
}
