package datagrams

import (
	"context"
	"sync/atomic"
	"time"
)

// live is a flow of a table.
type live struct {
	table   *Table
	flow    Flow
	started time.Time
	queue   queue
	ctx     context.Context // ends with the flow, and with why
	cancel  context.CancelCauseFunc
	idle    *time.Timer

	last           atomic.Int64 // when something was carried, as time since started
	opened         atomic.Bool  // it is carried; until then it is not idle
	replied        atomic.Bool
	sent, received count
	dropped        counters

	failed bool // to open; guarded by the table's mutex
}

func (t *Table) newLive(f Flow) *live {
	l := &live{table: t, flow: f, started: time.Now(), queue: newQueue()}
	l.ctx, l.cancel = context.WithCancelCause(t.cut)
	l.idle = time.AfterFunc(min(t.Unreplied, t.Replied), l.endIfIdle)
	return l
}

// queueLocked puts a copy of a datagram behind those that wait.
func (l *live) queueLocked(payload []byte) {
	size := int64(len(payload))
	switch {
	case l.failed:
		l.drop(NotOpened)
		return
	case l.table.waiting.Load()+size > int64(l.table.Waiting):
		l.drop(MemoryFull)
		return
	}
	if l.queue.len() == 0 {
		l.touch() // what waits is carried before the flow can be idle
	}
	l.table.waiting.Add(size)
	if !l.queue.put(append([]byte(nil), payload...), l.table.Queue) {
		l.table.waiting.Add(-size)
		l.drop(QueueFull)
	}
}

// run is the flow's life.
func (l *live) run() {
	conn, err := l.open()
	if err != nil {
		l.rest(err)
	} else {
		l.touch()
		l.opened.Store(true)
		l.carry(conn)
	}
	l.end()
}

func (l *live) open() (Conn, error) {
	ctx, cancel := context.WithTimeout(l.ctx, l.table.Opening)
	defer cancel()
	return l.table.Carrier.Open(ctx, l.flow)
}

// rest keeps a flow that could not be opened from being opened again for each
// datagram.
func (l *live) rest(why error) {
	l.table.mu.Lock()
	l.failed = true
	l.table.mu.Unlock()
	l.dropQueue(NotOpened)
	select {
	case <-time.After(l.table.Rest):
	case <-l.ctx.Done():
	}
	l.cancel(why)
}

// carry sends what is queued and answers what comes back until the flow ends.
func (l *live) carry(conn Conn) {
	closed := make(chan struct{})
	context.AfterFunc(l.ctx, func() {
		conn.Close()
		close(closed)
	})
	received := make(chan struct{})
	go func() {
		defer close(received)
		l.receive(conn)
	}()
	l.send(conn)
	<-closed
	<-received
}

func (l *live) send(conn Conn) {
	for l.ctx.Err() == nil {
		payload, ok := l.next()
		if !ok {
			select {
			case <-l.queue.arrived:
			case <-l.ctx.Done():
			}
			continue
		}
		if err := conn.Send(payload); err != nil {
			l.drop(NotSent)
			continue
		}
		l.sent.add(payload)
		l.touch()
	}
}

// next takes what waits first.
func (l *live) next() ([]byte, bool) {
	payload, ok := l.queue.next()
	l.table.waiting.Add(-int64(len(payload)))
	return payload, ok
}

func (l *live) receive(conn Conn) {
	for l.ctx.Err() == nil {
		if err := conn.Receive(l.answer); err != nil {
			l.cancel(err)
		}
	}
}

func (l *live) answer(payload []byte) {
	if err := l.table.Answers.Send(payload, l.flow.Destination, l.flow.Source); err != nil {
		l.drop(NotAnswered)
		return
	}
	l.received.add(payload)
	l.replied.Store(true)
	l.touch()
}

func (l *live) touch() { l.last.Store(int64(time.Since(l.started))) }

// silent is for how long nothing has been carried.
func (l *live) silent() time.Duration { return time.Since(l.started) - time.Duration(l.last.Load()) }

// endIfIdle ends the flow if it has been idle for long enough, or looks again
// when it may have been.
func (l *live) endIfIdle() {
	l.table.mu.Lock()
	defer l.table.mu.Unlock()
	limit := l.table.Unreplied
	if l.replied.Load() {
		limit = l.table.Replied
	}
	left := limit - l.silent()
	if !l.opened.Load() {
		left = limit // opening, and resting after it, have bounds of their own
	}
	if left > 0 {
		l.idle.Reset(left)
		return
	}
	l.forgetLocked()
	l.cancel(ErrIdle)
}

// forgetLocked leaves the flow's place to the next of its addresses.
func (l *live) forgetLocked() {
	if l.table.flows[l.flow] == l {
		delete(l.table.flows, l.flow)
	}
}

// end tells of the flow, which nobody finds any more.
func (l *live) end() {
	l.table.mu.Lock()
	l.forgetLocked()
	l.table.mu.Unlock()
	l.idle.Stop()
	l.dropQueue(NotSent)
	if l.table.Ended == nil {
		return
	}
	l.table.Ended(Ended{
		Flow: l.flow, Started: l.started, Lasted: time.Since(l.started), Why: context.Cause(l.ctx),
		Sent: l.sent.value(), Received: l.received.value(), Dropped: l.dropped.all(),
	})
}

func (l *live) dropQueue(why Drop) {
	for _, ok := l.next(); ok; _, ok = l.next() {
		l.drop(why)
	}
}

func (l *live) drop(why Drop) {
	l.dropped.add(why)
	l.table.dropped.add(why)
}

// count is a Count that several goroutines add to.
type count struct{ datagrams, bytes atomic.Uint64 }

func (c *count) add(payload []byte) {
	c.datagrams.Add(1)
	c.bytes.Add(uint64(len(payload)))
}

func (c *count) value() Count { return Count{c.datagrams.Load(), c.bytes.Load()} }
