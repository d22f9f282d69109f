package cluster

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ambit-mesh/ambit/internal/linux"
	"github.com/ambit-mesh/ambit/internal/linux/linuxtest"
)

// TestACaptureSeesWhatHasPassedAndCountsWhatItMissed: it is told to end before
// it has looked at anything.
func TestACaptureSeesWhatHasPassedAndCountsWhatItMissed(t *testing.T) {
	const datagrams = 500
	for _, tt := range []struct {
		what   string
		buffer int // zero is its own
		misses bool
	}{
		{"its own buffer holds everything", 0, false},
		{"a small one does not", 8 << 10, true},
	} {
		ns := linuxtest.NewNetNS(t)
		fd, err := openCapture(fmt.Sprintf("/proc/self/fd/%d", ns.File().Fd()), "lo")
		if err != nil {
			t.Fatal(err)
		}
		if tt.buffer > 0 {
			if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, tt.buffer); err != nil {
				t.Fatal(err)
			}
		}
		marker := []byte("what is said before the end")
		speak(t, ns, marker, datagrams)
		over, cancel := context.WithCancel(t.Context())
		cancel()
		seen := 0
		missed, err := look(over, fd, func(frame []byte) {
			if bytes.Contains(frame, marker) {
				seen++
			}
		})
		unix.Close(fd)
		if err != nil {
			t.Fatal(err)
		}
		// A frame is seen as it leaves and as it arrives.
		if (seen == 2*datagrams) == tt.misses || (missed > 0) != tt.misses {
			t.Errorf("%s: of %d frames %d were seen, %d missed", tt.what, 2*datagrams, seen, missed)
		}
	}
}

// speak sends datagrams inside a namespace.
func speak(t *testing.T, ns *linux.NetNS, text []byte, n int) {
	t.Helper()
	at := netip.MustParseAddrPort("127.0.0.1:9")
	l, err := linux.ListenUDP(t.Context(), ns, at, linux.ListenOptions{}) // else each would be answered
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := linux.DialUDP(t.Context(), ns, at, linux.DialOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for range n {
		if _, err := c.Write(text); err != nil {
			t.Fatal(err)
		}
	}
}
