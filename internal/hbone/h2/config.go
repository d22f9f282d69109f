package h2

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"time"

	"github.com/ambit-mesh/ambit/internal/hbone"
	"github.com/ambit-mesh/ambit/internal/spiffe"
)

// Tuning are the settings that both ends have.
type Tuning struct {
	// MaxStreams is how many streams a tunnel carries at once: on a client the
	// most it opens, on a server what it advertises. Zero: 100 on a client, 200
	// on a server (dataplane spec 1.2).
	MaxStreams int
	// StreamWindow is the receive window that each stream begins with. It grows
	// to MaxStreamWindow while the application keeps up and the path is long, so
	// that a stalled stream holds little. Zero: 256 KiB.
	StreamWindow int
	// MaxStreamWindow bounds that growth. Zero: 4 MiB.
	MaxStreamWindow int
	// Window is the receive window of the whole tunnel. It is given back as
	// bytes arrive, not as applications take them: streams are bounded each by
	// itself and cannot hold each other up. It also bounds the sum of what
	// windows grow beyond StreamWindow. Zero: 16 MiB.
	Window int
	// HandshakeTimeout bounds TLS and the exchange of settings. Zero: 10 s.
	HandshakeTimeout time.Duration
	// PingInterval is how long a tunnel is silent before it is probed. Zero: 10 s.
	PingInterval time.Duration
	// PingTimeout is how long a probe may stay unanswered. Zero: 20 s.
	PingTimeout time.Duration
	// Unread bounds what all streams together hold for applications that do not
	// read. Nil: 256 MiB for this dialer or server alone.
	Unread *Unread
	// Abused is told why a peer was cut off or not let in. Nil: nobody is.
	Abused func(Abuse)
	// Logger receives what happens to tunnels. Nil: nothing is logged.
	Logger *slog.Logger
}

// Config is what a Dialer needs.
type Config struct {
	// Credentials are required.
	Credentials hbone.Credentials
	// Connect opens the transport connection. Nil: TCP from this namespace.
	Connect hbone.Connect
	// ConnectTimeout bounds Connect. Zero: 10 s.
	ConnectTimeout time.Duration
	Tuning
}

// ServerConfig is what a Server needs.
type ServerConfig struct {
	// Listener is required; the server closes it.
	Listener net.Listener
	// Self says who this server is. It is asked for each handshake, so that it
	// may wait for the answer and the answer may change. Required.
	Self func(ctx context.Context) (spiffe.ID, error)
	// Aliases are further names of self's trust domain, asked for after Self. Nil:
	// it has none.
	Aliases func(ctx context.Context) []string
	// Credentials are required.
	Credentials hbone.Credentials
	// Handler serves each CONNECT. Required.
	Handler hbone.Handler
	// Datagrams says that Handler serves CONNECT-UDP too. False: it is not
	// offered, and refused before Handler hears of it.
	Datagrams bool
	// FirstStreamTimeout closes a tunnel on which no CONNECT came. Zero: 10 s.
	FirstStreamTimeout time.Duration
	// MaxTunnels bounds the connections, those in their handshake included;
	// further ones wait in the listener's backlog. Zero: 10,000.
	MaxTunnels int
	// MaxHandshakes bounds those in their handshake; for a further one the oldest
	// of the address with the most of them is cut off. While half of the places
	// are taken, a handshake gets but a fifth of its time. Zero: 512.
	MaxHandshakes int
	// PeerTunnels and PeerHandshakes bound those of one address; further ones are
	// closed at once. Zero: 256 and 64.
	PeerTunnels, PeerHandshakes int
	// PeerRate bounds the connections of one address in a second, after twice as
	// many at once; further ones are closed. Zero: 500.
	PeerRate int
	// Refused is told of connections that got no tunnel; a peer that was not
	// accepted is a *hbone.PeerError. It is not told of those above an address's
	// bounds, and of many that fail in a short time only of some: what nobody
	// can read is not worth being written. Nil: nobody is told.
	Refused func(remote netip.AddrPort, err error)
	Tuning
}

func (t *Tuning) fill(streams int) {
	def(&t.MaxStreams, streams)
	def(&t.StreamWindow, 256<<10)
	def(&t.MaxStreamWindow, 4<<20)
	def(&t.Window, 16<<20)
	def(&t.HandshakeTimeout, 10*time.Second)
	def(&t.PingInterval, 10*time.Second)
	def(&t.PingTimeout, 20*time.Second)
	t.MaxStreamWindow = max(t.MaxStreamWindow, t.StreamWindow)
	if t.Logger == nil {
		t.Logger = slog.New(slog.DiscardHandler)
	}
	if t.Unread == nil {
		t.Unread = NewUnread(0)
	}
	t.Logger = t.Logger.With("component", "hbone")
}

// def gives an unset field its default.
func def[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}
