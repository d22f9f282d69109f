package terminate

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"github.com/ambit-mesh/ambit/internal/decision"
	"github.com/ambit-mesh/ambit/internal/hbone"
	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/internal/policy"
	"github.com/ambit-mesh/ambit/internal/telemetry"
	"github.com/ambit-mesh/ambit/internal/view"
	"github.com/ambit-mesh/ambit/waypoint/balance"
	"github.com/ambit-mesh/ambit/waypoint/exchange"
	"github.com/ambit-mesh/ambit/waypoint/forward"
	"github.com/ambit-mesh/ambit/waypoint/match"
)

// Table is one state of the configuration; it never changes.
type Table interface {
	View() *view.View
	Generation() uint64
	Superseded() <-chan struct{}
	Routes(mesh.ServiceKey, uint16) *match.Routes
	Traffic(mesh.ServiceKey) *mesh.Traffic
	Policies(mesh.ServiceKey) policy.Set
}

// Engine speaks HTTP on connections.
type Engine interface {
	Serve(c net.Conn, a *exchange.Arrival)
}

// Config is what a Terminator works with; every field without a zero value is
// required.
type Config struct {
	// Table is asked once for each decision.
	Table func() Table
	// Gateway is this waypoint's own service: what names it is served.
	Gateway mesh.ServiceKey
	// Self is the waypoint's own record, nil while it has not come.
	Self     func() *mesh.Workload
	HTTP     Engine
	Balancer *balance.Balancer
	Forward  *forward.Forwarder
	// Recorder records connections that are not HTTP.
	Recorder *telemetry.Recorder
	// DryRuns is told what dry-run policies say of them. Nil: nobody is.
	DryRuns *telemetry.DryRuns
	// Decisions remembers them for explanations. Nil: nobody does.
	Decisions *decision.Ring
	// Patience is how long a connection waits for the configuration that serves
	// it: a client's proxy may hear of it earlier. Zero is 2 s.
	Patience time.Duration
	// Silence is how long a client of a port without a declared protocol may say
	// nothing before its backend is connected to, as that may speak first. Zero is
	// 5 ms.
	Silence time.Duration
	// Unfinished is how long what looks like the beginning of a request may stay
	// unfinished before it is taken for other bytes. Zero is 1 s.
	Unfinished time.Duration
	// HalfOpen ends a connection of which one direction has ended and the other
	// carried nothing for so long. Zero is one hour.
	HalfOpen time.Duration
	// Attempts is how many endpoints are tried for a connection. Zero is 3.
	Attempts int
	// Logger receives what has no record. Nil discards it.
	Logger *slog.Logger
}

// Terminator serves the waypoint's tunnels.
type Terminator struct {
	Config
	live   live
	former former
}

// New fills the defaults.
func New(c Config) *Terminator {
	def(&c.Patience, 2*time.Second)
	def(&c.Silence, 5*time.Millisecond)
	def(&c.Unfinished, time.Second)
	def(&c.HalfOpen, time.Hour)
	def(&c.Attempts, 3)
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return &Terminator{Config: c, live: live{conns: map[*crossing]context.CancelCauseFunc{}}}
}

