package door

import (
	"log/slog"
	"sync"
	"time"
)

// Abuse is why a peer was cut off or not let in. There are few, so that a metric
// can have one series each.
type Abuse string

// What a connection is closed for before there is a tunnel.
const (
	Handshakes  Abuse = "handshakes pending"   // of its address
	Rate        Abuse = "handshakes too often" // by its address
	Connections Abuse = "too many tunnels"     // of its address
	Slow        Abuse = "handshake too slow"
)

// What a peer in a tunnel is cut off for, whatever carries it.
const (
	EmptyFrames Abuse = "empty frames"     // that carry nothing
	RapidReset  Abuse = "rapid reset"      // requests withdrawn at once
	Streams     Abuse = "too many streams" // or requests that are none
	// Protocol is a peer that broke the protocol in any other way; it is told how.
	Protocol Abuse = "protocol error"
)

// Refusals are the connections that a server's Refused is told of; no abuse by
// themselves.
const Refusals Abuse = "refused"

// Report counts every abuse and logs some of each kind, with the number of those
// that it kept silent about: an abuser must not fill the log either.
type Report struct {
	log    *slog.Logger
	abused func(Abuse)

	mu     sync.Mutex
	said   map[Abuse]*Meter
	silent map[Abuse]int
}

// Lines are how many there are a second of one kind of abuse, after some at once.
const (
	LinesAtOnce  = 100
	LinesASecond = 10
	keySilent    = "more"
)

// NewReport logs to log and tells abused, if it is not nil.
func NewReport(log *slog.Logger, abused func(Abuse)) *Report {
	return &Report{log: log, abused: abused, said: map[Abuse]*Meter{}, silent: map[Abuse]int{}}
}

// Add reports one abuse.
func (r *Report) Add(a Abuse, message string, attrs ...any) {
	if r == nil {
		return
	}
	if r.abused != nil {
		r.abused(a)
	}
	if more, ok := r.Speak(a); ok {
		if more > 0 {
			attrs = append(attrs, keySilent, more)
		}
		r.log.Warn(message, attrs...)
	}
}

// Speak says whether there is to be a line, and how many were kept back.
func (r *Report) Speak(a Abuse) (more int, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	m := r.said[a]
	if m == nil {
		m = new(NewMeter(LinesAtOnce, LinesASecond))
		r.said[a] = m
	}
	m.refill(time.Now())
	if m.tokens < 1 {
		r.silent[a]++
		return 0, false
	}
	m.tokens--
	more, r.silent[a] = r.silent[a], 0
	return more, true
}
