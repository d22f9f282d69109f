package h3

import (
	"errors"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"github.com/ambit-mesh/ambit/internal/hbone"
	"github.com/ambit-mesh/ambit/internal/hbone/door"
)

// Attributes of log lines.
const (
	keyPeer   = "peer"
	keyRemote = "remote"
	keyReason = "reason"
)

// What a peer may do that costs us and carries nothing: frames without bytes,
// streams that are none, requests withdrawn before anybody could answer.
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

// pay ends the tunnel of a peer that floods us.
func (t *tunnel) pay(why door.Abuse, cost float64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.calm.Spend(cost, time.Now()) && t.err == nil {
		// Not waited for, as whoever calls may be what the end waits for.
		t.work.Go(func() {
			t.fail(&connError{http3.ErrCodeExcessiveLoad, string(why) + ": too many in too short a time", why})
		})
	}
}

// abuseOf sorts the end of a tunnel; empty is an honest one.
func abuseOf(err error) door.Abuse {
	if ce, ok := errors.AsType[*connError](err); ok {
		switch {
		case ce.abuse != "":
			return ce.abuse
		case ce.code != http3.ErrCodeNoError:
			return door.Protocol
		}
	}
	if te, ok := errors.AsType[*quic.TransportError](err); ok && !te.Remote && te.ErrorCode != quic.NoError {
		return door.Protocol
	}
	return ""
}

// tell logs how the tunnel ended.
func (t *tunnel) tell(err error) {
	if abuse := abuseOf(err); abuse != "" {
		t.report.Add(abuse, "peer cut off", keyPeer, t.peer.ID, keyRemote, t.peer.Remote, keyReason, err)
	} else if !errors.Is(err, hbone.ErrClosed) {
		t.log.Debug("tunnel lost", keyPeer, t.peer.ID, keyRemote, t.peer.Remote, "err", err)
	}
}
