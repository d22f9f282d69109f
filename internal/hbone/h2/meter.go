package h2

import "time"

// meter bounds what a peer may do that costs us and carries nothing: pings,
// settings, empty DATA, requests withdrawn before their answer. It is a token
// bucket, wide enough that no honest peer finds its end (ztunnel#2100 is about
// counters that were not).
type meter struct {
	tokens float64
	last   time.Time
}

const (
	meterBurst = 1000
	meterRate  = 200 // per second

	costFrame   = 1 // a frame that carries nothing
	costRequest = 5 // a request refused or withdrawn
)

func newMeter() meter { return meter{tokens: meterBurst, last: time.Now()} }

// spend reports whether the peer stays within its bounds.
func (m *meter) spend(n float64, now time.Time) bool {
	m.tokens = min(meterBurst, m.tokens+now.Sub(m.last).Seconds()*meterRate)
	m.last = now
	m.tokens -= n
	return m.tokens >= 0
}
