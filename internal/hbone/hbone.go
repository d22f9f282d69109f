// Package hbone fixes the interface between the tunnel and its users: open,
// accept, half-close, reset, datagrams, peer identity, drain (HBONE, dataplane
// spec 1). It refuses to know a transport: HTTP/2 is in hbone/h2, HTTP/3 in
// hbone/h3, pooling of client tunnels in hbone/pool, and every transport passes
// the one conformance test of hbone/hbonetest. ztunnel and waypoint see only what
// is here.
package hbone

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"time"

	"github.com/ambit-mesh/ambit/internal/spiffe"
)

// Port is where a workload accepts HBONE.
const Port = 15008

// Statuses of a CONNECT response (dataplane spec 1.4).
const (
	StatusOK           = 200
	StatusBadRequest   = 400
	StatusUnauthorized = 401 // denied by policy
	StatusUnavailable  = 503 // no such workload, port, or the application does not accept
)

// Names of the headers of a CONNECT request, lower case as on the wire.
const (
	HeaderBaggage     = "baggage"
	HeaderForwarded   = "forwarded"
	HeaderTraceparent = "traceparent"
	// HeaderReason explains a refusal in one line. Ours; upstream ignores it.
	HeaderReason = "x-ambit-reason"
	// HeaderDecision is the short id under which both ends remember the
	// connection. Ours; upstream ignores it.
	HeaderDecision = "x-ambit-decision"
)

// ProtocolUDP is a CONNECT that carries datagrams (RFC 9298).
const ProtocolUDP = "connect-udp"

// MaxDatagram is the most that a datagram carries, as with UDP over IP.
const MaxDatagram = 65527

// Request is what a CONNECT asks for.
type Request struct {
	// Protocol is empty for bytes in order, and ProtocolUDP for datagrams.
	Protocol string
	// Authority is host:port; the host is an IP or a service hostname.
	Authority string
	// Header holds lower-case names.
	Header map[string]string
}

// Response is the answer to a CONNECT.
type Response struct {
	Status int
	Header map[string]string
}

// StatusError is a CONNECT answered by anything but 200.
type StatusError struct{ Response Response }

// Error says the status and the reason the peer gave.
func (e *StatusError) Error() string {
	if r := e.Response.Header[HeaderReason]; r != "" {
		return fmt.Sprintf("peer answered %d: %s", e.Response.Status, r)
	}
	return fmt.Sprintf("peer answered %d", e.Response.Status)
}

// PeerError is a handshake refused because of who the peer is or is not:
// wrong CA, expired certificate, another identity.
type PeerError struct {
	// Want are the acceptable identities; empty on a server.
	Want []spiffe.ID
	// Got is the peer's identity if its certificate carried one.
	Got spiffe.ID
	Err error
}

func (e *PeerError) Error() string {
	if e.Got.IsZero() {
		return fmt.Sprintf("peer not accepted: %v", e.Err)
	}
	return fmt.Sprintf("peer %s not accepted: %v", e.Got, e.Err)
}

func (e *PeerError) Unwrap() error { return e.Err }

// Errors that callers branch on.
var (
	// ErrClosed is any use of a stream or tunnel after its end.
	ErrClosed = errors.New("hbone: closed")
	// ErrReset is a stream that the peer aborted; the application's socket is
	// then reset, not closed.
	ErrReset = errors.New("hbone: stream reset by peer")
	// ErrDraining is a tunnel that takes no new streams.
	ErrDraining = errors.New("hbone: draining")
	// ErrSilent is a tunnel through which nothing comes any more. Another is needed;
	// the request may have been taken, but nobody can have answered it.
	ErrSilent = errors.New("hbone: nothing comes from the peer")
	// ErrNoDatagrams is a datagram on a stream that is not CONNECT-UDP, or such a
	// stream on a tunnel whose peer takes none.
	ErrNoDatagrams = errors.New("hbone: no datagrams are carried")
	// ErrOnlyDatagrams is a byte on a stream that is CONNECT-UDP.
	ErrOnlyDatagrams = errors.New("hbone: only datagrams are carried")
	// ErrTooBig is a datagram longer than MaxDatagram.
	ErrTooBig = errors.New("hbone: datagram too big")
)

