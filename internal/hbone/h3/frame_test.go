package h3

import (
	"bytes"
	"errors"
	"io"
	"os"
	"testing"
	"testing/iotest"

	"github.com/quic-go/quic-go/quicvarint"
)

// headersOf reads the headers of frames, and skips their payloads.
func headersOf(r io.Reader) (got [][2]uint64, err error) {
	var h header
	for {
		kind, length, err := h.read(r)
		if err != nil {
			return got, err
		}
		got = append(got, [2]uint64{kind, length})
		if n, _ := io.CopyN(io.Discard, r, int64(length)); uint64(n) < length {
			return got, errTruncated
		}
	}
}

func TestFrameHeaders(t *testing.T) {
	data := make([]byte, dataRoom, dataRoom+3)
	putData(data, 3)
	data = append(data, "abc"...)
	for _, tt := range []struct {
		name string
		in   []byte
		want [][2]uint64
		err  error
	}{
		{"nothing", nil, nil, io.EOF},
		{"one frame", appendFrame(nil, frameHeaders, []byte("x")), [][2]uint64{{frameHeaders, 1}}, io.EOF},
		{"ours with a length of four bytes", append(data, appendFrame(nil, frameData, nil)...), [][2]uint64{{frameData, 3}, {frameData, 0}}, io.EOF},
		{"a type of eight bytes", quicvarint.Append(quicvarint.Append(nil, 1<<40), 0), [][2]uint64{{1 << 40, 0}}, io.EOF},
		{"an end within the type", []byte{0x40}, nil, errTruncated},
		{"an end within the length", []byte{0, 0x80, 0}, nil, errTruncated},
	} {
		for name, r := range map[string]io.Reader{"whole": bytes.NewReader(tt.in), "byte by byte": iotest.OneByteReader(bytes.NewReader(tt.in))} {
			got, err := headersOf(r)
			if len(got) != len(tt.want) || len(got) > 0 && got[len(got)-1] != tt.want[len(got)-1] || !errors.Is(err, tt.err) {
				t.Errorf("%s, %s: %v, %v; want %v, %v", tt.name, name, got, err, tt.want, tt.err)
			}
		}
	}
}

func TestADeadlineWithinAFrameHeaderLosesNothing(t *testing.T) {
	var h header
	late := io.MultiReader(bytes.NewReader([]byte{0, 0x80}), iotest.ErrReader(os.ErrDeadlineExceeded))
	if _, _, err := h.read(late); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("error %v", err)
	}
	if kind, length, err := h.read(bytes.NewReader([]byte{0, 1, 0})); kind != frameData || length != 256 || err != nil {
		t.Errorf("frame %d of %d bytes, %v", kind, length, err)
	}
}

func FuzzFrameHeaders(f *testing.F) {
	f.Add(appendFrame(appendFrame(nil, frameHeaders, []byte("x")), frameData, []byte("abc")))
	f.Add([]byte{0, 0x80, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		whole, err := headersOf(bytes.NewReader(b))
		parts, errParts := headersOf(iotest.OneByteReader(bytes.NewReader(b)))
		if len(whole) != len(parts) || !errors.Is(errParts, err) {
			t.Errorf("%v, %v byte by byte are %v, %v", whole, err, parts, errParts)
		}
	})
}
