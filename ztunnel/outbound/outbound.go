package outbound

import (
	"cmp"
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
	"github.com/ambit-mesh/ambit/internal/relay"
	"github.com/ambit-mesh/ambit/internal/telemetry"
	"github.com/ambit-mesh/ambit/internal/tracing"
	"github.com/ambit-mesh/ambit/internal/view"
	"github.com/ambit-mesh/ambit/ztunnel/connections"
	"github.com/ambit-mesh/ambit/ztunnel/datagrams"
	"github.com/ambit-mesh/ambit/ztunnel/route"
)

// Opener opens streams in shared tunnels; hbone/pool is one.
type Opener interface {
	Open(ctx context.Context, t hbone.Target, r hbone.Request) (hbone.Stream, hbone.Response, hbone.Peer, error)
}

// Config is what an Outbound works with; every field without a zero value is
// required.
type Config struct {
	Store *view.Store
	// Local waits for the record of the pod served.
	Local func(ctx context.Context) (*mesh.Workload, error)
	// Lookup finds the addresses of an endpoint that is known by name only.
	Lookup func(ctx context.Context, host string) ([]netip.Addr, error)
	// Dial makes plain connections from inside the pod.
	Dial func(ctx context.Context, to netip.AddrPort) (*net.TCPConn, error)
	// Tunnels are the pod's own: tunnels are never shared between pods.
	Tunnels     Opener
	Connections *connections.Set
	Recorder    *telemetry.Recorder
	// Drops counts datagrams that are not carried. Nil: nobody does.
	Drops *telemetry.DatagramDrops
	// Decisions remembers connections for explanations. Nil: nobody does.
	Decisions *decision.Ring
	// Tracer makes spans of tunnelled connections. Nil makes none.
	Tracer *tracing.Tracer
	// Cut ends, with its cause, when what is left is cut.
	Cut context.Context
	// OriginalDst tells where a captured connection was going. Nil is
	// linux.OriginalDst.
	OriginalDst func(*net.TCPConn) (netip.AddrPort, error)
	// LocalTimeout bounds the wait for the pod's record. Zero is 5 s.
	LocalTimeout time.Duration
	// ConnectTimeout bounds each attempt. Zero is 10 s.
	ConnectTimeout time.Duration
	// TryTimeout bounds each but the last where there are other endpoints: one
	// whose node has gone says nothing. Zero is 5 s, in which a lost packet is sent
	// twice again.
	TryTimeout time.Duration
	// HalfOpen ends a connection of which one direction has ended and the other
	// carried nothing for so long. Zero is one hour.
	HalfOpen time.Duration
	// Attempts is how many endpoints are tried. Zero is 3.
	Attempts int
	// Bridge is how long a connection waits for node proxies that are there and
	// do not listen, as when one is started again. Zero is 3 s.
	Bridge time.Duration
	// WaypointTimeout is how long a connection waits for a waypoint that is
	// missing or not ready. Zero is 10 s.
	WaypointTimeout time.Duration
	// Waiting is how many connections of the pod may wait so at once; further
	// ones fail. Zero is 1000.
	Waiting int
}

// Outbound serves one pod.
type Outbound struct {
	Config
	waiting    chan struct{} // a place for each that waits for a waypoint
	affinities affinities
}

// New fills the defaults.
func New(c Config) *Outbound {
	if c.LocalTimeout == 0 {
		c.LocalTimeout = 5 * time.Second
	}
	if c.ConnectTimeout == 0 {
		c.ConnectTimeout = 10 * time.Second
	}
	if c.TryTimeout == 0 {
		c.TryTimeout = 5 * time.Second
	}
	if c.HalfOpen == 0 {
		c.HalfOpen = time.Hour
	}
	if c.Attempts == 0 {
		c.Attempts = 3
	}
	if c.Bridge == 0 {
		c.Bridge = 3 * time.Second
	}
	if c.WaypointTimeout == 0 {
		c.WaypointTimeout = 10 * time.Second
	}
	if c.Waiting == 0 {
		c.Waiting = 1000
	}
	if c.OriginalDst == nil {
		c.OriginalDst = linux.OriginalDst
	}
	return &Outbound{Config: c, waiting: make(chan struct{}, c.Waiting)}
}

