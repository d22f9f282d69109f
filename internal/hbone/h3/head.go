package h3

import (
	"bytes"
	"errors"
	"io"
	"maps"
	"slices"

	"github.com/quic-go/qpack"
	"github.com/quic-go/quic-go/http3"

	"github.com/ambit-mesh/ambit/internal/hbone/head"
)

// encode makes a HEADERS frame.
func encode(pseudo []head.Field, header map[string]string) []byte {
	var b bytes.Buffer
	e := qpack.NewEncoder(&b)
	for _, f := range pseudo {
		e.WriteField(qpack.HeaderField{Name: f.Name, Value: f.Value})
	}
	for _, name := range slices.Sorted(maps.Keys(header)) {
		e.WriteField(qpack.HeaderField{Name: name, Value: header[name]})
	}
	return appendFrame(nil, frameHeaders, b.Bytes())
}

// errNoHead is a stream that ends before its head does.
var errNoHead = errors.New("stream ends before its headers")

// readHead reads the HEADERS frame that a stream, or a final answer, begins with.
// What is longer than the limit is not read, as without a dynamic table nobody
// depends on it.
func (s *stream) readHead() (*head.Block, error) {
	b := head.NewBlock(s.t.maxHeaders())
	for skipped := uint64(0); ; {
		kind, length, err := s.frame.read(s.q)
		if err != nil {
			if errors.Is(err, io.EOF) {
				err = errNoHead
			}
			return nil, err
		}
		switch {
		case kind == frameHeaders && length > uint64(b.Limit()):
			b.TooLong()
			return b, nil
		case kind == frameHeaders:
			return b, s.readBlock(b, int(length))
		case kind == frameData || elsewhere(kind):
			return nil, fault(http3.ErrCodeFrameUnexpected, "frame before the headers")
		}
		if skipped += length; skipped > uint64(b.Limit()) {
			return nil, fault(http3.ErrCodeExcessiveLoad, "too much before the headers")
		}
		if _, err := io.CopyN(io.Discard, s.q, int64(length)); err != nil {
			return nil, err
		}
	}
}

func (s *stream) readBlock(b *head.Block, length int) error {
	p := make([]byte, length)
	if _, err := io.ReadFull(s.q, p); err != nil {
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			err = errNoHead
		}
		return err
	}
	next := qpack.NewDecoder().Decode(p)
	for {
		f, err := next()
		if errors.Is(err, io.EOF) {
			b.Join()
			return nil
		}
		if err != nil {
			return fault(http3.ErrCodeQPACKDecompressionFailed, "header block: "+err.Error())
		}
		b.Add(head.Field{Name: f.Name, Value: f.Value})
	}
}
