package outbound

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/ambit-mesh/ambit/internal/decision"
	"github.com/ambit-mesh/ambit/internal/hbone"
	"github.com/ambit-mesh/ambit/internal/linux"
	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/internal/relay"
	"github.com/ambit-mesh/ambit/internal/telemetry"
	"github.com/ambit-mesh/ambit/internal/view"
	"github.com/ambit-mesh/ambit/ztunnel/connections"
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
	// Dial makes plain connections from inside the pod.
	Dial func(ctx context.Context, to netip.AddrPort) (*net.TCPConn, error)
	// Tunnels are the pod's own: tunnels are never shared between pods.
	Tunnels     Opener
	Connections *connections.Set
	Recorder    *telemetry.Recorder
	// Decisions remembers connections for explanations. Nil: nobody does.
	Decisions *decision.Ring
	// OriginalDst tells where a captured connection was going. Nil is
	// linux.OriginalDst.
	OriginalDst func(*net.TCPConn) (netip.AddrPort, error)
	// LocalTimeout bounds the wait for the pod's record. Zero is 5 s.
	LocalTimeout time.Duration
	// ConnectTimeout bounds each attempt. Zero is 10 s.
	ConnectTimeout time.Duration
	// HalfOpen ends a connection of which one direction has ended and the other
	// carried nothing for so long. Zero is one hour.
	HalfOpen time.Duration
	// Attempts is how many endpoints are tried. Zero is 3.
	Attempts int
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
	waiting chan struct{} // a place for each that waits for a waypoint
}

// New fills the defaults.
func New(c Config) *Outbound {
	if c.LocalTimeout == 0 {
		c.LocalTimeout = 5 * time.Second
	}
	if c.ConnectTimeout == 0 {
		c.ConnectTimeout = 10 * time.Second
	}
	if c.HalfOpen == 0 {
		c.HalfOpen = time.Hour
	}
	if c.Attempts == 0 {
		c.Attempts = 3
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
	return &Outbound{c, make(chan struct{}, c.Waiting)}
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
	// reason is the destination's verdict in its own words.
	reason string
	// choice is how the endpoint was found, attempts how it was reached.
	choice   string
	attempts []decision.Attempt
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
	ctx, cancel := context.WithTimeout(ctx, f.LocalTimeout)
	defer cancel()
	if f.src, err = f.Local(ctx); err != nil {
		return err
	}
	f.flow.Source = f.src
	return nil
}

// refusedError is a decision not to connect.
type refusedError struct{ reason string }

func (e *refusedError) Error() string { return e.reason }

// connect tries endpoints until one accepts.
func (f *flight) connect(ctx context.Context) (far far, err error) {
	var avoid []netip.AddrPort
	for tried, lost := 1, false; ; tried++ {
		var d route.OutboundDecision
		d, avoid = f.decide(ctx, avoid)
		if d.Kind == route.Refuse {
			if err == nil { // otherwise the attempt before tells more
				f.flow.Service, err = d.Service, &refusedError{d.Reason}
			}
			return far, err
		}
		f.flow.Destination, f.flow.Service = d.Workload, d.Service
		f.flow.DestinationAddr, f.flow.HBONEAddr = d.Dial, d.Authority
		began := time.Now()
		far, err = f.attempt(ctx, d)
		f.note(d, time.Since(began), err)
		if err == nil {
			return far, nil
		}
		if d.Kind == route.Passthrough || tried >= f.Attempts || !another(ctx, err) {
			return far, err
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
func (f *flight) attempt(ctx context.Context, d route.OutboundDecision) (far, error) {
	ctx, cancel := context.WithTimeout(ctx, f.ConnectTimeout)
	defer cancel()
	switch d.Kind {
	case route.Plain, route.Passthrough:
		c, err := f.Dial(ctx, d.Dial)
		if err != nil {
			return far{}, fmt.Errorf("connecting to %s: %w", d.Dial, err)
		}
		return far{tcp: c}, nil
	case route.HBONE:
		return f.tunnel(ctx, d)
	case route.Refuse:
	}
	return far{}, &refusedError{d.Reason}
}

func (f *flight) tunnel(ctx context.Context, d route.OutboundDecision) (far, error) {
	target := hbone.Target{Address: d.Dial, Self: f.src.Identity(), Accept: d.Accept, Workload: d.Workload.UID}
	stream, answer, peer, err := f.Tunnels.Open(ctx, target, f.request(d))
	if err != nil {
		return far{}, f.explain(ctx, d, err)
	}
	f.reason = answer.Header[hbone.HeaderReason]
	f.flow.SourceID, f.flow.DestinationID = f.src.Identity(), peer.ID
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
