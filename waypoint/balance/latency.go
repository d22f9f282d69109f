package balance

import (
	"math"
	"time"
)

// How latency is learned. It is forgotten, so that an endpoint that was slow
// is asked again.
const (
	latencyRise   = 0.5 // the weight of a slower answer
	latencyFall   = 0.1 // and of a faster one
	latencyForget = 10 * time.Second
	// latencyLeast is in seconds: below, differences are noise.
	latencyLeast = 0.001
)

// learnLocked takes in the latency of a good answer. Failures are often quick,
// and would make the endpoint attractive.
func (e *endpoint) learnLocked(now time.Time, d time.Duration) {
	sample := max(d.Seconds(), latencyLeast)
	if known := e.slowness(now); known > 0 {
		weight := latencyFall
		if sample > known {
			weight = latencyRise
		}
		sample = known + weight*(sample-known)
	}
	e.latency.Store(math.Float64bits(sample))
	e.measured.Store(uint64(now.UnixNano()))
}

// slowness is the latency that is remembered, in seconds; 0 is not known.
func (e *endpoint) slowness(now time.Time) float64 {
	age := now.UnixNano() - int64(e.measured.Load())
	left := 1 - float64(age)/float64(latencyForget)
	if left <= 0 {
		return 0
	}
	return max(latencyLeast, math.Float64frombits(e.latency.Load())*min(1, left))
}

// preferred says how likely a is the better of two, from 0 to 1. Latency
// counts where both are known.
func preferred(a, b *endpoint, now time.Time) float64 {
	x, y := a.slowness(now), b.slowness(now)
	if x == 0 || y == 0 {
		x, y = 1, 1
	}
	m, n := float64(a.inFlight.Load()+1), float64(b.inFlight.Load()+1)
	x, y = m*m*m*m*x*x, n*n*n*n*y*y
	return y / (x + y)
}
