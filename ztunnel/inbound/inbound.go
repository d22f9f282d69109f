package inbound

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/ambit-mesh/ambit/internal/decision"
	"github.com/ambit-mesh/ambit/internal/hbone"
	"github.com/ambit-mesh/ambit/internal/linux"
	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/internal/policy"
	"github.com/ambit-mesh/ambit/internal/relay"
	"github.com/ambit-mesh/ambit/internal/spiffe"
	"github.com/ambit-mesh/ambit/internal/telemetry"
	"github.com/ambit-mesh/ambit/internal/tracing"
	"github.com/ambit-mesh/ambit/internal/view"
	"github.com/ambit-mesh/ambit/ztunnel/connections"
	"github.com/ambit-mesh/ambit/ztunnel/datagrams"
	"github.com/ambit-mesh/ambit/ztunnel/route"
)

// Config is what an Inbound works with; every field without a zero value is
// required.
type Config struct {
	Store *view.Store
	// Local waits for the record of the pod served.
	Local func(ctx context.Context) (*mesh.Workload, error)
	// Dial connects to the application from inside the pod, as source if that
	// is valid.
	Dial func(ctx context.Context, to netip.AddrPort, source netip.Addr) (*net.TCPConn, error)
	// Datagrams gives UDP to the application from inside the pod.
	Datagrams datagrams.Carrier
	// Drops counts datagrams that are not carried. Nil: nobody does.
	Drops       *telemetry.DatagramDrops
	Connections *connections.Set
	Recorder    *telemetry.Recorder
	// DryRuns is told what dry-run policies say. Nil: nobody is.
	DryRuns *telemetry.DryRuns
	// Decisions remembers connections for explanations. Nil: nobody does.
	Decisions *decision.Ring
	// Tracer makes spans of tunnelled connections. Nil makes none.
	Tracer *tracing.Tracer
	// Cut ends, with its cause, when what is left is cut.
	Cut context.Context
	// Accepting ends before, when nothing new is accepted: flows of UDP end then, as
	// their next datagram finds another proxy. Nil never ends.
	Accepting context.Context
	// OriginalDst tells where a captured connection was going. Nil is
	// linux.OriginalDst.
	OriginalDst func(*net.TCPConn) (netip.AddrPort, error)
	// LocalTimeout bounds the wait for the pod's record. Zero is 5 s.
	LocalTimeout time.Duration
	// ConnectTimeout bounds the dial of the application. Zero is 10 s.
	ConnectTimeout time.Duration
	// HalfOpen ends a connection of which one direction has ended and the other
	// carried nothing for so long. Zero is one hour.
	HalfOpen time.Duration
	// Idle ends a flow of UDP that a tunnel carries when nothing was sent either way
	// for so long, which its client does sooner. Zero is 5 minutes.
	Idle time.Duration
}

// Inbound serves one pod.
type Inbound struct{ Config }

// New fills the defaults.
func New(c Config) *Inbound {
	if c.LocalTimeout == 0 {
		c.LocalTimeout = 5 * time.Second
	}
	if c.ConnectTimeout == 0 {
		c.ConnectTimeout = 10 * time.Second
	}
	if c.HalfOpen == 0 {
		c.HalfOpen = time.Hour
	}
	if c.Idle == 0 {
		c.Idle = 5 * time.Minute
	}
	if c.OriginalDst == nil {
		c.OriginalDst = linux.OriginalDst
	}
	return &Inbound{c}
}

// Self is whose certificate the pod shows: a handshake waits for the pod's
// record, since that tells the trust domain.
func (i *Inbound) Self(ctx context.Context) (spiffe.ID, error) {
	local, err := i.local(ctx)
	if err != nil {
		return spiffe.ID{}, err
	}
	return local.Identity(), nil
}

// Aliases are further names of the pod's trust domain: peers with certificates of
// these get a tunnel as well.
func (i *Inbound) Aliases(ctx context.Context) []string {
	local, err := i.local(ctx)
	if err != nil {
		return nil
	}
	return local.Settings.TrustDomainAliases
}

func (i *Inbound) local(ctx context.Context) (*mesh.Workload, error) {
	ctx, cancel := context.WithTimeout(ctx, i.LocalTimeout)
	defer cancel()
	return i.Local(ctx)
}

// Refused records a peer that got no tunnel.
func (i *Inbound) Refused(remote netip.AddrPort, err error) {
	flag := telemetry.FlagHandshakeFailure
	if _, ok := errors.AsType[*hbone.PeerError](err); ok {
		flag = telemetry.FlagTLSFailure
	}
	flow := telemetry.Flow{Direction: telemetry.Inbound, SourceAddr: remote}
	i.Recorder.Fail(flow, telemetry.Outcome{Flag: flag, Err: err})
}

// arrival is one connection on its way in.
type arrival struct {
	*Inbound
	start   time.Time
	request route.InboundRequest
	local   *mesh.Workload
	flow    telemetry.Flow
	verdict policy.Verdict
	span    *tracing.Connection // nil if there is none
	// asked and policies gave the verdict; nil if none was asked.
	asked    *policy.Request
	policies policy.Set
}

// rejection is the answer to an arrival that does not get through.
type rejection struct {
	status int
	reason string
	flag   telemetry.Flag
	err    error
}

func (a *arrival) reject(status int, flag telemetry.Flag, err error) *rejection {
	return &rejection{status: status, reason: err.Error(), flag: flag, err: err}
}

