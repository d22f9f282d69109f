package terminate

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/ambit-mesh/ambit/internal/hbone"
	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/internal/policy"
	"github.com/ambit-mesh/ambit/internal/relay"
	"github.com/ambit-mesh/ambit/internal/telemetry"
	"github.com/ambit-mesh/ambit/waypoint/balance"
	"github.com/ambit-mesh/ambit/waypoint/forward"
	"github.com/ambit-mesh/ambit/waypoint/match"
)

// far is a connection to a backend.
type far struct {
	forward.Connection
	choice balance.Choice
	done   func(balance.Result)
}

// tcp carries other bytes: it connects first, so that the client's proxy hears
// of a backend that does not accept.
func (c *crossing) tcp() {
	if c.authorize() != nil {
		c.refuse(c.denied())
		return
	}
	to, no := c.connect(c.in.Context())
	if no != nil {
		c.refuse(no)
		return
	}
	if err := c.accept(c.verdict.String()); err != nil {
		to.drop()
		return
	}
	c.carry(to, nil)
}

// tls reads the name that the client asks for, and carries what follows unread.
func (c *crossing) tls() {
	if err := c.accept(""); err != nil {
		return
	}
	c.stream.SetReadDeadline(time.Now().Add(helloTimeout))
	for {
		name, whole, err := serverNameOf(c.stream.head)
		if err != nil {
			c.refuse(unavailable(fmt.Errorf("looking for the name in TLS: %w", err)))
			return
		}
		if whole {
			c.sni = name
			break
		}
		if err := c.stream.more(); err != nil {
			c.refuse(unavailable(fmt.Errorf("waiting for the hello of TLS: %w", err)))
			return
		}
	}
	c.stream.SetReadDeadline(time.Time{})
	if c.authorize() != nil {
		c.refuse(c.denied())
		return
	}
	to, no := c.connect(c.in.Context())
	if no != nil {
		c.refuse(no)
		return
	}
	c.carry(to, nil)
}

const helloTimeout = 10 * time.Second

// facts are what policies know of a connection that is not HTTP.
func (c *crossing) facts() policy.Request {
	return policy.Request{
		Connection: policy.Connection{Source: c.peer.ID, SourceIP: c.peer.Remote.Addr(), Destination: c.dst.dialled},
		SNI:        c.sni,
	}
}

// judge asks the policies of a table.
func (c *crossing) judge(t Table) policy.Verdict {
	if self := c.Self(); self != nil && !self.Trusts(c.peer.ID) {
		return policy.Verdict{Cause: policy.CauseForeign, Rule: -1}
	}
	return policy.EvaluateRequest(t.Policies(c.guarded()), c.facts())
}

// guarded is the service whose policies hold, none of a workload dialled itself.
func (c *crossing) guarded() mesh.ServiceKey {
	if c.dst.service == nil {
		return mesh.ServiceKey{}
	}
	return c.dst.service.Key()
}

// deniedError is a policy's no.
type deniedError struct{ policy.Verdict }

func (e *deniedError) Error() string {
	return "connection closed due to policy rejection: " + e.Verdict.String()
}

func (c *crossing) authorize() error {
	c.verdict = c.judge(c.table)
	c.DryRuns.Note(&c.flow, c.verdict)
	if !c.verdict.Allow {
		return &deniedError{c.verdict}
	}
	return nil
}

func (c *crossing) denied() *refusal {
	return &refusal{hbone.StatusUnauthorized, telemetry.FlagDeny, &deniedError{c.verdict}}
}

// connect tries backends until one accepts.
func (c *crossing) connect(ctx context.Context) (*far, *refusal) {
	b, no := c.backend()
	if no != nil {
		return nil, no
	}
	var avoid []string
	var last error
	for range c.Attempts {
		to, endpoint, err := c.pick(b, avoid)
		if err != nil {
			if last == nil {
				last = err
			}
			break
		}
		c.flow.Destination, c.flow.DestinationAddr = endpoint.Workload, endpoint.Address
		start := time.Now()
		to.Connection, err = c.Forward.Dial(ctx, endpoint, forward.Origin{Client: c.peer.Remote, TraceParent: c.flow.TraceParent})
		if err == nil {
			c.flow.DestinationID = to.Peer
			to.choice.Report(balance.Result{Status: http.StatusOK, Latency: time.Since(start)})
			to.choice.Probe = false
			return to, nil
		}
		to.done(balance.Result{Err: err, Local: true, Latency: time.Since(start)})
		if last = err; ctx.Err() != nil {
			break
		}
		avoid = append(avoid, endpoint.Workload.UID)
	}
	return nil, unavailable(last)
}

