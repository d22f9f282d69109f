package match

import (
	"slices"
	"time"

	"github.com/ambit-mesh/ambit/internal/mesh"
)

// Failure is how a try at an endpoint ended without an answer.
type Failure uint8

// The failures. The zero value is a try that has a status.
const (
	FailureNone Failure = iota
	// FailureUnsent: nothing of the request was processed, since there was no
	// connection, or the endpoint refused the stream.
	FailureUnsent
	// FailureBroken: the connection ended when the request may have been
	// processed. The client is answered 502 in the end.
	FailureBroken
	// FailureTimeout: the try took longer than it may. The client is answered
	// 504 in the end.
	FailureTimeout
)

// Status is what the client is answered if no try does better; 0 of a try that
// has one.
func (f Failure) Status() int {
	return [...]int{0, 503, 502, 504}[f&3]
}

// defaultRetry is what a rule without a word about retries gets: what has
// certainly not been processed is tried at two more endpoints.
var defaultRetry = mesh.Retry{Attempts: 2}

// The pauses before retries begin at leastBackoff, if the author says nothing,
// and double up to maxBackoff times that.
const (
	leastBackoff = 25 * time.Millisecond
	maxBackoff   = 10
)

// Retries is the rule's, or the default.
func (d Decision) Retries() *mesh.Retry {
	if rule := d.Spec(); rule != nil && rule.Retry != nil {
		return rule.Retry
	}
	return &defaultRetry
}

// Again reports whether a request is tried again after so many tries, of which
// the last ended with a status or failure. What may have been processed is
// retried only where its status is listed; the caller knows whether it still
// has the request's body, and time left.
func Again(r *mesh.Retry, tries, status int, f Failure) bool {
	if tries > r.Attempts {
		return false
	}
	if f != FailureNone {
		status = f.Status()
	}
	return f == FailureUnsent || slices.Contains(r.Codes, status)
}

// Backoff is the pause before a retry after so many tries, never less than the
// author's least. Between that and the doubled pause it is random, with rnd
// giving a number from 0 to n-1, so that clients of one failure do not return
// together.
func Backoff(r *mesh.Retry, tries int, rnd func(n int) int) time.Duration {
	least := r.Backoff
	if least <= 0 {
		least = leastBackoff
	}
	factor := 1 << min(max(tries, 1), 4)
	return least + time.Duration(rnd(int(least)*(min(factor, maxBackoff)-1)+1))
}
