// Package capsule reads and writes the datagrams of a CONNECT-UDP where a stream
// carries them (RFC 9297, 3; RFC 9298, 5), and keeps those that have come, from a
// stream or otherwise, until they are received. It refuses to know a transport:
// hbone/h2 and hbone/h3 call it.
package capsule

import (
	"encoding/binary"
	"errors"

	"github.com/ambit-mesh/ambit/internal/hbone"
)

// kindDatagram is the one type of capsules that is known here; others are skipped.
const kindDatagram = 0x00

// HeaderLen is the most that a capsule has before its payload.
const HeaderLen = 6

// AppendHeader begins the capsule of a datagram of n bytes: its type, its length
// and the context ID, which is 0 for payloads of UDP.
func AppendHeader(b []byte, n int) []byte {
	b = append(b, kindDatagram)
	n++ // the context ID
	switch {
	case n < 1<<6:
		b = append(b, byte(n))
	case n < 1<<14:
		b = binary.BigEndian.AppendUint16(b, uint16(n)|0x4000)
	default:
		b = binary.BigEndian.AppendUint32(b, uint32(n)|0x8000_0000)
	}
	return append(b, 0)
}

// Payload is that of a datagram that came outside of a stream, after its context
// ID; false if it is of a context that nobody has registered.
func Payload(p []byte) ([]byte, bool) {
	id, rest, ok := varint(p)
	return rest, ok && id == 0
}

// errTooLong is a datagram that UDP does not know.
var errTooLong = errors.New("capsule of a datagram longer than UDP has")

// Decoder takes capsules from a stream, in pieces of any length. The zero value is
// ready.
type Decoder struct {
	head    [16]byte
	headLen int
	kind    uint64
	left    uint64 // of the capsule's value
	inside  bool
	part    []byte // of a datagram that came in pieces
}

// Write gives each datagram that p completes to emit, which must not keep it. An
// error is the end of the stream.
func (d *Decoder) Write(p []byte, emit func([]byte)) error {
	for len(p) > 0 {
		if !d.inside {
			var err error
			if p, err = d.begin(p); err != nil {
				return err
			}
			if !d.inside || d.left > 0 {
				continue
			}
		}
		p = d.value(p, emit)
	}
	return nil
}

// begin reads the header, and gives what follows it.
func (d *Decoder) begin(p []byte) ([]byte, error) {
	for len(p) > 0 && !d.inside {
		d.head[d.headLen] = p[0]
		d.headLen++
		p = p[1:]
		kind, rest, ok := varint(d.head[:d.headLen])
		if !ok {
			continue
		}
		length, _, ok := varint(rest)
		if !ok {
			continue
		}
		d.kind, d.left, d.inside, d.headLen = kind, length, true, 0
	}
	if d.inside && d.kind == kindDatagram && d.left > hbone.MaxDatagram+8 {
		return nil, errTooLong
	}
	if d.inside && d.left == 0 {
		d.inside = false // nothing, not even a context
	}
	return p, nil
}

// value takes what p has of the capsule's value, and gives what follows.
func (d *Decoder) value(p []byte, emit func([]byte)) []byte {
	n := int(min(uint64(len(p)), d.left))
	d.left -= uint64(n)
	piece := p[:n]
	if d.kind == kindDatagram && (d.left > 0 || len(d.part) > 0) {
		d.part = append(d.part, piece...)
		piece = d.part
	}
	if d.left == 0 {
		d.inside = false
		if d.kind == kindDatagram {
			if payload, ok := Payload(piece); ok && len(payload) <= hbone.MaxDatagram {
				emit(payload)
			}
		}
		d.part = nil
	}
	return p[n:]
}

// Between says that the last capsule has come whole, as it must at the end.
func (d *Decoder) Between() bool { return !d.inside && d.headLen == 0 }

// varint reads one of QUIC's integers (RFC 9000, 16).
func varint(p []byte) (v uint64, rest []byte, ok bool) {
	if len(p) == 0 {
		return 0, nil, false
	}
	n := 1 << (p[0] >> 6)
	if len(p) < n {
		return 0, nil, false
	}
	v = uint64(p[0] & 0x3f)
	for _, b := range p[1:n] {
		v = v<<8 | uint64(b)
	}
	return v, p[n:], true
}
