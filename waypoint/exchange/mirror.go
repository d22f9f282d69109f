package exchange

import (
	"bytes"
	"context"
	"io"

	"github.com/ambit-mesh/ambit/waypoint/match"
)

// chooseCopies throws the dice for the rule's mirrors. A copy has what the rule
// makes of the request, and nothing of what the chosen backend does.
func (e *exchange) chooseCopies() {
	rule := e.decision.Spec()
	if rule == nil || e.upgrade != "" {
		return
	}
	for i := range rule.Filters.Mirrors {
		if m := &rule.Filters.Mirrors[i]; match.Mirrored(m, e.config.Random) {
			c := &exchange{
				Exchanger: e.Exchanger, arrival: e.arrival, table: e.table, service: e.service, grpc: e.grpc, backend: m.Backend,
				query: e.query, header: e.header.Clone(), host: e.host, path: e.path,
			}
			e.copies = append(e.copies, c)
		}
	}
}

// mirror sends the copies: at once if there is no body, else when all of a body
// that is not too long has been passed on.
func (e *exchange) mirror() {
	switch {
	case len(e.copies) == 0:
	case e.body == nil:
		e.sendCopies(nil)
	default:
		e.body.atEnd = func() {
			if whole, ok := e.body.whole(); ok {
				e.sendCopies(whole)
			}
		}
	}
}

// keepsForMirror says whether the body is wanted beyond the last try.
func (e *exchange) keepsForMirror() bool { return e.body != nil && len(e.copies) > 0 }

// sendCopies never waits: a copy too many is dropped.
func (e *exchange) sendCopies(whole []byte) {
	for _, c := range e.copies {
		c.r = e.r.WithContext(e.mirrors.ctx)
		c.r.Trailer, c.r.ContentLength = nil, int64(len(whole))
		if whole != nil {
			c.body = newBody(bytes.NewReader(whole), 0, false)
		}
		select {
		case e.mirrors.slots <- struct{}{}:
			e.mirrors.running.Go(func() {
				defer func() { <-e.mirrors.slots }()
				c.sendCopy()
			})
		default:
			e.log.Debug("mirror dropped: too many are under way", "backend", c.backend.Service.String())
		}
	}
}

// sendCopy asks one endpoint once, and drops the answer.
func (e *exchange) sendCopy() {
	ctx, cancel := context.WithTimeout(e.r.Context(), e.config.MirrorTimeout)
	defer cancel()
	t, no := e.pick(ctx, nil, 1)
	if no != nil {
		e.log.Debug("mirror not sent", "backend", e.backend.Service.String(), "error", no.err)
		return
	}
	t.run(ctx, 0)
	defer t.limit.end()
	if t.response == nil {
		e.log.Debug("mirror not answered", "backend", e.backend.Service.String(), "error", t.err)
	} else {
		io.Copy(io.Discard, io.LimitReader(t.response.Body, maxCopiedAnswer)) // so that the connection is used again
		t.response.Body.Close()
	}
	t.report(t.err)
}

// maxCopiedAnswer is how much of an answer that nobody wants is read.
const maxCopiedAnswer = 1 << 20
