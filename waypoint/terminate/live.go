package terminate

import (
	"context"
	"sync"
	"time"
)

// live are the connections that are carried and may have to be cut.
type live struct {
	mu    sync.Mutex
	conns map[*crossing]context.CancelCauseFunc
}

// track gives a context that ends when a policy cuts the connection.
func (l *live) track(ctx context.Context, c *crossing) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	l.mu.Lock()
	l.conns[c] = cancel
	l.mu.Unlock()
	return ctx, func() {
		l.mu.Lock()
		delete(l.conns, c)
		l.mu.Unlock()
		cancel(nil)
	}
}

// judge cuts one connection if a table denies it.
func (l *live) judge(c *crossing, t Table) bool {
	v := c.judge(t)
	if v.Allow {
		return false
	}
	l.mu.Lock()
	cancel := l.conns[c]
	l.mu.Unlock()
	if cancel != nil {
		cancel(&deniedError{v})
	}
	return true
}

// Follow judges every connection that is not HTTP anew, and says how many were
// cut. Requests need it not: each is judged by itself.
func (t *Terminator) Follow(table Table) (cut int) {
	t.former.follow(table, time.Now(), t.left)
	t.live.mu.Lock()
	all := make([]*crossing, 0, len(t.live.conns))
	for c := range t.live.conns {
		all = append(all, c)
	}
	t.live.mu.Unlock()
	for _, c := range all {
		if t.live.judge(c, table) {
			cut++
		}
	}
	return cut
}
