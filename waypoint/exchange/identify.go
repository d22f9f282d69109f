package exchange

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/ambit-mesh/ambit/internal/decision"
	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/internal/policy"
	"github.com/ambit-mesh/ambit/internal/telemetry"
	"github.com/ambit-mesh/ambit/internal/tracing"
	"github.com/ambit-mesh/ambit/internal/urlpath"
	"github.com/ambit-mesh/ambit/waypoint/authn"
	"github.com/ambit-mesh/ambit/waypoint/match"
)

// begin notes what every record has.
func (e *exchange) begin() {
	r := e.r
	e.grpc = isGRPC(r.Header)
	e.decision = match.Decision{Rule: -1, Match: -1}
	e.record = telemetry.Exchange{
		ID: decision.NewID(), Start: time.Now(), Generation: e.table.Generation(),
		Protocol: "http", Proto: r.Proto, Method: r.Method, Host: r.Host, Path: r.URL.Path, GRPCStatus: -1,
		Flag: telemetry.ExchangeOK, Rule: -1,
	}
	if e.span = e.config.Tracer.Start(r.Header, e.record.Start); e.span != nil {
		e.record.TraceParent, e.record.TraceID = e.span.TraceParent(), e.span.TraceID()
	} else {
		e.record.TraceParent = tracing.TraceParent(r.Header)
	}
	if e.grpc {
		e.record.Protocol, e.answered.grpc = "grpc", true
	}
}

// identify finds who asks, and for what.
func (e *exchange) identify() *reply {
	a := e.arrival
	if a == nil {
		return &reply{status: 500, err: errors.New("a connection that nobody introduced")}
	}
	v := e.table.View()
	e.record.SourceID, e.record.SourceAddr, e.record.Port = a.Peer, a.Source, a.Port
	e.record.Source = a.Client
	if self := e.config.Self(); self != nil {
		if w := v.WorkloadByAddress(self.Network, a.Source.Addr()); w != nil && slices.Contains(w.Identities(), a.Peer) {
			e.record.Source = w
		}
	}
	if a.Workload != "" {
		if e.workload = v.Workload(a.Workload); e.workload == nil {
			return unknown("workload", a.Workload)
		}
		e.record.Destination = e.workload
		return nil
	}
	if e.service = v.Service(a.Service); e.service == nil || e.gone {
		return unknown("service", a.Service)
	}
	e.record.Service = e.service
	return nil
}

// unknown is what was dialled once and is no more.
func unknown(what string, name any) *reply {
	return &reply{
		status: http.StatusServiceUnavailable, flag: telemetry.ExchangeInvalidBackend, text: "no such " + what,
		err: fmt.Errorf("%s %v is not known or served here any more", what, name),
	}
}

// normalize gives the request the one form in which everybody looks at it.
func (e *exchange) normalize() *reply {
	r := e.r
	if r.Method == http.MethodConnect {
		return malformed(http.StatusMethodNotAllowed, errors.New("a waypoint is no proxy for CONNECT"))
	}
	if err := checkRequest(r); err != nil {
		return malformed(http.StatusBadRequest, err)
	}
	path, err := match.Normalize(r.URL.EscapedPath())
	if err != nil {
		return malformed(http.StatusBadRequest, err)
	}
	if r.Host == "" { // in HTTP/1.0 it may be missing
		r.Host = e.arrival.Dialled.String()
		if e.service != nil {
			r.Host = e.service.Hostname
		}
		e.record.Host = r.Host
	}
	e.record.Path = path
	e.upgrade = upgradeOf(r)
	dropNamed(r.Header)
	e.query = match.Request{Method: r.Method, Path: path, Query: urlpath.Query(r.URL.RawQuery), Host: r.Host, Header: r.Header, Client: e.arrival.Peer}
	return nil
}

func malformed(status int, err error) *reply {
	return &reply{status: status, flag: telemetry.ExchangeClientProtocol, text: http.StatusText(status), err: err}
}

// authenticate verifies the tokens that come with the request. What of them
// does not go on is removed before anybody else looks.
func (e *exchange) authenticate() *reply {
	all := e.table.Authentications(e.guarded())
	if len(all) == 0 {
		return nil
	}
	q := authn.Request{Header: e.r.Header, Query: e.query.Query, Host: e.r.Host, Path: e.query.Path}
	token, err := e.tokens.Check(&q, all, e.record.Start)
	if err != nil {
		a := &reply{status: http.StatusUnauthorized, flag: telemetry.ExchangeBadToken, text: "Jwt verification fails", err: err}
		if no, ok := errors.AsType[*authn.Refused](err); ok {
			a.header = http.Header{"Www-Authenticate": {no.Challenge}}
		}
		return a
	}
	e.query.Query, e.asked.HTTP.Token = q.Query, token
	return nil
}

// authorize asks the policies, before anything is routed.
func (e *exchange) authorize() *reply {
	if self := e.config.Self(); self != nil && !self.Trusts(e.asked.Source) {
		return e.deny(policy.Verdict{Cause: policy.CauseForeign, Rule: -1}) // its tunnel is older than the end of an alias
	}
	e.verdict = policy.EvaluateRequest(e.policies, e.asked)
	if !e.verdict.Allow {
		return e.deny(e.verdict)
	}
	e.record.Policy, e.record.Reason = e.verdict.Policy, e.verdict.String()
	return nil
}

// guarded is the service whose policies hold; of a workload dialled itself it is
// none, which leaves those of the waypoint.
func (e *exchange) guarded() mesh.ServiceKey {
	if e.service == nil {
		return mesh.ServiceKey{}
	}
	return e.service.Key()
}
