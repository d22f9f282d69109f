package balance

import (
	"sync"
	"time"

	"github.com/ambit-mesh/ambit/internal/mesh"
)

// The defaults of a retry budget (GEP-3388).
const (
	budgetPercent     = 20
	budgetInterval    = 10 * time.Second
	budgetMinCount    = 10
	budgetMinInterval = time.Second
)

// budget counts requests and retries of the last while.
type budget struct {
	mu                      sync.Mutex
	requests, retries, free window
}

// allows counts a request, or a retry if it is within the budget: a share of
// the requests, or the few that are always allowed.
func (b *budget) allows(s *mesh.RetryBudget, retry bool, now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	percent, count := s.Percent, s.MinCount
	if percent == 0 {
		percent = budgetPercent
	}
	if count == 0 {
		count = budgetMinCount
	}
	b.requests.advance(now, orElse(s.Interval, budgetInterval))
	b.retries.advance(now, orElse(s.Interval, budgetInterval))
	b.free.advance(now, orElse(s.MinInterval, budgetMinInterval))
	if !retry {
		b.requests.add()
		return true
	}
	if 100*(b.retries.sum+1) > percent*b.requests.sum && b.free.sum >= count {
		return false
	}
	b.retries.add()
	b.free.add()
	return true
}

func orElse(d, otherwise time.Duration) time.Duration {
	if d > 0 {
		return d
	}
	return otherwise
}

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
