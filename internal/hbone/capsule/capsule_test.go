package capsule

import (
	"bytes"
	"context"
	"errors"
	"io"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"

	"github.com/ambit-mesh/ambit/internal/hbone"
)

// encoded is one datagram's capsule.
func encoded(p []byte) []byte { return append(AppendHeader(nil, len(p)), p...) }

// decode feeds b in pieces of n bytes.
func decode(b []byte, n int) (got [][]byte, between bool, err error) {
	var d Decoder
	for len(b) > 0 && err == nil {
		m := min(n, len(b))
		err = d.Write(b[:m], func(p []byte) { got = append(got, bytes.Clone(p)) })
		b = b[m:]
	}
	return got, d.Between(), err
}

func TestWhatADecoderGives(t *testing.T) {
	long := bytes.Repeat([]byte("x"), hbone.MaxDatagram)
	for _, tt := range []struct {
		name    string
		in      []byte
		want    [][]byte
		between bool
		err     error
	}{
		{"nothing of nothing", nil, nil, true, nil},
		{"one datagram", encoded([]byte("one")), [][]byte{[]byte("one")}, true, nil},
		{"an empty one", encoded(nil), [][]byte{{}}, true, nil},
		{"the longest", encoded(long), [][]byte{long}, true, nil},
		{"two after each other", append(encoded([]byte("one")), encoded(long)...), [][]byte{[]byte("one"), long}, true, nil},
		{"capsules of other types are skipped", append([]byte{0x29, 3, 'a', 'b', 'c', 0x40, 0x55, 0}, encoded([]byte("one"))...), [][]byte{[]byte("one")}, true, nil},
		{"datagrams of other contexts are skipped", append([]byte{0, 2, 7, 'x'}, encoded([]byte("one"))...), [][]byte{[]byte("one")}, true, nil},
		{"a datagram without a context is skipped", append([]byte{0, 0}, encoded([]byte("one"))...), [][]byte{[]byte("one")}, true, nil},
		{"the end within a header is seen", []byte{0x40}, nil, false, nil},
		{"the end within a value is seen", []byte{0, 5, 0, 'x'}, nil, false, nil},
		{"one that is too long ends the stream", []byte{0, 0x80, 2, 0, 0}, nil, false, errTooLong},
	} {
		for _, n := range []int{1, 2, 7, 1 << 20} {
			got, between, err := decode(tt.in, n)
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("%s, in pieces of %d (-want +got):\n%s", tt.name, n, diff[:min(len(diff), 500)])
			}
			if !errors.Is(err, tt.err) || tt.err == nil && between != tt.between {
				t.Errorf("%s, in pieces of %d: between %v, error %v", tt.name, n, between, err)
			}
		}
	}
}

func FuzzDecoder(f *testing.F) {
	f.Add(encoded([]byte("one")), 3)
	f.Add([]byte{0x29, 3, 'a', 'b', 'c', 0, 2, 7, 'x', 0, 0}, 1)
	f.Add([]byte{0, 0x80, 2, 0, 0}, 2)
	f.Fuzz(func(t *testing.T, b []byte, n int) {
		n = 1 + max(0, n)%atLeast1(b)
		whole, between, err := decode(b, max(1, len(b)))
		parts, betweenParts, errParts := decode(b, n)
		if diff := cmp.Diff(whole, parts); diff != "" || (err == nil) != (errParts == nil) || err == nil && between != betweenParts {
			t.Errorf("in pieces of %d otherwise than whole: %v, %v\n%s", n, err, errParts, diff)
		}
		for _, p := range whole {
			if again, _, err := decode(encoded(p), n); err != nil || len(again) != 1 || !bytes.Equal(again[0], p) {
				t.Errorf("%q is written and read as %q, %v", p, again, err)
			}
		}
	})
}

func atLeast1(b []byte) int { return max(1, len(b)) }

func TestAQueueIsBoundedByNumberAndByBytes(t *testing.T) {
	for _, tt := range []struct {
		name       string
		size, kept int
	}{
		{"many small ones", 10, maxQueued},
		{"few big ones", maxQueuedBytes / 4, 4},
	} {
		q := NewQueue()
		for range maxQueued + 10 {
			q.Push(make([]byte, tt.size))
		}
		q.End(io.EOF, false)
		kept := 0
		for {
			if _, err := q.Receive(t.Context()); err != nil {
				break
			}
			kept++
		}
		if dropped := int(q.Dropped()); kept != tt.kept || dropped != maxQueued+10-kept {
			t.Errorf("%s: %d kept, %d dropped", tt.name, kept, dropped)
		}
	}
}

func TestAQueuesEnd(t *testing.T) {
	q := NewQueue()
	q.Push([]byte("one"))
	q.End(io.EOF, false)
	q.End(hbone.ErrReset, false)
	q.Push([]byte("late"))
	if p, err := q.Receive(t.Context()); string(p) != "one" || err != nil {
		t.Errorf("received %q, %v", p, err)
	}
	if _, err := q.Receive(t.Context()); err != io.EOF {
		t.Errorf("after it: %v, want the first end", err)
	}
	q.Push([]byte("x"))
	q.End(hbone.ErrClosed, true)
	if _, err := q.Receive(t.Context()); err != hbone.ErrClosed {
		t.Errorf("after a close: %v", err)
	}
}

func TestAllWhoWaitForAQueueAreWoken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := NewQueue()
		ends := make(chan error, 3)
		for range 3 {
			go func() { _, err := q.Receive(context.Background()); ends <- err }()
		}
		ctx, cancel := context.WithCancel(context.Background())
		given := make(chan error, 1)
		go func() { _, err := q.Receive(ctx); given <- err }()
		synctest.Wait()
		cancel()
		if err := <-given; !errors.Is(err, context.Canceled) {
			t.Errorf("given up: %v", err)
		}
		q.Push([]byte("one"))
		if err := <-ends; err != nil {
			t.Error(err)
		}
		q.End(io.EOF, false)
		for range 2 {
			if err := <-ends; err != io.EOF {
				t.Error(err)
			}
		}
	})
}