func def[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// Refused records a peer that got no tunnel.
func (t *Terminator) Refused(remote netip.AddrPort, err error) {
	flag := telemetry.FlagHandshakeFailure
	if _, ok := errors.AsType[*hbone.PeerError](err); ok {
		flag = telemetry.FlagTLSFailure
	}
	t.Recorder.Fail(telemetry.Flow{Direction: telemetry.Waypoint, SourceAddr: remote}, telemetry.Outcome{Flag: flag, Err: err})
}

// Tunnel serves one CONNECT; it is a hbone.Handler.
func (t *Terminator) Tunnel(in hbone.Incoming) {
	c := &crossing{Terminator: t, in: in, peer: in.Peer(), start: time.Now(), random: rand.IntN}
	c.flow = telemetry.Flow{
		ID: decision.Adopt(in.Request().Header[hbone.HeaderDecision]), Direction: telemetry.Waypoint, SourceAddr: c.peer.Remote, SourceID: c.peer.ID,
		HBONEAddr: in.Request().Authority, TraceParent: in.Request().Header[hbone.HeaderTraceparent],
	}
	if c.flow.TraceParent == "" {
		c.flow.TraceParent = telemetry.NewTraceParent()
	}
	if no := c.find(in.Context()); no != nil {
		c.refuse(no)
		return
	}
	switch c.speech() {
	case speechHTTP:
		c.http()
	case speechTLS:
		c.tls()
	case speechTCP:
		c.tcp()
	case speechUnknown:
		c.sniff()
	}
}

// crossing is one connection on its way through.
type crossing struct {
	*Terminator
	in     hbone.Incoming
	peer   hbone.Peer
	start  time.Time
	random func(int) int

	table   Table
	dst     destination
	flow    telemetry.Flow
	verdict policy.Verdict
	sni     string
	stream  *peeked // once accepted
	// interrupted ends the look at the client's first bytes.
	interrupted atomic.Bool
}

// refusal is why a connection does not get through.
type refusal struct {
	status int
	flag   telemetry.Flag
	err    error
}

func unavailable(err error) *refusal {
	return &refusal{hbone.StatusUnavailable, telemetry.FlagConnect, err}
}

// find resolves what the client asks for, and waits a little for the
// configuration that serves it.
func (c *crossing) find(ctx context.Context) *refusal {
	ctx, cancel := context.WithTimeout(ctx, c.Patience)
	defer cancel()
	for {
		c.table = c.Table()
		var err error
		if err = c.resolveIn(c.table); err == nil || c.resolveFormer() {
			c.describe()
			return nil
		}
		if bad, ok := errors.AsType[*badAuthority](err); ok {
			return &refusal{hbone.StatusBadRequest, telemetry.FlagConnect, bad}
		}
		select {
		case <-c.table.Superseded():
		case <-ctx.Done():
			return unavailable(err)
		}
	}
}

func (c *crossing) resolveIn(t Table) (err error) {
	c.dst, err = c.resolve(t.View(), c.in.Request().Authority, c.peer.ID.Namespace)
	return err
}

// resolveFormer finds a service that has just left.
func (c *crossing) resolveFormer() bool {
	for _, t := range c.former.all(time.Now()) {
		if c.resolveIn(t) == nil {
			c.table = t
			return true
		}
	}
	return false
}

// describe notes who speaks to whom.
func (c *crossing) describe() {
	v := c.table.View()
	c.flow.Generation = c.table.Generation()
	c.flow.Service, c.flow.DestinationAddr = c.dst.service, c.dst.dialled
	c.flow.Source = telemetry.ParseBaggage(c.in.Request().Header[hbone.HeaderBaggage])
	if self := c.Self(); self != nil {
		if w := v.WorkloadByAddress(self.Network, c.peer.Remote.Addr()); w != nil && slices.Contains(w.Identities(), c.peer.ID) {
			c.flow.Source = w
		}
	}
}

// accept answers 200. From then on a refusal is a reset.
func (c *crossing) accept(reason string) error {
	var header map[string]string
	if reason != "" {
		header = map[string]string{hbone.HeaderReason: reason}
	}
	s, err := c.in.Accept(header)
	if err != nil {
		return err
	}
	c.stream = &peeked{Stream: s}
	return nil
}

// refuse ends a connection that does not get through, and records it.
func (c *crossing) refuse(no *refusal) {
	if c.stream == nil {
		c.in.Reject(no.status, no.err.Error())
	} else {
		c.stream.Reset()
	}
	o := telemetry.Outcome{Flag: no.flag, Err: no.err, Reason: c.verdict.String()}
	if no.flag == telemetry.FlagDeny {
		o.Policy = c.verdict.Policy
	}
	if c.dst == (destination{}) {
		o.Reason = no.err.Error()
		c.Recorder.Fail(c.flow, o)
		c.keep(o, nothing{})
		return
	}
	c.Recorder.Open(c.flow, c.start, nothing{}).Close(o)
	c.keep(o, nothing{})
}

// nothing counts a connection that carried nothing.
type nothing struct{}

func (nothing) Load() (uint64, uint64) { return 0, 0 }

// http hands the connection to the engine, which answers for each request.
func (c *crossing) http() {
	if c.stream == nil {
		if err := c.accept(""); err != nil {
			return
		}
	}
	a := &exchange.Arrival{
		Peer: c.peer.ID, Source: c.peer.Remote, Dialled: c.dst.dialled, Port: c.dst.port,
		Client: telemetry.ParseBaggage(c.in.Request().Header[hbone.HeaderBaggage]), TraceParent: c.flow.TraceParent,
	}
	if c.dst.service != nil {
		a.Service = c.dst.service.Key()
	} else {
		a.Workload = c.dst.workload.UID
	}
	c.HTTP.Serve(hbone.NewConn(c.stream, c.dst.dialled, c.peer.Remote), a)
	c.stream.linger()
}
