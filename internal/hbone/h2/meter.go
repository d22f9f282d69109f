package h2

import "time"

// Frames that carry nothing: pings, settings, empty DATA, requests withdrawn
// before anybody could answer them. Nothing that belongs to bytes moved is
// counted; see earn.
const (
	meterBurst = 1000
	meterRate  = 200 // per second

	costFrame   = 1 // a frame that carries nothing
	costRequest = 5 // a request refused, or withdrawn at once

	// patienceOfAll is how long every client waits for its answer. Who withdraws
	// a request after that was not rapid, however many there are: the number of
	// streams bounds those.
	patienceOfAll = 50 * time.Millisecond
)

// What a peer's WINDOW_UPDATEs and late RST_STREAMs are paid with: it may give
// two windows back for each frame and each kilobyte that it got, however small
// its frames are, and some for each stream.
const (
	earnedStream = 4
	earnedFrame  = 2
	earnedPer    = 1 << 10 // bytes
)

// earn is what follows from n bytes of DATA sent in one frame.
func (t *tunnel) earn(n int) { t.earned.Add(int64(earnedFrame + n/earnedPer)) }

// payEarned is pay for what a peer does in answer to us.
func (t *tunnel) payEarned(why Abuse) error {
	if t.earned.Load() > 0 {
		t.earned.Add(-1)
		return nil
	}
	return t.pay(why, costFrame)
}

// pay ends the tunnel of a peer that floods us.
func (t *tunnel) pay(why Abuse, cost float64) error {
	if !t.calm.Spend(cost, time.Now()) {
		return abuseError(why, "too many in too short a time")
	}
	return nil
}
