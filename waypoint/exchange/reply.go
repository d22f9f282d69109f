package exchange

import (
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/ambit-mesh/ambit/internal/telemetry"
	"github.com/ambit-mesh/ambit/waypoint/match"
)

// reply is an answer that the waypoint gives itself.
type reply struct {
	status int
	flag   telemetry.ExchangeFlag
	// text is for the client and says nothing that it need not know.
	text   string
	header http.Header
	// reason and err are for the record.
	reason string
	err    error
	// abort cuts the exchange in place of an answer: nobody is there to read it.
	abort bool
}

// done is the reply of a step that has written the answer.
var done = &reply{}

// answer writes a reply, in the form that the client understands.
func (e *exchange) answer(a *reply) {
	if a == done {
		return
	}
	e.record.Flag, e.record.Err = a.flag, a.err
	if a.reason != "" {
		e.record.Reason = a.reason
	}
	if a.abort || e.replied {
		panic(http.ErrAbortHandler)
	}
	e.replied = true
	h := e.w.Header()
	for k, v := range a.header {
		h[k] = v
	}
	e.sharing.Apply(h)
	if e.grpc && a.status >= 400 {
		e.answerGRPC(h, a)
		return
	}
	e.record.Status = a.status
	if a.flag == telemetry.ExchangeClientProtocol && e.r.ProtoMajor == 1 {
		h.Set("Connection", "close") // where a request that is malformed ends nobody knows
	}
	h.Set("Content-Length", strconv.Itoa(len(a.text)))
	if a.text != "" {
		h.Set("Content-Type", "text/plain")
	} else {
		h["Content-Type"] = nil
	}
	if a.status == http.StatusNoContent {
		h.Del("Content-Length")
	}
	e.w.WriteHeader(a.status)
	if e.r.Method != http.MethodHead {
		n, _ := e.w.Write([]byte(a.text)) // a client that has gone is no matter now
		e.record.ResponseBytes = uint64(n)
	}
}

// answerGRPC answers with a header alone, which is how an error without a
// message looks in gRPC (Trailers-Only).
func (e *exchange) answerGRPC(h http.Header, a *reply) {
	code := match.GRPCStatus(a.status)
	e.record.Status, e.record.GRPCStatus = http.StatusOK, code
	h.Set("Content-Type", "application/grpc")
	h.Set("Grpc-Status", strconv.Itoa(code))
	h.Set("Grpc-Message", strings.ReplaceAll(url.QueryEscape(a.text), "+", " "))
	e.w.WriteHeader(http.StatusOK)
}

// isGRPC tells gRPC from gRPC-Web, whose answers are framed in another way.
func isGRPC(h http.Header) bool {
	rest, ok := strings.CutPrefix(strings.ToLower(h.Get("Content-Type")), "application/grpc")
	return ok && (rest == "" || rest[0] == '+' || rest[0] == ';')
}
