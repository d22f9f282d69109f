package terminate

import (
	"errors"
	"io"
	"os"
	"time"

	"github.com/ambit-mesh/ambit/internal/hbone"
)

// peeked is a stream of which the beginning was looked at.
type peeked struct {
	hbone.Stream
	head []byte // still to be read
	end  error  // that came behind it
}

var _ hbone.ResetWaiter = (*peeked)(nil)

// more reads on, before anybody else does.
func (p *peeked) more() error {
	if p.end != nil {
		return p.end
	}
	b := make([]byte, 4<<10)
	n, err := p.Stream.Read(b)
	p.head = append(p.head, b[:n]...)
	if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		p.end = err
	}
	return err
}

// Read implements hbone.Stream.
func (p *peeked) Read(b []byte) (int, error) {
	if len(p.head) > 0 {
		n := copy(b, p.head)
		if p.head = p.head[n:]; len(p.head) == 0 {
			p.head = nil
		}
		return n, nil
	}
	return p.Stream.Read(b)
}

// WriteTo implements hbone.Stream.
func (p *peeked) WriteTo(w io.Writer) (int64, error) {
	n, err := w.Write(p.head)
	p.head = p.head[n:]
	if err != nil {
		return int64(n), err
	}
	m, err := p.Stream.WriteTo(w)
	return int64(n) + m, err
}

// AwaitReset implements hbone.ResetWaiter.
func (p *peeked) AwaitReset() error {
	if w, ok := p.Stream.(hbone.ResetWaiter); ok {
		return w.AwaitReset()
	}
	return nil
}

// linger waits for the end of a stream whose connection was closed here: who
// handles a CONNECT must not return before, as that would cut it.
func (p *peeked) linger() {
	stop := time.AfterFunc(2*time.Second, func() { p.Reset() })
	defer stop.Stop()
	p.AwaitReset()
}
