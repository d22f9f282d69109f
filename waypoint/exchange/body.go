package exchange

import (
	"errors"
	"io"
	"sync"
)

// body is a client's body, of which the beginning is kept, so that it can be
// sent again. Each try reads by a reader of its own. The transport may still
// wait for the client when a try has been given up; what then arrives goes to
// the next one.
type body struct {
	src   io.Reader
	limit int

	mu      sync.Mutex
	arrived sync.Cond // on mu: reading has changed
	kept    []byte
	room    *[roomLen]byte // what kept is in, if it is not small
	lost    bool           // more came than is kept: nothing can be sent again
	keeping bool           // further tries or mirrors may want it
	reading bool           // somebody waits for the client
	err     error          // the end, io.EOF mostly
	count   counter
	atEnd   func() // called once, with the body's end and without mu
}

// newBody keeps up to limit bytes. Nil is valid: a request without a body.
func newBody(src io.Reader, limit int, grpc bool) *body {
	b := &body{src: src, limit: limit, keeping: true, count: counter{grpc: grpc}}
	b.arrived.L = &b.mu
	return b
}

// repeatable says whether another try can have the whole body.
func (b *body) repeatable() bool {
	if b == nil {
		return true
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return !b.lost && b.keeping && (b.err == nil || b.err == io.EOF)
}

// release keeps nothing any more.
func (b *body) release() {
	if b == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.keeping = false
}

// whole gives the body if all of it has come and was kept.
func (b *body) whole() ([]byte, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.kept, b.err == io.EOF && !b.lost
}

// messages is how many of gRPC came.
func (b *body) messages() uint64 {
	if b == nil {
		return 0
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.count.messages
}

// received is how much came, and why no more will if the client is at fault.
func (b *body) received() (uint64, error) {
	if b == nil {
		return 0, nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.err == io.EOF {
		return b.count.bytes, nil
	}
	return b.count.bytes, b.err
}

// reader begins a try.
func (b *body) reader() io.ReadCloser {
	if b == nil {
		return nil
	}
	return &bodyReader{body: b}
}

type bodyReader struct {
	*body
	at     int // within what came, as long as nothing is lost
	closed bool
}

var errBodyClosed = errors.New("the try has ended")

// Close implements io.Closer. It leaves the client's body for the next try.
func (r *bodyReader) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
	r.arrived.Broadcast()
	return nil
}

// Read implements io.Reader.
func (r *bodyReader) Read(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for {
		switch {
		case r.closed:
			return 0, errBodyClosed
		case r.at < len(r.kept):
			n := copy(p, r.kept[r.at:])
			r.at += n
			return n, nil
		case uint64(r.at) < r.count.bytes:
			return 0, errLost
		case r.err != nil:
			return 0, r.err
		case !r.reading:
			return r.fetchLocked(p)
		}
		r.arrived.Wait()
	}
}

var errLost = errors.New("the beginning of the body is not kept")

// fetchLocked reads from the client, without mu.
func (r *bodyReader) fetchLocked(p []byte) (int, error) {
	b := r.body
	b.reading = true
	b.mu.Unlock()
	n, err := b.src.Read(p)
	b.mu.Lock()
	b.reading = false
	b.arrived.Broadcast()
	b.count.add(p[:n])
	b.keepLocked(p[:n])
	if err != nil && b.err == nil {
		b.err = err
		if b.atEnd != nil {
			b.mu.Unlock()
			b.atEnd()
			b.mu.Lock()
		}
	}
	if r.closed {
		return 0, errBodyClosed // what came is kept, or lost
	}
	r.at += n
	if n > 0 {
		return n, nil
	}
	return 0, b.err
}

func (b *body) keepLocked(p []byte) {
	switch n := len(b.kept) + len(p); {
	case b.lost || len(p) == 0:
	case !b.keeping || n > b.limit:
		b.loseLocked()
	default:
		if n > small && b.room == nil {
			b.room = rooms.Get().(*[roomLen]byte)
			b.kept = append(b.room[:0], b.kept...)
		}
		b.kept = append(b.kept, p...)
	}
}

// roomLen is what bodies are kept in that are larger than small; one that may
// be larger still grows out of it.
const (
	small   = 1 << 10
	roomLen = 64 << 10
)

var rooms = sync.Pool{New: func() any { return new([roomLen]byte) }}

// loseLocked keeps nothing any more, not even what has come.
func (b *body) loseLocked() {
	b.lost, b.kept = true, nil
	if b.room != nil {
		rooms.Put(b.room)
		b.room = nil
	}
}

// end keeps nothing of a request that is over, unless its mirrors have it.
func (b *body) end() {
	if b == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.atEnd == nil {
		b.loseLocked()
	}
}
