package door

import "time"

// Meter bounds what a peer may do that costs us and carries nothing. It is a
// token bucket, wide enough that no honest peer finds its end (ztunnel#2100 is
// about counters that were not).
type Meter struct {
	tokens, burst, rate float64 // rate is per second
	last                time.Time
}

// NewMeter is full.
func NewMeter(burst, rate float64) Meter {
	return Meter{tokens: burst, burst: burst, rate: rate, last: time.Now()}
}

// Spend reports whether the peer stays within its bounds.
func (m *Meter) Spend(n float64, now time.Time) bool {
	m.refill(now)
	m.tokens -= n
	return m.tokens >= 0
}

func (m *Meter) refill(now time.Time) {
	m.tokens = min(m.burst, m.tokens+now.Sub(m.last).Seconds()*m.rate)
	m.last = now
}

// full is a meter that nobody has used for a while.
func (m *Meter) full(now time.Time) bool {
	m.refill(now)
	return m.tokens >= m.burst
}
