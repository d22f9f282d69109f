package relay

import (
	"errors"
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ambit-mesh/ambit/internal/hbone"
)

// awaitReset waits, after the orderly end of reading from e, until its peer
// resets it or unwatch is called. A process that half-closed and was then killed
// is seen by nothing else as long as there is nothing to write to it.
func awaitReset(e End) error {
	switch e := e.(type) {
	case hbone.ResetWaiter:
		if err := e.AwaitReset(); !errors.Is(err, hbone.ErrClosed) {
			return err
		}
	case *net.TCPConn:
		return awaitSocketError(e)
	}
	return nil
}

// awaitSocketError is woken by the poller and then asks the socket; it reads
// nothing, as there is nothing to read after the end.
func awaitSocketError(c *net.TCPConn) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil
	}
	var found error
	raw.Read(func(fd uintptr) bool {
		if n, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ERROR); err == nil && n != 0 {
			found = syscall.Errno(n)
		}
		return found != nil
	})
	return found
}

// unwatch ends a wait for a socket's error; a stream's ends by itself.
func unwatch(e End) {
	if c, ok := e.(*net.TCPConn); ok {
		c.SetReadDeadline(time.Unix(1, 0))
	}
}

func isNotConnected(err error) bool { return errors.Is(err, syscall.ENOTCONN) }