// Handle serves one captured connection; it is a capture.Handler.
func (o *Outbound) Handle(ctx context.Context, app *net.TCPConn) {
	f := &flight{Outbound: o, app: app, start: time.Now()}
	f.flow = telemetry.Flow{
		ID: decision.NewID(), Direction: telemetry.Outbound, SourceAddr: linux.AddrPort(app.RemoteAddr()), TraceParent: telemetry.NewTraceParent(),
	}
	if err := f.identify(ctx); err != nil {
		relay.Reset(app)
		failed := telemetry.Outcome{Flag: telemetry.FlagConnect, Err: err}
		o.Recorder.Fail(f.flow, failed)
		f.keep(failed, 0, 0)
		return
	}
	far, err := f.connect(ctx)
	if err != nil {
		f.fail(err)
		return
	}
	f.carry(ctx, far)
}

// flight is one connection on its way.
type flight struct {
	*Outbound
	app   *net.TCPConn
	start time.Time
	dst   netip.AddrPort
	src   *mesh.Workload
	flow  telemetry.Flow
	// patience is when it stops to wait for a waypoint; zero until it waits.
	patience time.Time
	// bridged is how the wait for node proxies goes.
	bridged bridged
	// reason is the destination's verdict in its own words.
	reason string
	// span is of a tunnelled connection; nil if there is none.
	span *tracing.Connection
	// choice is how the endpoint was found, attempts how it was reached.
	choice   string
	attempts []decision.Attempt
	// plainly sends a flow of UDP that no tunnel takes; nil for a connection.
	plainly *datagrams.Direct
}

// identify finds where the connection was going and who sends it.
func (f *flight) identify(ctx context.Context) (err error) {
	if f.dst, err = f.OriginalDst(f.app); err != nil {
		return err
	}
	f.flow.DestinationAddr = f.dst
	// Nobody redirected it: it was made to the proxy's own port, and passing
	// it on would bring it back.
	if f.dst == linux.AddrPort(f.app.LocalAddr()) {
		return fmt.Errorf("%s is the proxy's own port", f.dst)
	}
	return f.sender(ctx)
}

// sender finds who sends it.
func (f *flight) sender(ctx context.Context) (err error) {
	ctx, cancel := context.WithTimeout(ctx, f.LocalTimeout)
	defer cancel()
	if f.src, err = f.Local(ctx); err != nil {
		return err
	}
	f.flow.Source = f.src
	return nil
}

// refusedError is a decision not to connect; denied if a rule of the mesh's
// owner made it.
type refusedError struct {
	reason string
	denied bool
}

func (e *refusedError) Error() string { return e.reason }

func refusal(d route.OutboundDecision) error { return &refusedError{d.Reason, d.Outlawed} }

// connect tries endpoints until one accepts.
func (f *flight) connect(ctx context.Context) (far far, err error) {
	var avoid []netip.AddrPort
	for tried, lost, tunnelled := 1, false, false; ; tried++ {
		var d route.OutboundDecision
		d, avoid = f.decide(ctx, avoid)
		if d.Kind == route.Refuse {
			if err == nil { // otherwise the attempt before tells more
				f.flow.Service, err = d.Service, refusal(d)
				return far, err
			}
			if !tunnelled || !f.bridge(ctx, err) {
				return far, err
			}
			avoid, tried = nil, 0
			continue
		}
		tunnelled = d.Kind == route.HBONE
		f.flow.Destination, f.flow.Service = d.Workload, d.Service
		f.flow.DestinationAddr, f.flow.HBONEAddr = d.Dial, d.Authority
		began := time.Now()
		limit := f.ConnectTimeout
		if d.Others && tried < f.Attempts {
			limit = min(limit, f.TryTimeout)
		}
		far, err = f.attempt(ctx, d, limit)
		f.note(d, time.Since(began), err)
		if err == nil {
			f.affinities.keep(&d)
			return far, nil
		}
		if d.Kind == route.Passthrough || !another(ctx, err) {
			return far, err
		}
		if tried >= f.Attempts {
			if !tunnelled || !f.bridge(ctx, err) {
				return far, err
			}
			avoid, tried = nil, 0
			continue
		}
		// A shared tunnel may have died unnoticed, as when its server was
		// killed: the same endpoint gets a second chance, by a new tunnel.
		if errors.Is(err, hbone.ErrReset) && !lost {
			lost = true
			continue
		}
		avoid = append(avoid, d.Endpoint)
	}
}

