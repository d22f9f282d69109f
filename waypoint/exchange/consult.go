package exchange

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"

	"github.com/ambit-mesh/ambit/internal/decision"
	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/internal/policy"
	"github.com/ambit-mesh/ambit/internal/telemetry"
	"github.com/ambit-mesh/ambit/waypoint/balance"
	"github.com/ambit-mesh/ambit/waypoint/extauthz"
	"github.com/ambit-mesh/ambit/waypoint/forward"
)

// consult asks the providers of the CUSTOM policies that match, each of which
// may deny the request or change it. As upstream this comes before tokens are
// verified, so that a provider may bring the token; what it changes everybody
// sees who looks later.
func (e *exchange) consult() *reply {
	e.policies = e.table.Policies(e.guarded())
	e.asked = policy.Request{
		Connection: policy.Connection{Source: e.arrival.Peer, SourceIP: e.arrival.Source.Addr(), Destination: e.arrival.Dialled},
		HTTP:       &policy.HTTP{Method: e.r.Method, Path: e.query.Path, Host: e.r.Host, Header: e.r.Header},
	}
	if e.r.Body != nil && e.r.Body != http.NoBody {
		e.body = newBody(e.r.Body, max(e.config.MaxReplay, mostAsked(e.policies)+1), e.grpc)
	}
	for _, ask := range policy.Asks(e.policies, e.asked) {
		p := ask.Policy.Provider
		if p == nil {
			return e.deny(ask.Verdict(policy.CauseNoProvider))
		}
		q, no := e.question(p)
		if no != nil {
			return no
		}
		a := e.asker.Ask(e.r.Context(), p, q)
		if !a.Allow {
			return e.refusedBy(ask, &a)
		}
		if a.Err != nil {
			e.log.Warn("a provider that fails open was not asked", "policy", ask.Policy.Key.String(), "id", e.record.ID, "error", a.Err)
		}
		a.Edit.Header(e.r.Header)
		e.query.Query = a.Edit.Query(e.query.Query)
		e.edits = append(e.edits, a.Response)
	}
	e.asked.Asked = true
	return nil
}

// refusedBy is a provider's no, or what stands for it when it does not answer.
func (e *exchange) refusedBy(ask policy.Ask, a *extauthz.Answer) *reply {
	no := e.deny(ask.Verdict(a.Cause))
	no.flag, no.status, no.err = telemetry.ExchangeUnauthorized, a.Status, a.Err
	if a.Cause == policy.CauseRefused {
		no.text = string(a.Body)
		for k, v := range a.Header {
			no.header[k] = v
		}
	}
	return no
}

// question is what a provider is told, with as much of the body as it wants.
func (e *exchange) question(p *mesh.Provider) (*extauthz.Question, *reply) {
	r := e.r
	q := &extauthz.Question{
		ID: e.record.ID, Time: e.record.Start, Source: e.arrival.Source, SourceID: e.arrival.Peer, Destination: e.arrival.Dialled,
		Method: r.Method, Host: r.Host, Path: e.query.Path, Query: e.query.Query, Proto: r.Proto, Header: r.Header, Size: r.ContentLength,
	}
	if p.MaxBody <= 0 || e.body == nil {
		return q, nil
	}
	var err error
	if q.Body, q.Partial, err = e.body.beginning(p.MaxBody); err != nil {
		return nil, malformed(http.StatusBadRequest, err)
	}
	if q.Partial && !p.AllowPartial {
		return nil, &reply{
			status: http.StatusRequestEntityTooLarge, flag: telemetry.ExchangeDenied, text: "payload too large",
			err: fmt.Errorf("the body is longer than the %d bytes that provider %s is told", p.MaxBody, p.Name),
		}
	}
	return q, nil
}

// beginning waits for the first bytes of the body, up to n, and leaves them for
// the backend. more says that there are others.
func (b *body) beginning(n int) (head []byte, more bool, err error) {
	r := b.reader()
	defer r.Close()
	head = make([]byte, n+1)
	m, err := io.ReadFull(r, head)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = nil
	}
	return head[:min(m, n)], m > n, err
}

// mostAsked is how much of the body some provider may want.
func mostAsked(s policy.Set) int {
	most := 0
	for _, p := range s.Policies {
		if p.Provider != nil {
			most = max(most, p.Provider.MaxBody)
		}
	}
	return most
}

// deny is a policy's no.
func (e *exchange) deny(v policy.Verdict) *reply {
	e.verdict = v
	e.record.Policy, e.record.Reason = v.Policy, v.String()
	return &reply{
		status: http.StatusForbidden, flag: telemetry.ExchangeDenied, text: "RBAC: access denied",
		header: http.Header{decision.Header: {e.record.ID}},
	}
}

// dialProvider connects to a provider: one of the mesh's services by the same
// way as any backend, one outside plainly.
func (x *Exchanger) dialProvider(ctx context.Context, p *mesh.Provider) (net.Conn, error) {
	if p.Host != "" {
		return x.config.Forward.DialName(ctx, p.Host, p.Port)
	}
	t := x.config.Table()
	s := t.View().Service(p.Service)
	if s == nil {
		return nil, fmt.Errorf("service %s is not known here", p.Service)
	}
	settings := t.Traffic(s.Key()).For(p.Port)
	choice, err := x.config.Balancer.Pick(balance.Query{
		Service: s, Port: p.Port, Endpoints: t.View().Endpoints(s.Key()), Settings: settings, Local: x.config.Self(),
		Hash: func(mesh.HashKey) (string, bool) { return "", false }, NoProbe: true,
	})
	if err != nil {
		return nil, err
	}
	to := &forward.Endpoint{Workload: choice.Workload, Address: choice.Address, Service: s, Settings: settings.Connections, TLS: settings.TLS}
	c, err := x.config.Forward.Dial(ctx, to, forward.Origin{})
	if err != nil {
		choice.Done(balance.Result{Err: err, Local: true})
		return nil, err
	}
	choice.Report(balance.Result{Status: http.StatusOK})
	return &held{Conn: c.Conn(choice.Address), release: sync.OnceFunc(func() { choice.Done(balance.Result{}) })}, nil
}

// held counts as in flight until it is closed.
type held struct {
	net.Conn
	release func()
}

// Close implements net.Conn.
func (h *held) Close() error {
	h.release()
	return h.Conn.Close()
}
