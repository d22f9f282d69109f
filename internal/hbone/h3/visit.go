package h3

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/ambit-mesh/ambit/internal/hbone/door"
	"github.com/ambit-mesh/ambit/internal/spiffe"
)

// Connections until they are tunnels. quic-go asks before it makes one, and says
// by the end of its context what became of it.

// visit is one of them.
type visit struct {
	from netip.AddrPort
	door *door.Visit

	mu   sync.Mutex
	self spiffe.ID // whom it found
	over bool      // it has become a tunnel, or nothing
}

type visitKey struct{}

func visitOf(ctx context.Context) *visit { return ctx.Value(visitKey{}).(*visit) }

func (v *visit) is(self spiffe.ID) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.self = self
}

func (v *visit) who() spiffe.ID {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.self
}

// end reports whether the visit was not over before.
func (v *visit) end() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	was := v.over
	v.over = true
	return !was
}

// Why a connection is refused.
var (
	errDraining = errors.New("no more connections are taken")
	errFull     = errors.New("there are too many connections")
	errBounds   = errors.New("the address is out of bounds")
)

// doubts tells whether who comes from an address must first show that it is its
// own. An address is given away freely only while few are; so those who use the
// addresses of others cannot use up what these may have.
func (s *server) doubts(from net.Addr) bool {
	return s.door.Waiting() >= s.cfg.MaxHandshakes/8 || s.door.Of(addrPort(from).Addr()) >= (s.cfg.PeerHandshakes+7)/8
}

// hasty is the configuration of a new connection: with less time for its
// handshake while many wait for the places of those that dawdle.
func (s *server) hasty() *quic.Config {
	if s.door.Waiting() <= s.cfg.MaxHandshakes/2 {
		return s.quic
	}
	c := s.quic.Clone()
	c.HandshakeIdleTimeout /= 5
	return c
}

// arrive lets a connection in, or refuses it with one packet.
func (s *server) arrive(ctx context.Context, info *quic.ClientInfo) (context.Context, error) {
	v := &visit{from: addrPort(info.RemoteAddr)}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.draining:
		return nil, errDraining
	case s.trying >= s.cfg.MaxHandshakes, s.trying+len(s.tunnels) >= s.cfg.MaxTunnels:
		return nil, errFull
	}
	var abuse door.Abuse
	// It cannot be asked to yield: nobody holds a connection in its handshake.
	if v.door, abuse = s.door.Enter(v.from.Addr(), time.Now(), nil); abuse != "" {
		s.report.Add(abuse, "connection turned away", keyRemote, v.from, keyReason, abuse)
		return nil, errBounds
	}
	s.trying++
	context.AfterFunc(ctx, func() { s.leaves(v, context.Cause(ctx)) })
	return context.WithValue(ctx, visitKey{}, v), nil
}

// stays is a visit that becomes a tunnel, unless it was lost meanwhile.
func (s *server) stays(v *visit) bool {
	if !v.end() {
		return false
	}
	s.settle(v)
	return true
}

func (s *server) settle(v *visit) {
	v.door.Settled()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.trying--
	s.settledLocked()
}

// leaves ends a visit that led to no tunnel.
func (s *server) leaves(v *visit, err error) {
	if !v.end() {
		return
	}
	s.settle(v)
	v.door.Left()
	s.cfg.Logger.Debug("no tunnel", keyRemote, v.from, "err", err)
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		s.report.Add(door.Slow, "connection cut off", keyRemote, v.from, keyReason, err)
	}
	if _, ok := s.report.Speak(door.Refusals); ok && s.cfg.Refused != nil {
		s.cfg.Refused(v.from, err)
	}
}
