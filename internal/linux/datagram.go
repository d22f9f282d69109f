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

// DatagramSocket receives datagrams, as many at once as are there.
type DatagramSocket struct {
	conn *net.UDPConn
	raw  syscall.RawConn
}

// datagramBuffer is what may wait in the kernel for the proxy to read: a few
// hundred datagrams, where the usual buffer has room for less than a hundred.
const datagramBuffer = 1 << 20

var wideBuffer = intOption("SO_RCVBUFFORCE", unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, datagramBuffer)

// ListenDatagrams receives, inside ns or here if ns is nil, what a rule (tproxy)
// gives to the socket at that address, and tells where it was going. Of the
// options Mark and ReusePort count.
func ListenDatagrams(ctx context.Context, ns *NetNS, at netip.AddrPort, o ListenOptions) (*DatagramSocket, error) {
	return datagramSocket(listenUDP(ctx, ns, at, o, transparent, originalDatagramDst, wideBuffer))
}

// DialDatagrams is DialUDP with a socket that receives as ListenDatagrams' does,
// and is told no destination but its own address.
func DialDatagrams(ctx context.Context, ns *NetNS, to netip.AddrPort, o DialOptions) (*DatagramSocket, error) {
	return datagramSocket(DialUDP(ctx, ns, to, o))
}

func datagramSocket(c *net.UDPConn, err error) (*DatagramSocket, error) {
	if err != nil {
		return nil, err
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return &DatagramSocket{c, raw}, nil
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
func (s *DatagramSocket) Receive(take func(Datagram)) error {
	var b *batch
	var n int
	var failed error
	err := s.raw.Read(func(fd uintptr) bool {
		b = batches.Get().(*batch)
		n, failed = b.receive(fd)
		if failed == unix.EAGAIN {
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

// Send sends a datagram to whom the socket was dialled. What the network said of
// an earlier one is told once, instead of sending: so it is tried again.
func (s *DatagramSocket) Send(payload []byte) error {
	_, err := s.conn.Write(payload)
	if err != nil && !errors.Is(err, net.ErrClosed) {
		_, err = s.conn.Write(payload)
	}
	return err
}

// Lost is how many the kernel has thrown away because they were not received in
// time. SO_RXQ_OVFL tells the same number, but only with the next datagram.
func (s *DatagramSocket) Lost() (uint32, error) {
	const drops = 8 // SK_MEMINFO_DROPS
	var info [drops + 1]uint32
	var failed error
	if err := s.raw.Control(func(fd uintptr) {
		failed = getsockopt(int(fd), unix.SOL_SOCKET, unix.SO_MEMINFO, unsafe.Pointer(&info), unsafe.Sizeof(info))
	}); err != nil {
		return 0, fmt.Errorf("counting lost datagrams: %w", err)
	}
	return info[drops], os.NewSyscallError("getsockopt SO_MEMINFO", failed)
}

// Close ends Receive. It may be called twice.
func (s *DatagramSocket) Close() error {
	if err := s.conn.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}
