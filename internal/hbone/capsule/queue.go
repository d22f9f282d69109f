package capsule

import (
	"bytes"
	"context"
	"sync"
)

// What a stream keeps for who does not receive.
const (
	maxQueued      = 128
	maxQueuedBytes = 256 << 10
)

// Queue holds datagrams until they are received, up to a bound; what comes then
// is dropped and counted.
type Queue struct {
	mu      sync.Mutex
	waiting [][]byte
	bytes   int
	dropped uint64
	err     error
	news    chan struct{} // has a token if something has changed
}

// NewQueue is empty.
func NewQueue() *Queue { return &Queue{news: make(chan struct{}, 1)} }

// Push adds a copy of p.
func (q *Queue) Push(p []byte) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.err != nil {
		return
	}
	if len(q.waiting) >= maxQueued || q.bytes+len(p) > maxQueuedBytes {
		q.dropped++
		return
	}
	q.waiting = append(q.waiting, bytes.Clone(p))
	q.bytes += len(p)
	q.tellLocked()
}

func (q *Queue) tellLocked() {
	select {
	case q.news <- struct{}{}:
	default:
	}
}

// End says that nothing more comes; err is given after what waits, or, with drop,
// instead of it. The first reason stays, unless another drops.
func (q *Queue) End(err error, drop bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if drop {
		q.waiting, q.bytes = nil, 0
	}
	if q.err == nil || drop {
		q.err = err
	}
	q.tellLocked()
}

// Receive gives the next datagram.
func (q *Queue) Receive(ctx context.Context) ([]byte, error) {
	for {
		if p, err := q.take(); p != nil || err != nil {
			return p, err
		}
		select {
		case <-q.news:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// take gives what there is; both nil is nothing yet.
func (q *Queue) take() ([]byte, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.waiting) == 0 {
		if q.err != nil {
			q.tellLocked() // others may wait too
		}
		return nil, q.err
	}
	p := q.waiting[0]
	q.waiting[0] = nil
	q.waiting = q.waiting[1:]
	q.bytes -= len(p)
	if len(q.waiting) > 0 || q.err != nil {
		q.tellLocked()
	}
	if p == nil {
		p = []byte{} // an empty datagram is one
	}
	return p, nil
}

// Dropped is how many datagrams there was no room for.
func (q *Queue) Dropped() uint64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.dropped
}
