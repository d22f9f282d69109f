package h2

import (
	"errors"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/net/http2"
)

// Abuse is why a peer was cut off or not let in. There are few, so that a metric
// can have one series each.
type Abuse string

// What a peer in a tunnel can be cut off for, with ENHANCE_YOUR_CALM.
const (
	AbuseEmptyFrames Abuse = "empty frames"     // pings, settings, priorities, empty DATA and their like
	AbuseWindow      Abuse = "window updates"   // that no DATA of ours calls for
	AbuseRapidReset  Abuse = "rapid reset"      // requests withdrawn at once
	AbuseStreams     Abuse = "too many streams" // or requests that are none
	AbuseHeaders     Abuse = "endless headers"
	AbuseFaults      Abuse = "faulty streams"
	AbuseDeaf        Abuse = "answers not read" // it provokes them, and does not read them
	AbuseHoard       Abuse = "streams not read" // its streams hold more than there is room for
	// AbuseProtocol is a peer that broke HTTP/2 in any other way; the GOAWAY has
	// the code.
	AbuseProtocol Abuse = "protocol error"
)

// What a connection is closed for before there is a tunnel.
const (
	AbuseHandshakes  Abuse = "handshakes pending"   // of its address
	AbuseRate        Abuse = "handshakes too often" // by its address
	AbuseConnections Abuse = "too many tunnels"     // of its address
	AbuseSlow        Abuse = "handshake too slow"
)

// refusals are the connections that Refused is told of; no abuse by themselves.
const refusals Abuse = "refused"

// error is the end of a tunnel.
func (a Abuse) error(reason string) error {
	return &connError{code: http2.ErrCodeEnhanceYourCalm, reason: string(a) + ": " + reason, abuse: a}
}

// abuseOf sorts the end of a tunnel; empty is an honest one.
func (e *connError) abuseOf() Abuse {
	switch {
	case e.abuse != "":
		return e.abuse
	case e.code != http2.ErrCodeNo:
		return AbuseProtocol
	}
	return ""
}

func abuseOf(err error) Abuse {
	if ce, ok := errors.AsType[*connError](err); ok {
		return ce.abuseOf()
	}
	return ""
}

// report counts every abuse and logs some of each kind, with the number of those
// that it kept silent about: an abuser must not fill the log either.
type report struct {
	log    *slog.Logger
	abused func(Abuse)

	mu     sync.Mutex
	said   map[Abuse]*meter
	silent map[Abuse]int
}

// The lines a second of one kind of abuse, after some at once.
const (
	linesAtOnce  = 100
	linesASecond = 10
	keySilent    = "more"
	keyPeer      = "peer"
	keyRemote    = "remote"
	keyReason    = "reason"
)

func newReport(log *slog.Logger, abused func(Abuse)) *report {
	return &report{log: log, abused: abused, said: map[Abuse]*meter{}, silent: map[Abuse]int{}}
}

// add reports one abuse.
func (r *report) add(a Abuse, message string, attrs ...any) {
	if r == nil {
		return
	}
	if r.abused != nil {
		r.abused(a)
	}
	if more, ok := r.speak(a); ok {
		if more > 0 {
			attrs = append(attrs, keySilent, more)
		}
		r.log.Warn(message, attrs...)
	}
}

// speak says whether there is to be a line, and how many were kept back.
func (r *report) speak(a Abuse) (more int, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	m := r.said[a]
	if m == nil {
		m = new(newMeter(linesAtOnce, linesASecond))
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
