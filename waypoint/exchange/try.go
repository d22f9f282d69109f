package exchange

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"net/url"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/internal/telemetry"
	"github.com/ambit-mesh/ambit/waypoint/balance"
	"github.com/ambit-mesh/ambit/waypoint/forward"
	"github.com/ambit-mesh/ambit/waypoint/match"
)

// try is one endpoint being asked.
type try struct {
	*exchange
	choice balance.Choice
	done   func(balance.Result)
	to     *forward.Endpoint
	whole  *limit

	ctx      context.Context
	limit    *limit
	start    time.Time
	latency  time.Duration // to the answer's head
	response *http.Response
	failure  match.Failure
	err      error
}

// run asks the endpoint and waits for the head of its answer.
func (t *try) run(ctx context.Context, single time.Duration) {
	t.start = time.Now()
	t.ctx, t.limit = bounded(ctx, single, errTryTimeout)
	request := t.request()
	span := t.span.Try(request.Header)
	t.response, t.err = t.config.Forward.RoundTrip(request, t.to, t.speaksTwo())
	t.latency = time.Since(t.start)
	if t.err == nil && t.ctx.Err() != nil { // it came too late
		t.response.Body.Close()
		t.response, t.err = nil, context.Cause(t.ctx)
	}
	if t.err == nil && !sensible(t.response, t.upgrade) {
		t.response.Body.Close()
		t.response, t.err = nil, errNonsense
	}
	if t.err != nil {
		t.failure = t.classify()
	}
	attempt := telemetry.Attempt{Workload: t.choice.Workload.UID, Addr: t.to.Address, Status: t.status(), Duration: t.latency}
	if t.err != nil {
		attempt.Err = t.err.Error()
	}
	span.End(attempt)
	t.record.Attempts = append(t.record.Attempts, attempt)
}

var errNonsense = errors.New("the backend's answer makes no sense")

// sensible finds answers that nobody asked for: a change to a protocol, and
// statuses that are none.
func sensible(r *http.Response, upgrade string) bool {
	if r.StatusCode == http.StatusSwitchingProtocols {
		return upgrade != "" && sameProtocol(r.Header["Upgrade"], upgrade)
	}
	return r.StatusCode >= 200 && r.StatusCode <= 999
}

func (t *try) status() int {
	if t.response == nil {
		return 0
	}
	return t.response.StatusCode
}

func (t *try) classify() match.Failure {
	if _, ok := errors.AsType[*forward.ConnectError](t.err); ok && t.ctx.Err() == nil {
		return match.FailureUnsent
	}
	if cause := context.Cause(t.ctx); errors.Is(cause, errTryTimeout) || errors.Is(cause, errWholeTimeout) {
		return match.FailureTimeout
	}
	return match.FailureBroken
}

// speaksTwo says whether the backend is spoken to in HTTP/2: where it says so,
// and where nobody says and the client does (GEP-1911).
func (t *try) speaksTwo() bool {
	switch t.choice.App {
	case mesh.AppHTTP2, mesh.AppGRPC:
		return true
	case mesh.AppHTTP11:
		return false
	case mesh.AppUnknown, mesh.AppTCP, mesh.AppTLS:
	}
	if t.upgrade != "" {
		return false
	}
	route := t.decision.Route
	return t.r.ProtoMajor == 2 || t.grpc || route != nil && route.Key.Kind == mesh.RouteGRPC
}

// request is what the backend is asked. Further tries have headers of their
// own, as the transport may still read the last one's.
func (t *try) request() *http.Request {
	in, header := t.r, t.header
	if len(t.record.Attempts) > 0 {
		header = header.Clone()
	}
	out := &http.Request{
		Method: in.Method, Host: t.host, Header: header, ContentLength: in.ContentLength, Trailer: in.Trailer,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, URL: t.url(),
	}
	if _, ok := out.Header["User-Agent"]; !ok {
		out.Header["User-Agent"] = []string{""} // or net/http would name itself
	}
	if t.body == nil {
		out.ContentLength, out.Trailer = 0, nil
	} else {
		out.Body = t.body.reader()
		out.GetBody = func() (io.ReadCloser, error) {
			if !t.body.repeatable() {
				return nil, errLost
			}
			return t.body.reader(), nil
		}
	}
	return out.WithContext(httptrace.WithClientTrace(t.ctx, &httptrace.ClientTrace{Got1xxResponse: t.interim}))
}

func (t *try) url() *url.URL {
	u := &url.URL{RawQuery: t.query.Query, ForceQuery: t.r.URL.ForceQuery}
	if t.path == "*" {
		u.Opaque = "*"
		return u
	}
	u.RawPath = t.path
	if path, err := url.PathUnescape(t.path); err == nil {
		u.Path = path
	}
	return u
}

// interim passes an interim answer on. 100 comes from our own server, when the
// body is first read: that is, when the backend wants it.
func (t *try) interim(code int, header textproto.MIMEHeader) error {
	if t.w == nil || code == http.StatusContinue || code == http.StatusSwitchingProtocols {
		return nil
	}
	h := t.w.Header()
	for k, v := range header {
		h[k] = v
	}
	dropHop(h)
	t.w.WriteHeader(code)
	clear(h)
	return nil
}

// abandon gives a try up for the next one.
func (t *try) abandon() {
	if t.response != nil {
		t.response.Body.Close()
	}
	t.report(t.err)
	t.limit.end()
}

// health is the status by which the endpoint is judged: of gRPC, the one that
// its code stands for, unless that is the caller's fault.
func (t *try) health() int {
	if t.response == nil || t.record.GRPCStatus < 0 {
		return t.status()
	}
	switch codes.Code(t.record.GRPCStatus) {
	case codes.Unavailable:
		return http.StatusServiceUnavailable
	case codes.Unknown, codes.Internal, codes.DataLoss:
		return http.StatusInternalServerError
	}
	return t.status()
}

// report tells the balancer how it went.
func (t *try) report(err error) {
	r := balance.Result{Status: t.health(), Err: err, Latency: t.latency}
	if t.r.Context().Err() != nil && t.failure != match.FailureUnsent {
		r = balance.Result{} // the client went away, which says nothing of the endpoint
	}
	r.Local = t.failure == match.FailureUnsent || t.failure == match.FailureTimeout
	t.done(r)
}

// finish passes the answer on, or says why there is none.
func (t *try) finish() *reply {
	defer t.limit.end()
	if !t.keepsForMirror() {
		t.body.release()
	}
	t.record.Destination, t.record.DestinationAddr = t.choice.Workload, t.to.Address
	if t.choice.Workload.Tunnel == mesh.TunnelHBONE {
		t.record.DestinationID = t.choice.Workload.Identity()
	}
	if t.response != nil {
		return t.respond()
	}
	t.report(t.err)
	return t.failed()
}

func (t *try) failed() *reply {
	if t.failure == match.FailureTimeout {
		return t.ended(t.ctx)
	}
	_, theirs := t.body.received()
	if !isMalformed(t.r.Context()) && t.r.Context().Err() != nil {
		return &reply{flag: telemetry.ExchangeClientEnded, err: t.err, abort: true}
	}
	if theirs != nil {
		return malformed(http.StatusBadRequest, theirs)
	}
	a := &reply{status: t.failure.Status(), err: t.err, flag: telemetry.ExchangeBackendEnded, text: "upstream connect error or disconnect"}
	if t.failure == match.FailureUnsent {
		a.flag = telemetry.ExchangeConnectFailed
	}
	if len(t.record.Attempts) > 1 {
		a.flag = telemetry.ExchangeRetriesSpent
	}
	return a
}
