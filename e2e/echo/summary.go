package echo

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"
)

// Summary is what a client prints at its end, as one JSON object.
type Summary struct {
	Target   string         `json:"target"`
	Attempts int            `json:"attempts"`
	OK       int            `json:"ok"`
	Failed   int            `json:"failed"`
	Failures map[string]int `json:"failures,omitempty"` // reason to count
	// FirstFailure is when, since the begin of the run, the first attempt that
	// failed was begun.
	FirstFailure string `json:"firstFailure,omitempty"`
	// Answered counts good answers by the host name in them.
	Answered map[string]int `json:"answered,omitempty"`
	Latency  *Latency       `json:"latency,omitempty"`
	// Elapsed is the time of the whole run.
	Elapsed string `json:"elapsed"`
	// Last is the last good answer, if it was JSON.
	Last any `json:"last,omitempty"`
	// Header is that of the last HTTP answer, whatever its status.
	Header map[string][]string `json:"header,omitempty"`
	// Bytes, MBPerSecond and SHA256 describe a transfer.
	Bytes       int64   `json:"bytes,omitempty"`
	MBPerSecond float64 `json:"mbPerSecond,omitempty"`
	SHA256      string  `json:"sha256,omitempty"`
	// LongestGap is the longest time between two answers on a held connection.
	LongestGap string `json:"longestGap,omitempty"`
	// FirstFailed is when the earliest attempt that failed began, by the clock, and
	// LastOK when the latest good one did; each is zero if there was none.
	FirstFailed time.Time `json:"firstFailed,omitzero"`
	LastOK      time.Time `json:"lastOK,omitzero"`
	// FirstFailureKnown is when it was first known of an attempt that it failed:
	// what begins later cannot overlap with what went wrong.
	FirstFailureKnown time.Time `json:"firstFailureKnown,omitzero"`

	began time.Time
	took  []time.Duration
}

// Latency is how long good attempts took.
type Latency struct {
	P50 string `json:"p50"`
	P99 string `json:"p99"`
	Max string `json:"max"`
}

// maxSamples bounds the latencies that are kept; later ones are not counted.
const maxSamples = 1 << 20

func newSummary(target string) *Summary {
	return &Summary{Target: target, Failures: map[string]int{}, Answered: map[string]int{}, began: time.Now()}
}

// note counts one attempt.
func (s *Summary) note(took time.Duration, err error) {
	s.Attempts++
	now := time.Now()
	began := now.Add(-took)
	if err != nil {
		if s.Failed == 0 {
			s.FirstFailureKnown = now
			s.FirstFailure = began.Sub(s.began).Round(time.Millisecond).String()
		}
		if s.Failed == 0 || began.Before(s.FirstFailed) {
			s.FirstFailed = began
		}
		s.Failed++
		s.Failures[Reason(err)]++
		return
	}
	s.OK++
	if began.After(s.LastOK) {
		s.LastOK = began
	}
	if len(s.took) < maxSamples {
		s.took = append(s.took, took)
	}
}

// finish computes what is known only at the end.
func (s *Summary) finish() *Summary {
	elapsed := time.Since(s.began)
	s.Elapsed = elapsed.Round(time.Millisecond).String()
	if s.Bytes > 0 {
		s.MBPerSecond = float64(s.Bytes) / 1e6 / elapsed.Seconds()
	}
	if len(s.took) > 0 {
		slices.Sort(s.took)
		at := func(p int) string { return s.took[(len(s.took)-1)*p/100].Round(time.Microsecond).String() }
		s.Latency = &Latency{P50: at(50), P99: at(99), Max: at(100)}
	}
	return s
}

// timedOut is the class of what took too long.
const timedOut = "timeout"

// errLate is a timeout of which the stage is known, as "timeout while connecting".
var errLate = errors.New(timedOut)

// Reason puts an error into one of few classes, so that failures can be counted.
func Reason(err error) string {
	var dns *net.DNSError
	var status statusError
	var netErr net.Error
	switch {
	case errors.As(err, &status):
		return status.Error()
	case errors.As(err, &dns):
		return "dns: " + dns.Err
	case errors.Is(err, syscall.ECONNREFUSED):
		return "connection refused"
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return "connection reset"
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		return "unreachable"
	case errors.Is(err, errLate):
		return err.Error()
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		return timedOut
	case errors.As(err, &netErr) && netErr.Timeout():
		return timedOut
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "closed without an answer"
	}
	// The rest by its text, without the addresses that would make each unique.
	words := strings.Split(err.Error(), ": ")
	return words[len(words)-1]
}

// statusError is an HTTP status that was not expected.
type statusError string

func (s statusError) Error() string { return "status " + string(s) }