// Stream is one tunnelled connection. Reads and writes may run at the same
// time; each half ends by itself. ReadFrom and WriteTo are the fast paths, for
// which relay uses a stream rather than copying through a buffer of its own.
type Stream interface {
	// Read gives io.EOF after the peer's half-close, ErrReset after its reset.
	io.Reader
	// Write blocks on flow control.
	io.Writer
	// ReadFrom copies from r until its EOF; it does not half-close.
	io.ReaderFrom
	// WriteTo copies to w until the peer's half-close.
	io.WriterTo
	// SetReadDeadline ends waiting Reads and WriteTos with os.ErrDeadlineExceeded
	// at that time, also later ones, until it is set anew; the zero time is never.
	// The stream lives on.
	SetReadDeadline(at time.Time) error
	// SetWriteDeadline is the same for Writes and ReadFroms that wait for the
	// peer's window.
	SetWriteDeadline(at time.Time) error
	// CloseWrite half-closes: the peer reads io.EOF, reading here goes on.
	CloseWrite() error
	// Reset aborts both directions; the peer sees ErrReset.
	Reset() error
	// Close ends the stream: gracefully if both halves have ended, else as
	// Reset. It may be called twice.
	Close() error
	// SendDatagram and ReceiveDatagram carry the payloads of a CONNECT-UDP, on
	// which Read, Write and their like are ErrOnlyDatagrams. As with UDP, one may
	// be lost, or be overtaken by another or by the end of the stream; none is
	// lost for its size. SendDatagram waits for the path, not for the peer.
	SendDatagram(ctx context.Context, p []byte) error
	// ReceiveDatagram gives io.EOF after the peer's half-close, ErrReset after its
	// reset. What nobody receives is kept up to a bound and then dropped; see
	// DropCounter.
	ReceiveDatagram(ctx context.Context) ([]byte, error)
}

// Peer is the authenticated other end of a tunnel.
type Peer struct {
	ID     spiffe.ID
	Chain  []*x509.Certificate
	Remote netip.AddrPort
	Local  netip.AddrPort
}

// Target is where and to whom a client tunnel leads. Tunnels are shared only
// between equal targets.
type Target struct {
	Address netip.AddrPort
	// Self is whose certificate we present.
	Self spiffe.ID
	// Accept are the identities the server may have; one of them, exactly.
	Accept []spiffe.ID
	// Workload is the UID expected behind the address, so that a reused
	// address never meets an old tunnel. Empty if unknown.
	Workload string
	// Transport is what the target accepts and the mesh allows.
	Transport Transport
}

// Transport says over what a tunnel may be made.
type Transport uint8

// The zero value is what every workload accepts.
const (
	OnlyH2   Transport = iota
	PreferH3           // HTTP/2 if HTTP/3 does not get through
	OnlyH3
)

// Tunnel is one authenticated connection to a server, carrying streams.
type Tunnel interface {
	// Open sends a CONNECT and waits for the answer; an answer other than 200
	// is a *StatusError. ErrDraining means that another tunnel is needed and
	// nothing was sent.
	Open(ctx context.Context, r Request) (Stream, Response, error)
	Peer() Peer
	// Streams is the number of open streams, Capacity how many may be.
	Streams() int
	Capacity() int
	// Drain takes no new streams and closes once the last one has ended or
	// ctx is done.
	Drain(ctx context.Context) error
	// Close cuts everything.
	Close() error
	// Done is closed when the tunnel has ended or takes no new streams.
	Done() <-chan struct{}
}

// Dialer makes client tunnels. One exists per transport.
type Dialer interface {
	Dial(ctx context.Context, t Target) (Tunnel, error)
}

// Incoming is one CONNECT that waits for its answer.
type Incoming interface {
	Context() context.Context // ends with the stream or its tunnel
	Request() Request
	Peer() Peer
	// Accept answers 200.
	Accept(header map[string]string) (Stream, error)
	// Reject answers status with a reason.
	Reject(status int, reason string) error
}

// Handler serves one incoming CONNECT and returns when it is finished.
type Handler func(Incoming)

// Server accepts tunnels. One exists per transport.
type Server interface {
	// Serve returns after ctx is done or the listener failed, when every
	// handler has returned. The end of ctx cuts everything.
	Serve(ctx context.Context) error
	// Drain stops accepting tunnels and streams, lets the streams end, and
	// returns when they have or ctx is done.
	Drain(ctx context.Context) error
}

// Credentials give the TLS side of tunnels; internal/certs implements them.
// Both configurations demand TLS 1.3 and a verified peer, and fail a handshake
// with a *PeerError. Their ALPN is h2; a transport over QUIC puts its own into a
// copy.
type Credentials interface {
	// Client presents self and accepts exactly the identities in accept.
	Client(ctx context.Context, self spiffe.ID, accept []spiffe.ID) (*tls.Config, error)
	// Server presents self and accepts any identity of self's trust domain, under
	// its own name or one of its aliases.
	Server(ctx context.Context, self spiffe.ID, aliases ...string) (*tls.Config, error)
	// Watch follows a tunnel of self's whose peer was verified, until ended is
	// closed. end cuts it when the peer may not be met any longer; that may be at
	// once.
	Watch(self spiffe.ID, peer Peer, ended <-chan struct{}, end func(error))
}

// Connect opens a transport connection, e.g. from inside a pod's network
// namespace.
type Connect func(ctx context.Context, to netip.AddrPort) (net.Conn, error)
