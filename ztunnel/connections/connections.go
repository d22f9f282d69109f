// Package connections knows the live connections of a pod: what they are, for
// whoever asks, and how to cut those that a changed policy or workload no
// longer allows (dataplane spec 5.5).
//
// It refuses to judge: the callers of Rejudge and Review bring the verdicts of
// ztunnel/route. A connection is tracked before it is judged first, so that no
// change falls between. ztunnel/inbound and ztunnel/outbound track; ztunnel's
// root rejudges on every change.
package connections

import (
	"context"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/ambit-mesh/ambit/internal/policy"
	"github.com/ambit-mesh/ambit/internal/spiffe"
	"github.com/ambit-mesh/ambit/internal/telemetry"
)

// Info is what a connection is.
type Info struct {
	Direction telemetry.Direction
	// Datagrams says that it is a flow of UDP.
	Datagrams bool
	// Source is the client as seen here.
	Source netip.AddrPort
	// Original is what the client dialled, Actual what it was connected to.
	Original, Actual netip.AddrPort
	// HBONE says whether mutual TLS carries it between the nodes.
	HBONE   bool
	Started time.Time
	// Peer is the identity at the other end, by mutual TLS.
	Peer spiffe.ID
	// Reason is the verdict that let it pass, in words.
	Reason string
	// Policy is what an inbound connection is judged by; nil is never judged.
	Policy *policy.Connection
}

// Denied is why a connection was cut: a verdict that has changed.
type Denied struct{ Verdict policy.Verdict }

func (e *Denied) Error() string {
	return "connection closed due to policy change: " + e.Verdict.String()
}

// Outlawed is why a connection that was made from here was cut: its pod may no
// longer have it open.
type Outlawed struct{ Reason string }

func (e *Outlawed) Error() string { return "connection closed: " + e.Reason }

// Set is the live connections of one pod. The zero value is empty.
type Set struct {
	mu   sync.Mutex
	live map[*Conn]struct{}
}

// Conn is one tracked connection.
type Conn struct {
	set    *Set
	info   Info
	cancel context.CancelCauseFunc
}

// Track adds a connection and gives the context that ends when it is cut,
// with a *Denied as its cause. Done must follow.
func (s *Set) Track(ctx context.Context, i Info) (context.Context, *Conn) {
	ctx, cancel := context.WithCancelCause(ctx)
	c := &Conn{set: s, info: i, cancel: cancel}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.live == nil {
		s.live = map[*Conn]struct{}{}
	}
	s.live[c] = struct{}{}
	return ctx, c
}

// Update changes what is known of the connection.
func (c *Conn) Update(change func(*Info)) {
	c.set.mu.Lock()
	defer c.set.mu.Unlock()
	change(&c.info)
}

// Done ends the tracking. It may be called twice.
func (c *Conn) Done() {
	c.set.mu.Lock()
	delete(c.set.live, c)
	c.set.mu.Unlock()
	c.cancel(nil)
}

// Rejudge asks for a verdict on every connection that can have one, cuts the
// denied and says how many they were.
func (s *Set) Rejudge(judge func(policy.Connection) policy.Verdict) int {
	cut := 0
	for _, c := range s.judged() {
		if v := judge(*c.policy); !v.Allow {
			c.conn.cancel(&Denied{v})
			cut++
		}
	}
	return cut
}

// Review asks of every outbound connection why it may not be open, cuts those
// of which there is a reason, and says how many they were.
func (s *Set) Review(outlawed func(Info) string) int {
	cut := 0
	for c, i := range s.outbound() {
		if why := outlawed(i); why != "" {
			c.Cut(why)
			cut++
		}
	}
	return cut
}

// outbound copies, as judged does.
func (s *Set) outbound() map[*Conn]Info {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make(map[*Conn]Info, len(s.live))
	for c := range s.live {
		if c.info.Direction == telemetry.Outbound {
			out[c] = c.info
		}
	}
	return out
}

// Cut ends the connection, with an *Outlawed as the cause.
func (c *Conn) Cut(reason string) { c.cancel(&Outlawed{reason}) }

type judged struct {
	conn   *Conn
	policy *policy.Connection
}

// judged copies, so that no verdict is waited for with the lock held.
func (s *Set) judged() []judged {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]judged, 0, len(s.live))
	for c := range s.live {
		if c.info.Policy != nil {
			out = append(out, judged{c, c.info.Policy})
		}
	}
	return out
}

// Len is how many connections live.
func (s *Set) Len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.live)
}

// List is the live connections, oldest first.
func (s *Set) List() []Info {
	s.mu.Lock()
	out := make([]Info, 0, len(s.live))
	for c := range s.live {
		out = append(out, c.info)
	}
	s.mu.Unlock()
	slices.SortFunc(out, func(a, b Info) int { return a.Started.Compare(b.Started) })
	return out
}
