package h2

import "sync"

// queue holds bytes that arrived before the application took them. Its owner
// bounds it (a stream's window) and locks it.
type queue struct {
	head, tail *chunk
	len        int
	hold       func(n int) // told of buffers taken, and, negative, given back
}

type chunk struct {
	next *chunk
	buf  []byte
	r, w int
}

// Two sizes, so that a few bytes in a stalled stream do not hold a big buffer.
const (
	littleChunk = 4 << 10
	largeChunk  = 64 << 10
)

var (
	littleChunks = sync.Pool{New: func() any { return &chunk{buf: make([]byte, littleChunk)} }}
	largeChunks  = sync.Pool{New: func() any { return &chunk{buf: make([]byte, largeChunk)} }}
)

func newChunk(n int) *chunk {
	if n <= littleChunk {
		return littleChunks.Get().(*chunk)
	}
	return largeChunks.Get().(*chunk)
}

// free gives back what take or pop removed.
func (q *queue) free(c *chunk) {
	q.hold(-len(c.buf))
	c.free()
}

func (c *chunk) free() {
	c.next, c.r, c.w = nil, 0, 0
	if len(c.buf) == littleChunk {
		littleChunks.Put(c)
	} else {
		largeChunks.Put(c)
	}
}

// add copies p to the end.
func (q *queue) add(p []byte) {
	q.len += len(p)
	for len(p) > 0 {
		if q.tail == nil || q.tail.w == len(q.tail.buf) {
			q.grow(len(p))
		}
		n := copy(q.tail.buf[q.tail.w:], p)
		q.tail.w += n
		p = p[n:]
	}
}

func (q *queue) grow(n int) {
	if q.tail != nil {
		n = largeChunk // what is already waiting will not be little
	}
	c := newChunk(n)
	q.hold(len(c.buf))
	if q.tail == nil {
		q.head = c
	} else {
		q.tail.next = c
	}
	q.tail = c
}

// read moves bytes into p.
func (q *queue) read(p []byte) (n int) {
	for n < len(p) && q.head != nil {
		m := copy(p[n:], q.head.buf[q.head.r:q.head.w])
		n += m
		q.head.r += m
		if q.head.r == q.head.w {
			q.free(q.pop())
		}
	}
	q.len -= n
	return n
}

// take removes the first chunk whole; the caller frees it.
func (q *queue) take() *chunk {
	c := q.pop()
	q.len -= c.w - c.r
	return c
}

func (q *queue) pop() *chunk {
	c := q.head
	q.head = c.next
	if q.head == nil {
		q.tail = nil
	}
	c.next = nil
	return c
}

// drop frees everything and says how much it was.
func (q *queue) drop() int {
	n := q.len
	for q.head != nil {
		q.free(q.pop())
	}
	q.len = 0
	return n
}
