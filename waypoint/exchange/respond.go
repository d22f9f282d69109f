package exchange

import (
	"errors"
	"io"
	"net/http"
	"strconv"
	"sync"

	"github.com/ambit-mesh/ambit/internal/telemetry"
	"github.com/ambit-mesh/ambit/waypoint/match"
)

// respond passes the backend's answer on, and reports the try when it is over.
func (t *try) respond() *reply {
	r := t.response
	if r.StatusCode == http.StatusSwitchingProtocols {
		return t.switchProtocol()
	}
	defer r.Body.Close()
	t.editAnswer(r.Header)
	t.keepSession(r.Header)
	t.replied = true
	h := t.w.Header()
	for k, v := range r.Header {
		h[k] = v
	}
	if _, ok := h["Content-Type"]; !ok {
		h["Content-Type"] = nil // or net/http would guess one
	}
	announced := announce(h, r.Trailer)
	t.record.Status = r.StatusCode
	t.w.WriteHeader(r.StatusCode)
	if err := t.carry(r); err != nil {
		return t.broken(err)
	}
	t.trailers(h, r.Trailer, announced)
	t.noteGRPC(r)
	t.report(nil)
	return done
}

// editAnswer applies what the rule and the backend do to answers.
func (e *exchange) editAnswer(h http.Header) {
	dropHop(h)
	match.EditResponse(e.backend.Filters.Response, h)
	if rule := e.decision.Spec(); rule != nil {
		match.EditResponse(rule.Filters.Response, h)
	}
	for i := range e.edits {
		e.edits[i].Header(h)
	}
	e.sharing.Apply(h)
}

// keepSession tells the client whom its session is with.
func (t *try) keepSession(h http.Header) {
	if t.cookie != nil {
		h.Add("Set-Cookie", t.cookie.String())
	}
	field, ok := t.decision.Keep(t.session, t.backend, t.choice.Workload.UID, t.record.Start, t.header.Get(forwardedProto) == "https")
	switch {
	case !ok:
	case field.Name == "Set-Cookie":
		h.Add(field.Name, field.Value)
	default:
		h.Set(field.Name, field.Value)
	}
}

// announce tells the client which trailers come.
func announce(h, trailer http.Header) int {
	for k := range trailer {
		h.Add("Trailer", k)
	}
	return len(trailer)
}

// trailers passes on what came at the end, announced or not.
func (t *try) trailers(h, trailer http.Header, announced int) {
	if len(trailer) == 0 {
		return
	}
	prefix := ""
	if len(trailer) != announced {
		prefix = http.TrailerPrefix
	}
	for k, v := range trailer {
		h[prefix+k] = v
	}
}

// pieceLen is the most that is carried at once.
const pieceLen = 32 << 10

var pieces = sync.Pool{New: func() any { return new([pieceLen]byte) }}

// clientError is a body that the client does not take.
type clientError struct{ error }

// carry copies the body as it comes: nobody waits for what is here already,
// and nothing is read before there is room for it.
func (t *try) carry(r *http.Response) error {
	flush := http.NewResponseController(t.w).Flush
	p := pieces.Get().(*[pieceLen]byte)
	defer pieces.Put(p)
	if r.ContentLength == -1 {
		if err := flush(); err != nil { // the head, before a first byte that may be long in coming
			return clientError{err}
		}
	}
	for left := r.ContentLength; ; {
		n, err := r.Body.Read(p[:])
		if n > 0 {
			t.answered.add(p[:n])
			if _, err := t.w.Write(p[:n]); err != nil {
				return clientError{err}
			}
			if left -= int64(n); left != 0 && n < len(p) {
				if err := flush(); err != nil {
					return clientError{err}
				}
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// broken ends an exchange whose answer has begun: all that can be said is that
// it is not whole.
func (t *try) broken(err error) *reply {
	a := &reply{err: err, abort: true, flag: telemetry.ExchangeBackendEnded}
	_, theirs := errors.AsType[clientError](err)
	switch {
	case theirs || t.r.Context().Err() != nil:
		a.flag = telemetry.ExchangeClientEnded
		t.done(resultOfNothing)
		return a
	case t.ctx.Err() != nil:
		a = t.ended(t.ctx)
		a.abort = true
		t.failure = match.FailureTimeout
	}
	t.report(err)
	return a
}

// noteGRPC finds the status of gRPC, in the trailers or in the head.
func (t *try) noteGRPC(r *http.Response) {
	if !t.grpc {
		return
	}
	text := r.Trailer.Get("Grpc-Status")
	if text == "" {
		text = r.Header.Get("Grpc-Status")
	}
	if code, err := strconv.Atoi(text); err == nil {
		t.record.GRPCStatus = code
	}
}
