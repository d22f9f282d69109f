package hbonetest

import (
	"errors"
	"io"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/ambit-mesh/ambit/internal/hbone"
)

func wantDeadline(t *testing.T, what string, err error) {
	t.Helper()
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("%s: %v, want ErrDeadlineExceeded", what, err)
	}
}

func soon() time.Time { return time.Now().Add(20 * time.Millisecond) }

var (
	past  = time.Unix(1, 0)
	never = time.Time{}
)

var deadlineTests = []test{
	{"a deadline ends a read that waits, and the stream lives on", sides(func(t *testing.T, here, there hbone.Stream) {
		here.SetReadDeadline(soon())
		_, err := here.Read(make([]byte, 1))
		wantDeadline(t, "read", err)
		write(t, there, "late")
		_, err = here.Read(make([]byte, 1))
		wantDeadline(t, "read of what came after the deadline", err)
		here.SetReadDeadline(never)
		there.CloseWrite()
		readAll(t, here, "late")
		write(t, here, "answer")
		here.CloseWrite()
		readAll(t, there, "answer")
	})},
	{"a deadline in the past wakes who waits already", sides(func(t *testing.T, here, there hbone.Stream) {
		for name, wait := range map[string]func() error{
			"Read":    func() error { _, err := here.Read(make([]byte, 1)); return err },
			"WriteTo": func() error { _, err := here.WriteTo(io.Discard); return err },
		} {
			woken := make(chan error, 1)
			go func() { woken <- wait() }()
			here.SetReadDeadline(past)
			wantDeadline(t, name, <-woken)
			here.SetReadDeadline(never)
		}
		here.Reset()
	})},
	{"a deadline that is taken back does not ring", sides(func(t *testing.T, here, there hbone.Stream) {
		here.SetReadDeadline(soon())
		here.SetReadDeadline(time.Now().Add(time.Hour))
		read := make(chan error, 1)
		go func() { _, err := here.Read(make([]byte, 1)); read <- err }()
		select {
		case err := <-read:
			t.Errorf("read ended: %v", err)
		case <-time.After(60 * time.Millisecond):
		}
		write(t, there, "x")
		if err := <-read; err != nil {
			t.Error(err)
		}
		here.Reset()
	})},
	{"a deadline ends a write that waits for the window", sides(func(t *testing.T, here, there hbone.Stream) {
		for name, wait := range map[string]func() error{
			"ReadFrom": func() error { _, err := here.ReadFrom(endless{}); return err },
			"Write":    func() error { _, err := here.Write(make([]byte, 64<<20)); return err },
		} {
			here.SetWriteDeadline(soon())
			wantDeadline(t, name, wait())
		}
		here.SetWriteDeadline(past)
		_, err := here.Write([]byte("x"))
		wantDeadline(t, "write after the deadline", err)
		here.Reset()
	})},
	{"a connection made of a stream closes as a socket does", sides(func(t *testing.T, here, there hbone.Stream) {
		a, b := netip.MustParseAddrPort("10.0.0.1:1"), netip.MustParseAddrPort("[fd00::1]:2")
		c := hbone.NewConn(here, a, b)
		if c.LocalAddr().String() != a.String() || c.RemoteAddr().String() != b.String() {
			t.Errorf("addresses %s, %s", c.LocalAddr(), c.RemoteAddr())
		}
		reading := make(chan error, 1)
		go func() { _, err := c.Read(make([]byte, 1)); reading <- err }()
		if _, err := io.WriteString(c, "last words"); err != nil {
			t.Error(err)
		}
		c.Close()
		if err := <-reading; err == nil {
			t.Error("a read went on after the close")
		}
		readAll(t, there, "last words")
		there.CloseWrite() // so that it need not be reset
		if w, ok := there.(hbone.ResetWaiter); ok {
			if err := w.AwaitReset(); err != nil {
				t.Errorf("AwaitReset: %v, want an orderly end", err)
			}
		}
		c.Close()
	})},
	{"a connection whose peer does not end its half is reset", sides(func(t *testing.T, here, there hbone.Stream) {
		hbone.NewConn(here, netip.AddrPort{}, netip.AddrPort{}).Close()
		until(t, "writes fail", func() bool { _, err := there.Write([]byte("x")); return errors.Is(err, hbone.ErrReset) })
	})},
}