// admit decides, tracks and judges, in this order: an arrival is tracked before its
// last verdict, so that no change of policy is missed. It gives the application's
// address. The returned context ends when a policy cuts the connection.
func (a *arrival) admit(ctx context.Context, tracked **connections.Conn) (_ context.Context, upstream netip.AddrPort, _ *rejection) {
	local, err := a.Inbound.local(ctx)
	if err != nil {
		return ctx, upstream, a.reject(hbone.StatusUnavailable, telemetry.FlagConnect, err)
	}
	v := a.Store.View()
	a.local, a.flow.Destination = local, local
	a.describeSource(v)
	d := route.Inbound(v, local, a.request)
	a.flow.Service, a.verdict, a.flow.Generation = d.Service, d.Verdict, v.Configuration()
	facts := policy.Connection{Source: a.request.Source, SourceIP: a.request.SourceIP, Destination: d.Upstream}
	if d.Verdict.Cause != policy.CauseNone {
		a.asked, a.policies = &policy.Request{Connection: facts}, v.Policies(local)
		a.DryRuns.Note(&a.flow, d.Verdict)
	}
	if d.Status != hbone.StatusOK {
		return ctx, upstream, a.refused(d.Status, d.Reason)
	}
	if local.AppTunnelProxy {
		return ctx, upstream, a.reject(hbone.StatusUnavailable, telemetry.FlagConnect, errors.New("application tunnels with a PROXY header are not supported"))
	}
	ctx, *tracked = a.Connections.Track(ctx, connections.Info{
		Direction: telemetry.Inbound, Datagrams: a.flow.Datagrams, Source: a.flow.SourceAddr, Original: a.request.ConnDst, Actual: d.Upstream,
		HBONE: a.request.Authority != "", Started: a.start, Policy: &facts, Peer: a.request.Source, Reason: a.verdict.String(),
	})
	if now := a.Store.View(); now != v {
		a.flow.Generation, a.policies = now.Configuration(), now.Policies(local)
		if a.verdict = route.Judge(now, local, facts); !a.verdict.Allow {
			return ctx, upstream, a.refused(hbone.StatusUnauthorized, a.verdict.String())
		}
	}
	return ctx, d.Upstream, nil
}

// refused is a decision of route's.
func (a *arrival) refused(status int, reason string) *rejection {
	r := &rejection{status: status, reason: reason, flag: telemetry.FlagConnect, err: errors.New(reason)}
	if status == hbone.StatusUnauthorized {
		r.flag = telemetry.FlagDeny
		r.err = fmt.Errorf("connection closed due to policy rejection: %s", reason)
	}
	return r
}

func (a *arrival) dial(ctx context.Context, to netip.AddrPort) (*net.TCPConn, *rejection) {
	dial, cancel := context.WithTimeout(ctx, a.ConnectTimeout)
	defer cancel()
	app, err := a.Dial(dial, to, a.request.SourceIP)
	if err == nil {
		return app, nil
	}
	if denied := cutBy(ctx); denied != nil {
		a.verdict = denied.Verdict
		return nil, a.refused(hbone.StatusUnauthorized, a.verdict.String())
	}
	return nil, a.reject(hbone.StatusUnavailable, telemetry.FlagConnect, fmt.Errorf("the application does not accept: %w", err))
}

// describeSource names the client for telemetry: the workload at its address
// if that has the identity of the certificate, else what it says of itself.
func (a *arrival) describeSource(v *view.View) {
	w := v.WorkloadByAddress(a.local.Network, a.request.SourceIP)
	if w != nil && (a.request.Source.IsZero() || slices.Contains(w.Identities(), a.request.Source)) {
		a.flow.Source = w
	}
}

// finish records the end of an arrival that was carried.
func (a *arrival) finish(ctx context.Context, record *telemetry.Connection, counts telemetry.Counter, err error) {
	o := telemetry.Outcome{Err: err, Policy: a.verdict.Policy, Reason: a.verdict.String()}
	if denied := cutBy(ctx); denied != nil {
		o = telemetry.Outcome{Flag: telemetry.FlagDeny, Err: denied, Policy: denied.Verdict.Policy, Reason: denied.Verdict.String()}
		o.Cut, a.verdict, a.policies = telemetry.CutPolicy, denied.Verdict, a.Store.View().Policies(a.local)
	} else if cut, why := connections.CutBy(a.Cut, err); cut != telemetry.CutNone {
		o.Cut, o.Err = cut, why
	}
	record.Close(o)
	received, sent := counts.Load()
	a.keep(o, received, sent)
}

// keep remembers the decision.
func (a *arrival) keep(o telemetry.Outcome, received, sent uint64) {
	a.span.End(&a.flow, o, received, sent)
	c := &decision.Carried{
		Flow: a.flow, Outcome: o, Start: a.start, Received: received, Sent: sent, Duration: time.Since(a.start),
		Asked: a.asked, Policies: a.policies, Verdict: a.verdict,
	}
	a.Decisions.Keep(a.flow.ID, c.Passed(), c)
}

// fail records an arrival that did not get through.
func (a *arrival) fail(r *rejection) {
	o := telemetry.Outcome{Flag: r.flag, Err: r.err, Reason: r.reason}
	if r.flag == telemetry.FlagDeny {
		o.Policy = a.verdict.Policy
	}
	a.keep(o, 0, 0)
	if a.local == nil {
		a.Recorder.Fail(a.flow, o)
		return
	}
	a.Recorder.Open(a.flow, a.start, new(relay.Counts)).Close(o)
}

// cutBy is the verdict that cut a connection, if one did.
func cutBy(ctx context.Context) *connections.Denied {
	denied, _ := errors.AsType[*connections.Denied](context.Cause(ctx))
	return denied
}
