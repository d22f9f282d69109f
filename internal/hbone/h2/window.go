package h2

import (
	"sync/atomic"
	"time"
)

// window is the receive window of one stream, under stream.rmu. It begins small
// and doubles when the peer used up a quarter of it within a round trip, that
// is, when the window and not the application is what holds the peer back.
type window struct {
	left   int // what the peer may still send
	credit int // consumed, not yet given back
	size   int
	since  time.Time // of the last update
	budget *atomic.Int64
}

func newWindow(t *tunnel) window {
	return window{left: t.tuning.StreamWindow, size: t.tuning.StreamWindow, budget: &t.growth}
}

// consume notes n bytes taken by the application and returns what to give back
// to the peer, 0 mostly.
func (w *window) consume(n int, rtt time.Duration, limit int) int {
	w.credit += n
	if w.credit < w.size/4 {
		return 0
	}
	now := time.Now()
	if fast := now.Sub(w.since) < rtt; fast && !w.since.IsZero() {
		w.credit += w.grow(limit)
	}
	w.since = now
	give := w.credit
	w.left += give
	w.credit = 0
	return give
}

// grow doubles the window if the tunnel's budget for that allows.
func (w *window) grow(limit int) int {
	more := min(w.size, limit-w.size)
	if more <= 0 {
		return 0
	}
	if w.budget.Add(-int64(more)) < 0 {
		w.budget.Add(int64(more))
		return 0
	}
	w.size += more
	return more
}

// end returns what the window grew by to the budget.
func (w *window) end(initial int) {
	w.budget.Add(int64(w.size - initial))
	w.size = initial
}
