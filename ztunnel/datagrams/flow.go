package datagrams

import (
	"context"
	"errors"
	"net/netip"
	"time"
)

// Flow is what goes from one address to another.
type Flow struct{ Source, Destination netip.AddrPort }

// Carrier brings datagrams to where they go.
type Carrier interface {
	// Open chooses where a flow leads, for as long as it lasts. The end of ctx is
	// that of the flow, or of the time that opening may take.
	Open(ctx context.Context, f Flow) (Conn, error)
}

// Conn carries one flow. Its methods may be called at the same time.
type Conn interface {
	// Send sends a datagram, and keeps it no longer than the call. What cannot be
	// sent is lost, and the flow goes on.
	Send(payload []byte) error
	// Receive waits for datagrams and lends them to take one after another. An
	// error ends the flow.
	Receive(take func(payload []byte)) error
	// Close ends both.
	Close() error
}

// Answers sends what comes back.
type Answers interface {
	Send(payload []byte, from, to netip.AddrPort) error
}

// Drop is why a datagram was not carried.
type Drop int

// The reasons.
const (
	// TooManyFlows: the pod has as many as it may, and they are answered.
	TooManyFlows Drop = iota
	// QueueFull: the flow is not carried as fast as its program sends.
	QueueFull
	// MemoryFull: all flows together keep as much as they may.
	MemoryFull
	// NotOpened: the flow could not be opened.
	NotOpened
	// NotSent: the flow's carrier did not take it.
	NotSent
	// NotAnswered: it came back, and could not be given to the program.
	NotAnswered
	// Late: the pod is let go of.
	Late
	// Misdirected: it does not say where it was going, or that is loopback: nobody
	// captured it.
	Misdirected
	// Overrun: the kernel had no more room for what the proxy was to read.
	Overrun

	drops int = iota
)

// reasons are the words for them, of metrics.
var reasons = [drops]string{
	TooManyFlows: "too_many_flows", QueueFull: "queue_full", MemoryFull: "memory_full", NotOpened: "not_opened", NotSent: "not_sent",
	NotAnswered: "not_answered", Late: "late", Misdirected: "misdirected", Overrun: "overrun",
}

// String is the word of metrics.
func (d Drop) String() string { return reasons[d] }

// Drops counts datagrams by the reason for which they were dropped.
type Drops [drops]uint64

// Count is datagrams and their bytes.
type Count struct{ Datagrams, Bytes uint64 }

// Why a flow ended, if not by an error of its carrier.
var (
	// ErrIdle is the common end.
	ErrIdle = errors.New("nobody sent anything for a while")
	// ErrCrowded is the end of one that was not answered, when there are too many.
	ErrCrowded = errors.New("another flow needed its place")
	// ErrDrained is the end of the pod's membership.
	ErrDrained = errors.New("the pod is let go of")
)

// Ended is a flow that has ended.
type Ended struct {
	Flow
	Started time.Time
	Lasted  time.Duration
	// Why it ended.
	Why error
	// Sent went from the source, Received came back to it.
	Sent, Received Count
	Dropped        Drops
}
