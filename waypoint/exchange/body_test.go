package exchange

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
)

// TestRoomsOfBodies holds that what is kept of one body is whole for each try,
// and that nobody reads another request's in its place when it is over.
func TestRoomsOfBodies(t *testing.T) {
	for name, text := range map[string]string{
		"a small body": "hello", "a body with a room": strings.Repeat("a room ", 4<<10), "a body as large as its room": strings.Repeat("a", roomLen),
	} {
		t.Run(name, func(t *testing.T) {
			b := newBody(strings.NewReader(text), roomLen, false)
			for try := range 2 {
				got, err := io.ReadAll(b.reader())
				if err != nil || string(got) != text {
					t.Fatalf("try %d has %d bytes of %d, error %v", try, len(got), len(text), err)
				}
			}
			late := b.reader()
			b.end()
			other := newBody(strings.NewReader(strings.Repeat("x", roomLen)), roomLen, false)
			io.Copy(io.Discard, other.reader())
			if got, err := io.ReadAll(late); len(got) > 0 || !errors.Is(err, errLost) {
				t.Errorf("a late reader has %d bytes and error %v, want none and that they are lost", len(got), err)
			}
		})
	}
	t.Run("mirrors keep theirs", func(t *testing.T) {
		text := strings.Repeat("mirrored", 1<<10)
		b := newBody(strings.NewReader(text), roomLen, false)
		var copied []byte
		b.atEnd = func() { copied, _ = b.whole() }
		io.Copy(io.Discard, b.reader())
		b.end()
		other := newBody(strings.NewReader(strings.Repeat("x", roomLen)), roomLen, false)
		io.Copy(io.Discard, other.reader())
		if !bytes.Equal(copied, []byte(text)) {
			t.Error("another request has written into a mirror's body")
		}
	})
}
