package telemetry

import (
	"cmp"
	"context"
	"log/slog"
	"time"

	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/internal/spiffe"
)

// Keys of the access log (dataplane spec 7.4; policy, reason, trace and those
// after error are ours).
const (
	KeySourceAddr           = "src.addr"
	KeySourceWorkload       = "src.workload"
	KeySourceNamespace      = "src.namespace"
	KeySourceIdentity       = "src.identity"
	KeySourceCluster        = "src.cluster"
	KeyDestinationAddr      = "dst.addr"
	KeyDestinationHBONE     = "dst.hbone_addr"
	KeyDestinationService   = "dst.service"
	KeyDestinationWorkload  = "dst.workload"
	KeyDestinationNamespace = "dst.namespace"
	KeyDestinationIdentity  = "dst.identity"
	KeyDestinationCluster   = "dst.cluster"
	KeyDirection            = "direction"
	KeyBytesSent            = "bytes_sent"
	KeyBytesReceived        = "bytes_recv"
	KeyDuration             = "duration"
	KeyPolicy               = "policy"
	KeyReason               = "reason"
	KeyTrace                = "trace"
	KeyError                = "error"
	KeyID                   = "id"
	KeyRoute                = "route"
	KeyGeneration           = "generation"
	KeyCut                  = "cut"
	KeyProtocol             = "protocol"
	KeyDatagramsSent        = "datagrams_sent"
	KeyDatagramsReceived    = "datagrams_recv"
)

// Recorder turns connections into metrics and access records.
type Recorder struct {
	traffic *Traffic
	log     *slog.Logger
	journal Journal // nil: nobody remembers
}

// NewRecorder counts into t and logs to log, whose component becomes "access".
func NewRecorder(t *Traffic, log *slog.Logger) *Recorder {
	return &Recorder{traffic: t, log: log.With("component", "access")}
}

// Connection is one open connection's record.
type Connection struct {
	recorder *Recorder
	flow     Flow
	start    time.Time
	counter  Counter
	series   *series
	counted  *counted
	entry    int // in the journal
}

// Open counts a connection that began at start. Close must follow.
func (r *Recorder) Open(f Flow, start time.Time, c Counter) *Connection {
	conn := &Connection{recorder: r, flow: f, start: start, counter: c}
	conn.series, conn.counted = r.traffic.begin(labelsOf(&f), c)
	conn.entry = -1
	if r.journal != nil && !f.Datagrams {
		conn.entry = r.journal.Begin(&f, start)
	}
	if ctx := context.Background(); r.log.Enabled(ctx, slog.LevelDebug) {
		r.log.LogAttrs(ctx, slog.LevelDebug, "connection opened", flowAttrs(&f, nil)...)
	}
	return conn
}

// Close counts the end and writes the one record of the connection.
func (c *Connection) Close(o Outcome) {
	c.recorder.traffic.end(c.series, c.counted, o)
	if c.entry >= 0 {
		defer c.recorder.journal.End(c.entry) // after its record
	}
	level, message := slog.LevelInfo, "connection complete"
	if o.Cut != CutNone {
		level = slog.LevelWarn
	}
	if o.Flag != FlagNone {
		level = slog.LevelError // a reset by an application, with an error but no flag, is daily life
	}
	ctx := context.Background()
	if !c.recorder.log.Enabled(ctx, level) {
		return
	}
	c.recorder.log.LogAttrs(ctx, level, message, c.attrs(o)...)
}

func (c *Connection) attrs(o Outcome) []slog.Attr {
	// The log speaks for the workload behind this proxy: what it sent.
	sent, received := c.counter.Load()
	if c.flow.Direction != Outbound {
		sent, received = received, sent
	}
	attrs := flowAttrs(&c.flow, make([]slog.Attr, 0, 24))
	attrs = append(attrs,
		slog.Uint64(KeyBytesSent, sent), slog.Uint64(KeyBytesReceived, received),
		slog.String(KeyDuration, time.Since(c.start).Round(time.Millisecond).String()))
	if n, ok := c.counter.(DatagramCounter); ok {
		sent, received := n.Datagrams()
		if c.flow.Direction != Outbound {
			sent, received = received, sent
		}
		attrs = append(attrs, slog.Uint64(KeyDatagramsSent, sent), slog.Uint64(KeyDatagramsReceived, received))
	}
	if !o.Policy.IsZero() {
		attrs = append(attrs, slog.String(KeyPolicy, o.Policy.String()))
	}
	if o.Reason != "" {
		attrs = append(attrs, slog.String(KeyReason, o.Reason))
	}
	if o.Cut != CutNone {
		attrs = append(attrs, slog.String(KeyCut, o.Cut.String()))
	}
	if o.Err != nil {
		attrs = append(attrs, slog.String(KeyError, o.Err.Error()))
	}
	return attrs
}

// Fail records a connection of which too little is known to count it.
func (r *Recorder) Fail(f Flow, o Outcome) {
	attrs := flowAttrs(&f, nil)
	if o.Reason != "" {
		attrs = append(attrs, slog.String(KeyReason, o.Reason))
	}
	if o.Err != nil {
		attrs = append(attrs, slog.String(KeyError, o.Err.Error()))
	}
	r.log.LogAttrs(context.Background(), slog.LevelWarn, "connection failed", attrs...)
}

func flowAttrs(f *Flow, attrs []slog.Attr) []slog.Attr {
	if f.ID != "" {
		attrs = append(attrs, slog.String(KeyID, f.ID))
	}
	attrs = append(attrs, slog.String(KeySourceAddr, f.SourceAddr.String()))
	attrs = endAttrs(attrs, f.Source, f.SourceID, KeySourceWorkload, KeySourceNamespace, KeySourceIdentity, KeySourceCluster)
	if f.DestinationAddr.IsValid() {
		attrs = append(attrs, slog.String(KeyDestinationAddr, f.DestinationAddr.String()))
	}
	if f.HBONEAddr != "" {
		attrs = append(attrs, slog.String(KeyDestinationHBONE, f.HBONEAddr))
	}
	if f.Service != nil {
		attrs = append(attrs, slog.String(KeyDestinationService, f.Service.Hostname))
	}
	attrs = endAttrs(attrs, f.Destination, f.DestinationID, KeyDestinationWorkload, KeyDestinationNamespace, KeyDestinationIdentity, KeyDestinationCluster)
	attrs = append(attrs, slog.String(KeyDirection, f.Direction.String()))
	if f.Datagrams {
		attrs = append(attrs, slog.String(KeyProtocol, "udp"))
	}
	if f.TraceParent != "" {
		attrs = append(attrs, slog.String(KeyTrace, f.TraceParent))
	}
	if !f.Route.IsZero() {
		attrs = append(attrs, slog.String(KeyRoute, f.Route.String()))
	}
	if f.Generation != 0 {
		attrs = append(attrs, slog.Uint64(KeyGeneration, f.Generation))
	}
	return attrs
}

func endAttrs(attrs []slog.Attr, w *mesh.Workload, id spiffe.ID, workload, namespace, identity, cluster string) []slog.Attr {
	if w != nil {
		// Baggage does not tell an instance's name.
		attrs = append(attrs, slog.String(workload, cmp.Or(w.Name, w.OwnerName)), slog.String(namespace, w.Namespace))
	}
	if !id.IsZero() {
		attrs = append(attrs, slog.String(identity, id.String()))
	}
	if w != nil && w.ClusterID != "" {
		attrs = append(attrs, slog.String(cluster, w.ClusterID))
	}
	return attrs
}
