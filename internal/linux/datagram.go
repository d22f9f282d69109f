package linux

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Datagram is one that was on its way from Source to Destination. The payload
// is lent.
type Datagram struct {
	Payload             []byte
	Source, Destination netip.AddrPort
}

// DatagramListener receives what a rule (tproxy) gives to its socket, and tells
// where each was going.
type DatagramListener struct {
	conn *net.UDPConn
	raw  syscall.RawConn
}

// datagramBuffer is what may wait in the kernel for the proxy to read: a few
// hundred datagrams, where the usual buffer has room for less than a hundred.
const datagramBuffer = 1 << 20

// ListenDatagrams listens inside ns, or here if ns is nil. Of the options Mark
// and ReusePort count.
func ListenDatagrams(ctx context.Context, ns *NetNS, at netip.AddrPort, o ListenOptions) (*DatagramListener, error) {
	c, err := listenUDP(ctx, ns, at, o, transparent, originalDatagramDst,
		intOption("SO_RCVBUFFORCE", unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, datagramBuffer))
	if err != nil {
		return nil, err
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return &DatagramListener{c, raw}, nil
}

// originalDatagramDst has each datagram tell its destination.
func originalDatagramDst(fd, family int) error {
	level, name := unix.SOL_IP, unix.IP_RECVORIGDSTADDR
	if family == unix.AF_INET6 {
		level, name = unix.SOL_IPV6, unix.IPV6_RECVORIGDSTADDR
	}
	return os.NewSyscallError("setsockopt IP_RECVORIGDSTADDR", unix.SetsockoptInt(fd, level, name, 1))
}

// Receive waits for datagrams and gives those that are there to take, one after
// another, but not what they hold for longer than the call. While it waits it
// holds no memory for them.
func (l *DatagramListener) Receive(take func(Datagram)) error {
	var b *batch
	var n int
	var failed error
	err := l.raw.Read(func(fd uintptr) bool {
		b = batches.Get().(*batch)
		n, failed = b.receive(fd)
		if failed == unix.EAGAIN || failed == unix.EINTR {
			batches.Put(b)
			return false
		}
		return true
	})
	if err != nil {
		return fmt.Errorf("receiving datagrams: %w", err)
	}
	defer batches.Put(b)
	if failed != nil {
		return fmt.Errorf("receiving datagrams: %w", os.NewSyscallError("recvmmsg", failed))
	}
	for i := range n {
		take(b.datagram(i))
	}
	return nil
}

// Lost is how many the kernel has thrown away because they were not received in
// time. SO_RXQ_OVFL tells the same number, but only with the next datagram.
func (l *DatagramListener) Lost() (uint32, error) {
	const drops = 8 // SK_MEMINFO_DROPS
	var info [drops + 1]uint32
	var failed error
	if err := l.raw.Control(func(fd uintptr) {
		failed = getsockopt(int(fd), unix.SOL_SOCKET, unix.SO_MEMINFO, unsafe.Pointer(&info), unsafe.Sizeof(info))
	}); err != nil {
		return 0, fmt.Errorf("counting lost datagrams: %w", err)
	}
	return info[drops], os.NewSyscallError("getsockopt SO_MEMINFO", failed)
}

// Close ends Receive. It may be called twice.
func (l *DatagramListener) Close() error {
	if err := l.conn.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}
