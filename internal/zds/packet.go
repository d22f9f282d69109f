package zds

import (
	"fmt"
	"io"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// writePacket sends one message with at most one descriptor.
func writePacket(c *net.UnixConn, b []byte, f *os.File) error {
	var oob []byte
	if f != nil {
		oob = unix.UnixRights(int(f.Fd()))
	}
	n, oobn, err := c.WriteMsgUnix(b, oob, nil)
	if err != nil {
		return fmt.Errorf("sending: %w", err)
	}
	if n != len(b) || oobn != len(oob) {
		return fmt.Errorf("sending: %w", io.ErrShortWrite)
	}
	return nil
}

// readPacket receives one message and at most one descriptor, which the caller
// closes. An empty packet is the end of the connection: no message is empty.
func readPacket(c *net.UnixConn, buf []byte) ([]byte, *os.File, error) {
	// Room for two, so that a second descriptor is seen as one too many.
	oob := make([]byte, unix.CmsgSpace(2*4))
	n, oobn, flags, _, err := c.ReadMsgUnix(buf, oob)
	if err != nil {
		return nil, nil, fmt.Errorf("receiving: %w", err)
	}
	files, err := parseRights(oob[:oobn])
	switch {
	case err != nil:
	case flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0:
		err = violation("message is larger than %d bytes or carries too many descriptors", len(buf))
	case len(files) > 1:
		err = violation("%d descriptors in one message", len(files))
	case n == 0:
		err = io.EOF
	}
	if err != nil {
		closeAll(files)
		return nil, nil, err
	}
	if len(files) == 1 {
		return buf[:n], files[0], nil
	}
	return buf[:n], nil, nil
}

func parseRights(oob []byte) ([]*os.File, error) {
	if len(oob) == 0 {
		return nil, nil
	}
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, violation("control data: %v", err)
	}
	var files []*os.File
	for i := range messages {
		fds, err := unix.ParseUnixRights(&messages[i])
		if err != nil {
			closeAll(files)
			return nil, violation("control message other than descriptors: %v", err)
		}
		for _, fd := range fds {
			files = append(files, os.NewFile(uintptr(fd), fmt.Sprintf("netns fd %d", fd)))
		}
	}
	return files, nil
}

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}
