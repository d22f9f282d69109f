package hbone

import (
	"net"
	"net/netip"
	"sync"
	"time"
)

// lingering is how long a closed Conn may take to end orderly.
const lingering = time.Second

// Conn is a Stream as a net.Conn, for servers and clients that know only those.
// Its Close is a socket's, not a stream's: what was written still reaches the
// peer, which has a second to end its half before the stream is reset. Reset
// and CloseWrite are the stream's.
type Conn struct {
	Stream
	local, remote net.Addr
	close         sync.Once
}

var _ net.Conn = (*Conn)(nil)

// NewConn gives s the addresses of its two ends.
func NewConn(s Stream, local, remote netip.AddrPort) *Conn {
	return &Conn{Stream: s, local: net.TCPAddrFromAddrPort(local), remote: net.TCPAddrFromAddrPort(remote)}
}

// LocalAddr implements net.Conn.
func (c *Conn) LocalAddr() net.Addr { return c.local }

// RemoteAddr implements net.Conn.
func (c *Conn) RemoteAddr() net.Addr { return c.remote }

// SetDeadline implements net.Conn.
func (c *Conn) SetDeadline(at time.Time) error {
	if err := c.SetReadDeadline(at); err != nil {
		return err
	}
	return c.SetWriteDeadline(at)
}

// Close implements net.Conn. Who reads or writes is woken.
func (c *Conn) Close() error {
	c.close.Do(func() {
		past := time.Unix(1, 0)
		c.SetDeadline(past) // first: what the peer says to the end is nobody's any more
		c.CloseWrite()
		time.AfterFunc(lingering, func() { c.Stream.Close() })
	})
	return nil
}
