package forward

import (
	"io"
	"net"
	"sync"
)

// lending is a connection that lends its buffer to a body on its way to the
// backend: net/http would make one for each body.
type lending struct{ net.Conn }

var buffers = sync.Pool{New: func() any { return new([32 << 10]byte) }}

// ReadFrom implements io.ReaderFrom.
func (c lending) ReadFrom(r io.Reader) (int64, error) {
	b := buffers.Get().(*[32 << 10]byte)
	defer buffers.Put(b)
	return io.CopyBuffer(struct{ io.Writer }{c.Conn}, struct{ io.Reader }{r}, b[:])
}

// CloseWrite lets whoever changed the protocol half-close.
func (c lending) CloseWrite() error {
	if h, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return h.CloseWrite()
	}
	return nil
}