// another says whether another endpoint may be better: not if the destination
// has decided, as the next one would have the same policy, and not if our side
// is at fault.
func another(ctx context.Context, err error) bool {
	if ctx.Err() != nil {
		return false
	}
	if status, ok := errors.AsType[*hbone.StatusError](err); ok {
		return status.Response.Status == hbone.StatusUnavailable
	}
	return true
}

// attempt makes one connection.
func (f *flight) attempt(ctx context.Context, d route.OutboundDecision, limit time.Duration) (far, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	switch d.Kind {
	case route.Plain, route.Passthrough:
		if f.plainly != nil {
			return f.sendPlainly(ctx, d)
		}
		c, err := f.plain(ctx, d)
		if err != nil {
			return far{}, fmt.Errorf("connecting to %s: %w", d.At(), err)
		}
		return far{tcp: c}, nil
	case route.HBONE:
		return f.tunnel(ctx, d)
	case route.Refuse:
	}
	return far{}, refusal(d)
}

// plain connects in clear: to the address, or to the first of a name's that
// accepts, those of the family that was dialled before others.
func (f *flight) plain(ctx context.Context, d route.OutboundDecision) (c *net.TCPConn, err error) {
	if d.Host == "" {
		return f.Dial(ctx, d.Dial)
	}
	f.flow.DestinationAddr = netip.AddrPort{} // until it is known
	f.Recorder.Lookup(&f.flow)
	all, err := f.Lookup(ctx, d.Host)
	if err != nil {
		return nil, err
	}
	slices.SortStableFunc(all, func(a, b netip.Addr) int { return order(f.dst.Addr(), a) - order(f.dst.Addr(), b) })
	all = all[:min(len(all), maxAddresses)]
	for i, a := range all {
		f.flow.DestinationAddr = netip.AddrPortFrom(a, d.Dial.Port())
		// Each has its share of the time that is left: one may be silent.
		ctx, cancel := share(ctx, len(all)-i)
		c, err = f.Dial(ctx, f.flow.DestinationAddr)
		cancel()
		if err == nil {
			return c, nil
		}
	}
	return nil, err
}

// share is an equal part of the time that ctx has left for so many.
func share(ctx context.Context, among int) (context.Context, context.CancelFunc) {
	until, ok := ctx.Deadline()
	if !ok {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, time.Until(until)/time.Duration(among))
}

// maxAddresses is how many addresses of one name are tried for a connection.
const maxAddresses = 4

// order puts addresses of the family that was dialled first.
func order(dialled, a netip.Addr) int {
	if dialled.Is4() == a.Is4() {
		return 0
	}
	return 1
}

func (f *flight) tunnel(ctx context.Context, d route.OutboundDecision) (far, error) {
	if f.span == nil {
		f.span = f.Tracer.Connect("", f.start)
		f.flow.TraceParent = cmp.Or(f.span.TraceParent(), f.flow.TraceParent)
	}
	target := hbone.Target{Address: d.Dial, Self: f.src.Identity(), Accept: d.Accept, Workload: d.Workload.UID}
	if d.OverH3 {
		target.Transport = hbone.PreferH3
	}
	stream, answer, peer, err := f.Tunnels.Open(ctx, target, f.request(d))
	if err != nil {
		return far{}, f.explain(ctx, d, err)
	}
	f.reason = answer.Header[hbone.HeaderReason]
	f.flow.SourceID, f.flow.DestinationID = f.src.Identity(), peer.ID
	if f.plainly != nil {
		return far{datagrams: datagrams.Tunnelled{Stream: stream}}, nil
	}
	return far{stream: stream}, nil
}

// explain adds what a user may not think of.
func (f *flight) explain(ctx context.Context, d route.OutboundDecision, err error) error {
	if status, ok := errors.AsType[*hbone.StatusError](err); ok {
		f.reason = status.Response.Header[hbone.HeaderReason]
		if status.Response.Status == hbone.StatusUnauthorized {
			return fmt.Errorf("connection closed due to policy rejection: %w", err)
		}
	}
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return fmt.Errorf("tunnel to %s: timed out; a NetworkPolicy may be blocking port %d: %w", d.Dial, d.Dial.Port(), err)
	}
	return fmt.Errorf("tunnel to %s: %w", d.Dial, err)
}