// backend chooses by the rules of TCP and TLS routes.
func (c *crossing) backend() (mesh.Backend, *refusal) {
	if c.dst.service == nil {
		return mesh.Backend{}, nil
	}
	itself := mesh.Backend{Service: c.dst.service.Key(), Port: c.dst.port}
	routes := c.table.Routes(itself.Service, itself.Port)
	var d match.Decision
	switch routes.Protocol(c.peer.ID) {
	case match.ProtocolTCP:
		d = routes.FindTCP(c.peer.ID)
	case match.ProtocolTLS:
		d = routes.FindTLS(c.sni, c.peer.ID)
	case match.ProtocolUnknown, match.ProtocolHTTP, match.ProtocolGRPC: // nothing for bytes
		return itself, nil
	}
	switch d.Outcome {
	case match.Default:
		return itself, nil
	case match.NotFound:
		return itself, unavailable(errors.New("no rule of a route takes the connection"))
	case match.Matched:
	}
	c.flow.Route = d.Route.Key
	b, ok := d.Choose(c.random)
	if !ok {
		return b, unavailable(fmt.Errorf("no valid backend: %s", b.Invalid))
	}
	return b, nil
}

// pick chooses an endpoint.
func (c *crossing) pick(b mesh.Backend, avoid []string) (*far, *forward.Endpoint, error) {
	if c.dst.workload != nil {
		if len(avoid) > 0 {
			return nil, nil, errors.New("there is no other")
		}
		return &far{done: func(balance.Result) {}}, &forward.Endpoint{Workload: c.dst.workload, Address: c.dst.dialled}, nil
	}
	v := c.table.View()
	s := v.Service(b.Service)
	if s == nil {
		return nil, nil, fmt.Errorf("service %s is not known here", b.Service)
	}
	settings := c.table.Traffic(s.Key()).For(b.Port)
	choice, err := c.Balancer.Pick(balance.Query{
		Service: s, Port: b.Port, Endpoints: v.Endpoints(s.Key()), Settings: settings, Local: c.Self(), Avoid: avoid,
		Original: c.dst.dialled, Retry: len(avoid) > 0, Hash: c.hash,
	})
	if err != nil {
		return nil, nil, err
	}
	if choice, err = choice.ConnectNow(&settings.Connections); err != nil {
		choice.Done(balance.Result{})
		return nil, nil, err
	}
	return &far{choice: choice, done: choice.Done}, &forward.Endpoint{
		Workload: choice.Workload, Address: choice.Address, Service: s, Settings: settings.Connections, TLS: settings.TLS,
	}, nil
}

// hash knows nothing of requests.
func (c *crossing) hash(k mesh.HashKey) (string, bool) {
	return c.peer.Remote.Addr().String(), k.SourceIP
}

// drop gives a connection up that carried nothing.
func (f *far) drop() {
	f.done(balance.Result{})
	if s, ok := f.End.(hbone.Stream); ok {
		hbone.NewConn(s, f.Local, f.choice.Address).Close() // a FIN, not a reset
		return
	}
	f.Close()
}

// carry relays until both directions have ended, or a policy cuts it. head is
// what the backend has said already.
func (c *crossing) carry(to *far, head []byte) {
	ctx, done := c.live.track(c.in.Context(), c)
	defer done()
	if now := c.Table(); now != c.table { // one that came before it was tracked
		c.live.judge(c, now)
	}
	var counts relay.Counts
	n, _ := c.stream.Write(head) // an error shows itself again
	counts.Add(0, uint64(n))
	record := c.Recorder.Open(c.flow, c.start, &counts)
	err := relay.Options{HalfOpen: c.HalfOpen}.Run(ctx, c.stream, to.End, &counts)
	o := telemetry.Outcome{Err: err, Policy: c.verdict.Policy, Reason: c.verdict.String()}
	if denied, ok := errors.AsType[*deniedError](context.Cause(ctx)); ok {
		o = telemetry.Outcome{Flag: telemetry.FlagDeny, Err: denied, Policy: denied.Policy, Reason: denied.Verdict.String()}
	}
	record.Close(o)
	c.keep(o, &counts)
	to.done(balance.Result{})
}
