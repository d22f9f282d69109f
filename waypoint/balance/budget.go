package balance

import (
	"sync"
	"time"

	"github.com/ambit-mesh/ambit/internal/mesh"
)

// budget counts requests and retries of the last while.
type budget struct {
	mu                      sync.Mutex
	requests, retries, free window
}

// allows counts a request, or a retry if it is within the budget: a share of
// the requests, or the few that are always allowed (GEP-3388).
func (b *budget) allows(s *mesh.RetryBudget, retry bool, now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.requests.advance(now, s.Interval)
	b.retries.advance(now, s.Interval)
	b.free.advance(now, s.MinInterval)
	if !retry {
		b.requests.add()
		return true
	}
	if !within(b.retries.sum+1, s.Percent, b.requests.sum) && b.free.sum >= s.MinCount {
		return false
	}
	b.retries.add()
	b.free.add()
	return true
}

func within(retries, percent, requests int) bool { return 100*retries <= percent*requests }

// window is a sliding count in tenths of an interval.
type window struct {
	slots [10]int
	sum   int
	now   int64 // the current tenth, counted from 1970
}

func (w *window) advance(now time.Time, interval time.Duration) {
	n := now.UnixNano() / max(1, int64(interval)/int64(len(w.slots)))
	for i := w.now + 1; i <= min(n, w.now+int64(len(w.slots))); i++ {
		slot := &w.slots[i%int64(len(w.slots))]
		w.sum -= *slot
		*slot = 0
	}
	w.now = n
}

func (w *window) add() {
	w.slots[w.now%int64(len(w.slots))]++
	w.sum++
}
