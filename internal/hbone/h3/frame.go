package h3

import (
	"encoding/binary"
	"errors"
	"io"

	"github.com/quic-go/quic-go/http3"
	"github.com/quic-go/quic-go/quicvarint"

	"github.com/ambit-mesh/ambit/internal/hbone/door"
)

// Types of frames (RFC 9114, 7.2).
const (
	frameData     = 0x00
	frameHeaders  = 0x01
	frameSettings = 0x04
	frameGoAway   = 0x07
)

// elsewhere are the types that have no place on a request's stream, those of
// HTTP/2 included (RFC 9114, 7.2.8).
func elsewhere(kind uint64) bool {
	switch kind {
	case 0x02, 0x03, frameSettings, 0x05, 0x06, frameGoAway, 0x08, 0x09, 0x0d:
		return true
	}
	return false
}

// dataRoom is what a DATA frame's header takes in front of its payload: the
// length is always written in four bytes.
const dataRoom = 5

// putData writes the header of a DATA frame of n bytes.
func putData(b []byte, n int) {
	b[0] = frameData
	binary.BigEndian.PutUint32(b[1:dataRoom], 0x8000_0000|uint32(n))
}

// appendFrame adds a whole frame.
func appendFrame(b []byte, kind uint64, payload []byte) []byte {
	b = quicvarint.Append(b, kind)
	b = quicvarint.Append(b, uint64(len(payload)))
	return append(b, payload...)
}

// header reads frame headers. It keeps the beginning of one, so that a deadline
// in the middle loses nothing.
type header struct {
	b [16]byte
	n int
}

// read gives the type and length of the next frame; io.EOF is the end between
// two frames.
func (h *header) read(r io.Reader) (kind, length uint64, err error) {
	for {
		want := h.want()
		if h.n == want {
			break
		}
		n, err := r.Read(h.b[h.n:want])
		h.n += n
		if err != nil && h.n < h.want() {
			if errors.Is(err, io.EOF) && h.n > 0 {
				err = errTruncated
			}
			return 0, 0, err
		}
	}
	kind, n, _ := quicvarint.Parse(h.b[:h.n])
	length, _, _ = quicvarint.Parse(h.b[n:h.n])
	h.n = 0
	return kind, length, nil
}

// want is how many bytes the header has, as far as is known: two at least.
func (h *header) want() int {
	if h.n == 0 {
		return 2
	}
	first := varintLen(h.b[0])
	if h.n <= first {
		return first + 1
	}
	return first + varintLen(h.b[first])
}

func varintLen(b byte) int { return 1 << (b >> 6) }

// errTruncated is a stream that ends within a frame.
var errTruncated = errors.New("stream ends within a frame")

// connError ends a tunnel; its code goes to the peer.
type connError struct {
	code   http3.ErrCode
	reason string
	abuse  door.Abuse // of EXCESSIVE_LOAD
}

func (e *connError) Error() string {
	if e.code == http3.ErrCodeNoError {
		return e.reason
	}
	return e.reason + " (" + e.code.String() + ")"
}

func fault(code http3.ErrCode, reason string) error { return &connError{code: code, reason: reason} }

// codeOf is what the peer is told of the end of a tunnel.
func codeOf(err error) http3.ErrCode {
	if ce, ok := errors.AsType[*connError](err); ok {
		return ce.code
	}
	return http3.ErrCodeNoError
}
