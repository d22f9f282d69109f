package xds

import (
	"slices"
	"strings"
	"time"
)

// ClientStatus is one connected client for admin pages.
type ClientStatus struct {
	Peer
	Connected time.Time
	Types     []TypeStatus
}

// TypeStatus is how far a client is with one type.
type TypeStatus struct {
	Type     string
	Wildcard bool
	// Sent and Acked are generations; they differ while an answer is due or
	// after a rejection.
	Sent, Acked uint64
	// Given is the newest generation of which a response told something: that
	// which the client decides with, once it has accepted it. 0 on a connection
	// on which it had all already.
	Given    uint64
	Nacks    int
	LastNack string
	// Nacked is the newest generation when LastNack came, 0 if none did. A later
	// Acked does not mean that what was rejected has been taken.
	Nacked   uint64
	LastPush time.Time
}

// Status lists the connected clients, sorted by id.
func (s *Server) Status() []ClientStatus {
	s.mu.Lock()
	sessions := make([]*session, 0, len(s.sessions))
	for c := range s.sessions {
		sessions = append(sessions, c)
	}
	s.mu.Unlock()
	out := make([]ClientStatus, 0, len(sessions))
	for _, c := range sessions {
		out = append(out, c.status())
	}
	slices.SortFunc(out, func(a, b ClientStatus) int {
		return strings.Compare(a.ID+a.Addr, b.ID+b.Addr)
	})
	return out
}

func (c *session) status() ClientStatus {
	c.mu.Lock()
	defer c.mu.Unlock()
	st := ClientStatus{Peer: c.peer, Connected: c.started}
	for _, typ := range c.order {
		sub := c.subs[typ]
		st.Types = append(st.Types, TypeStatus{
			Type: typ, Wildcard: sub.wildcard, Sent: sub.sentGen, Acked: sub.ackedGen, Given: sub.givenGen,
			Nacks: sub.nacks, LastNack: sub.lastNack, Nacked: sub.nackGen, LastPush: sub.lastPush,
		})
	}
	return st
}
