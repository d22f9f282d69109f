package datagrams

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
)

// Counted is a Conn whose datagrams are counted and whose end is told. It is a
// telemetry.DatagramCounter; the server is whom it sends to.
type Counted struct {
	conn           Conn
	ended          func(error)
	stop           func() bool // to wait for the end of the context
	sent, received count

	once   sync.Once
	mu     sync.Mutex
	why    error
	closed bool
}

// NewCounted wraps c. When it has been closed, ended is told once: nothing if its
// user closed it, else the error by which it ended before. The end of ctx, with its
// cause, ends the flow as such an error does.
func NewCounted(ctx context.Context, c Conn, ended func(error)) *Counted {
	counted := &Counted{conn: c, ended: ended}
	counted.stop = context.AfterFunc(ctx, func() {
		counted.fail(context.Cause(ctx))
		counted.conn.Close()
	})
	return counted
}

// fail notes the first error.
func (c *Counted) fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.why == nil && !c.closed {
		c.why = err
	}
}

// Send implements Conn.
func (c *Counted) Send(payload []byte) error {
	err := c.conn.Send(payload)
	if err == nil {
		c.sent.add(payload)
	}
	return err
}

// Receive implements Conn.
func (c *Counted) Receive(take func(payload []byte)) error {
	err := c.conn.Receive(func(payload []byte) {
		c.received.add(payload)
		take(payload)
	})
	if err != nil {
		c.fail(err)
	}
	return err
}

// Close implements Conn. It may be called twice.
func (c *Counted) Close() error {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	err := c.conn.Close()
	c.once.Do(func() {
		c.stop()
		c.mu.Lock()
		why := c.why
		c.mu.Unlock()
		if errors.Is(why, net.ErrClosed) || errors.Is(why, io.EOF) {
			why = nil
		}
		c.ended(why)
	})
	return err
}

// Load gives the bytes that were sent, and those that were received.
func (c *Counted) Load() (toServer, toClient uint64) {
	return c.sent.bytes.Load(), c.received.bytes.Load()
}

// Datagrams gives how many were sent, and how many received.
func (c *Counted) Datagrams() (toServer, toClient uint64) {
	return c.sent.datagrams.Load(), c.received.datagrams.Load()
}
