package h3

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/ambit-mesh/ambit/internal/hbone"
	"github.com/ambit-mesh/ambit/internal/hbone/door"
	"github.com/ambit-mesh/ambit/internal/spiffe"
)

// Tuning are the settings that both ends have.
type Tuning struct {
	// MaxStreams is how many streams a tunnel carries at once: on a client the
	// most it opens, on a server what it takes. Zero: 100 on a client, 200 on a
	// server (dataplane spec 1.2).
	MaxStreams int
	// StreamWindow is the receive window that each stream begins with, and the
	// most that a stream holds that is never read. Zero: 64 KiB.
	StreamWindow int
	// MaxStreamWindow bounds what it grows to while the application keeps up and
	// the path is long. Zero: 2 MiB.
	MaxStreamWindow int
	// Window is what the receive window of a tunnel has beyond StreamWindow for
	// each of MaxStreams. Zero: 16 MiB.
	Window int
	// HandshakeTimeout bounds the handshake and the exchange of settings. Zero:
	// 10 s.
	HandshakeTimeout time.Duration
	// PingInterval is how long a tunnel is silent before it is probed. Zero: 10 s.
	PingInterval time.Duration
	// PingTimeout is how long a probe may stay unanswered. Zero: 20 s.
	PingTimeout time.Duration
	// Abused is told why a peer was cut off or not let in. Nil: nobody is.
	Abused func(door.Abuse)
	// Logger receives what happens to tunnels. Nil: nothing is logged.
	Logger *slog.Logger
}

// Listen opens a socket from which a destination is reached, e.g. from inside a
// pod's network namespace. It should be bound to the address that packets to
// there come from. The tunnel closes it.
type Listen func(ctx context.Context, to netip.AddrPort) (net.PacketConn, error)

// Config is what a Dialer needs.
type Config struct {
	// Credentials are required.
	Credentials hbone.Credentials
	// Listen opens the socket of a tunnel. Nil: UDP from this namespace.
	Listen Listen
	// Silence is how long a request may wait for its answer while no packet at all
	// comes from the peer: then UDP is taken for blocked, the request is given up
	// with hbone.ErrSilent, and the tunnel takes no more. Zero: 250 ms.
	Silence time.Duration
	// Silent is told of each tunnel that is found so. Nil: nobody is.
	Silent func(to hbone.Target, why error)
	Tuning
}

// ServerConfig is what a Server needs.
type ServerConfig struct {
	// Conn is required; the server closes it.
	Conn net.PacketConn
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
	// further ones are refused. Zero: 10,000.
	MaxTunnels int
	// MaxHandshakes bounds those in their handshake; further ones are refused.
	// While half of the places are taken, a handshake gets but a fifth of its
	// time. While an eighth is, and while an address has an eighth of its own,
	// who comes must first show by a Retry that its address is its own. Zero: 512.
	MaxHandshakes int
	// PeerTunnels and PeerHandshakes bound those of one address; further ones are
	// refused. Zero: 64 and 64.
	PeerTunnels, PeerHandshakes int
	// PeerRate bounds the connections of one address in a second, after twice as
	// many at once; further ones are refused. Zero: 500.
	PeerRate int
	// Refused is told of connections that got no tunnel; a peer that was not
	// accepted is a *hbone.PeerError. It is not told of those above an address's
	// bounds, and of many that fail in a short time only of some. Nil: nobody is
	// told.
	Refused func(remote netip.AddrPort, err error)
	Tuning
}

func (t *Tuning) fill(streams int) {
	def(&t.MaxStreams, streams)
	def(&t.StreamWindow, 64<<10)
	def(&t.MaxStreamWindow, 2<<20)
	def(&t.Window, 16<<20)
	def(&t.HandshakeTimeout, 10*time.Second)
	def(&t.PingInterval, 10*time.Second)
	def(&t.PingTimeout, 20*time.Second)
	t.MaxStreamWindow = max(t.MaxStreamWindow, t.StreamWindow)
	if t.Logger == nil {
		t.Logger = slog.New(slog.DiscardHandler)
	}
	t.Logger = t.Logger.With("component", "hbone")
}

// uniStreams is how many unidirectional streams a peer may have: one for control,
// two for QPACK, and some that are ignored.
const uniStreams = 8

// quic is the configuration of connections. bidi are the streams that the peer
// may open.
func (t *Tuning) quic(bidi int) *quic.Config {
	window := uint64(t.MaxStreams*t.StreamWindow + t.Window)
	return &quic.Config{
		Versions:                       []quic.Version{quic.Version1},
		HandshakeIdleTimeout:           t.HandshakeTimeout / 2, // and twice that for all of it
		MaxIdleTimeout:                 t.PingInterval + t.PingTimeout,
		KeepAlivePeriod:                t.PingInterval,
		InitialStreamReceiveWindow:     uint64(t.StreamWindow),
		MaxStreamReceiveWindow:         uint64(t.MaxStreamWindow),
		InitialConnectionReceiveWindow: window,
		MaxConnectionReceiveWindow:     window,
		MaxIncomingStreams:             int64(bidi),
		MaxIncomingUniStreams:          uniStreams,
		EnableDatagrams:                true,
		// A reset must not overtake what was written before it.
		EnableStreamResetPartialDelivery: true,
	}
}

// def gives an unset field its default.
func def[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}
