package bench

import (
	"crypto/tls"
	"net"
	"sync"
)

// tunedConn is what a plain TLS proxy gains by large reads and by writing the
// records of one Write together. It is printed beside the frozen baseline, so
// that a ratio over the frozen one is not taken for more than it is.
type tunedConn struct {
	*net.TCPConn
	in   []byte
	r, w int

	mu   sync.Mutex
	hold bool // records wait in out for the end of the Write they belong to
	out  []byte
}

// tunedTLS is crypto/tls over a tunedConn.
type tunedTLS struct {
	*tls.Conn
	raw *tunedConn
}

// secure gives the encrypted end of c: frozen is crypto/tls as it is.
func secure(c *net.TCPConn, how string, upgrade func(net.Conn) *tls.Conn) (end, error) {
	if how != "tuned" {
		return upgrade(c), nil
	}
	raw := &tunedConn{TCPConn: c, in: make([]byte, 256<<10)}
	t := tunedTLS{upgrade(raw), raw}
	// Nothing of the handshake may be held back by a Write that waits for it.
	return t, t.Handshake()
}

func (c *tunedConn) Read(p []byte) (int, error) {
	if c.r == c.w {
		n, err := c.TCPConn.Read(c.in)
		if err != nil {
			return 0, err
		}
		c.r, c.w = 0, n
	}
	n := copy(p, c.in[c.r:c.w])
	c.r += n
	return n, nil
}

func (c *tunedConn) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.hold {
		c.out = append(c.out, p...)
		return len(p), nil
	}
	return c.TCPConn.Write(p)
}

func (c *tunedConn) gather() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.hold = true
}

func (c *tunedConn) flush() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, err := c.TCPConn.Write(c.out)
	c.hold, c.out = false, c.out[:0]
	return err
}

func (t tunedTLS) Write(p []byte) (int, error) {
	t.raw.gather()
	n, err := t.Conn.Write(p)
	if flushed := t.raw.flush(); err == nil {
		err = flushed
	}
	return n, err
}
