package h2

import (
	"errors"

	"golang.org/x/net/http2"

	"github.com/ambit-mesh/ambit/internal/hbone/door"
)

// Abuse is why a peer was cut off or not let in.
type Abuse = door.Abuse

// What a peer in a tunnel can be cut off for, with ENHANCE_YOUR_CALM.
const (
	AbuseEmptyFrames Abuse = door.EmptyFrames // pings, settings, priorities, empty DATA and their like
	AbuseWindow      Abuse = "window updates" // that no DATA of ours calls for
	AbuseRapidReset  Abuse = door.RapidReset  // requests withdrawn at once
	AbuseStreams     Abuse = door.Streams     // or requests that are none
	AbuseHeaders     Abuse = "endless headers"
	AbuseFaults      Abuse = "faulty streams"
	AbuseDeaf        Abuse = "answers not read" // it provokes them, and does not read them
	AbuseHoard       Abuse = "streams not read" // its streams hold more than there is room for
	// AbuseProtocol is a peer that broke HTTP/2 in any other way; the GOAWAY has
	// the code.
	AbuseProtocol Abuse = door.Protocol
)

// What a connection is closed for before there is a tunnel.
const (
	AbuseHandshakes  = door.Handshakes
	AbuseRate        = door.Rate
	AbuseConnections = door.Connections
	AbuseSlow        = door.Slow
)

// Attributes of log lines.
const (
	keyPeer   = "peer"
	keyRemote = "remote"
	keyReason = "reason"
)

// abuseError is the end of a tunnel.
func abuseError(a Abuse, reason string) error {
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
