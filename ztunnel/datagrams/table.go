package datagrams

import (
	"cmp"
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ambit-mesh/ambit/internal/linux"
)

// Config is what a Table works with; every field without a zero value is
// required.
type Config struct {
	Carrier Carrier
	Answers Answers
	// Ended is told of every flow that ends, by several goroutines at once. Nil:
	// nobody is.
	Ended  func(Ended)
	Logger *slog.Logger
	// Unreplied is how long a flow lives without a datagram before any came back,
	// Replied how long afterwards. Zero is the kernel's own for connection
	// tracking of old: 30 s and 180 s.
	Unreplied, Replied time.Duration
	// Opening bounds the time to open a flow. Zero is 10 s.
	Opening time.Duration
	// Rest is how long a flow that could not be opened is not tried again. Zero is
	// a second.
	Rest time.Duration
	// MaxFlows are as many as there may be at once. Zero is 4,096.
	MaxFlows int
	// Queue is how many datagrams of a flow may wait to be sent, Waiting how many
	// bytes of all flows together. Zero is 256, and 8 MiB.
	Queue, Waiting int
}

func (c Config) withDefaults() Config {
	c.Unreplied, c.Replied = cmp.Or(c.Unreplied, 30*time.Second), cmp.Or(c.Replied, 180*time.Second)
	c.Opening, c.Rest = cmp.Or(c.Opening, 10*time.Second), cmp.Or(c.Rest, time.Second)
	c.MaxFlows, c.Queue, c.Waiting = cmp.Or(c.MaxFlows, 4096), cmp.Or(c.Queue, 256), cmp.Or(c.Waiting, 8<<20)
	return c
}

// Table is the flows of one pod in one direction.
type Table struct {
	Config
	cut     context.Context // ends every flow
	cancel  context.CancelCauseFunc
	running sync.WaitGroup // flows and receivers
	waiting atomic.Int64   // bytes in queues
	dropped counters

	mu       sync.Mutex
	flows    map[Flow]*live
	draining bool // takes no more
	sources  []Source
}

// New makes a table, which ends with Drain.
func New(c Config) *Table {
	t := &Table{Config: c.withDefaults(), flows: map[Flow]*live{}}
	t.cut, t.cancel = context.WithCancelCause(context.Background())
	return t
}

// Take carries a datagram on its flow, or drops it. It does not wait, and keeps
// nothing of d.
func (t *Table) Take(d linux.Datagram) {
	if !d.Source.IsValid() || !d.Destination.IsValid() || d.Destination.Addr().IsLoopback() {
		t.dropped.add(Misdirected)
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	l, why := t.flowLocked(Flow{d.Source, d.Destination})
	if l == nil {
		t.dropped.add(why)
		return
	}
	l.queueLocked(d.Payload)
}

// flowLocked finds a flow, or begins it.
func (t *Table) flowLocked(f Flow) (*live, Drop) {
	l := t.flows[f]
	switch {
	case l != nil:
		return l, 0
	case t.draining:
		return nil, Late
	case len(t.flows) >= t.MaxFlows && !t.makeRoomLocked():
		return nil, TooManyFlows
	}
	l = t.newLive(f)
	t.flows[f] = l
	t.running.Go(l.run)
	return l, 0
}

// sampled is how many flows are looked at when there are too many.
const sampled = 16

// makeRoomLocked ends a flow without an answer, of a few the one that has been
// silent the longest, so that whoever sends to many that do not answer, or with
// the addresses of many, keeps nobody out who is answered.
func (t *Table) makeRoomLocked() bool {
	var last *live
	looked := 0
	for _, l := range t.flows { // Go begins anywhere
		if !l.replied.Load() && (last == nil || l.silent() > last.silent()) {
			last = l
		}
		if looked++; looked == sampled {
			break
		}
	}
	if last == nil {
		return false
	}
	last.forgetLocked()
	last.cancel(ErrCrowded)
	return true
}

// Flows is how many there are.
func (t *Table) Flows() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.flows)
}

// counters are Drops that several goroutines add to.
type counters [drops]atomic.Uint64

func (c *counters) add(why Drop) { c[why].Add(1) }

func (c *counters) all() (d Drops) {
	for i := range c {
		d[i] = c[i].Load()
	}
	return d
}
