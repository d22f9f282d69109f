package balance

import (
	"math"
	"time"
)

// How latency is learned. It forgets, so that an endpoint that was slow is
// asked again.
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
	sample, known := max(d.Seconds(), latencyLeast), e.slowness(now)
	weight := latencyFall
	if sample > known {
		weight = latencyRise
	}
	e.latency.Store(math.Float64bits(known + weight*(sample-known)))
	e.measured.Store(uint64(now.UnixNano()))
}

// slowness is the latency that is remembered, in seconds.
func (e *endpoint) slowness(now time.Time) float64 {
	age := now.UnixNano() - int64(e.measured.Load())
	left := 1 - float64(age)/float64(latencyForget)
	if left <= 0 {
		return latencyLeast
	}
	return max(latencyLeast, math.Float64frombits(e.latency.Load())*min(1, left))
}

// burden is what two endpoints are compared by.
func (e *endpoint) burden(now time.Time) float64 {
	n, l := float64(e.inFlight.Load()+1), e.slowness(now)
	return n * n * n * n * l * l
}
