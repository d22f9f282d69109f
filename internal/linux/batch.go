package linux

import (
	"net/netip"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// batch is room for what one call receives.
type batch struct {
	headers  [batchSize]mmsghdr
	vectors  [batchSize]unix.Iovec
	sources  [batchSize]unix.RawSockaddrInet6 // which has room for the other, too
	controls [batchSize]control
	payloads [batchSize][1 << 16]byte // no datagram is larger
}

const batchSize = 16

// mmsghdr is struct mmsghdr.
type mmsghdr struct {
	unix.Msghdr
	length uint32
}

// control is struct cmsghdr with an address in it.
type control struct {
	unix.Cmsghdr
	dst unix.RawSockaddrInet6
}

var batches = sync.Pool{New: func() any {
	b := &batch{}
	for i := range b.headers {
		b.vectors[i].Base = &b.payloads[i][0]
		b.vectors[i].SetLen(len(b.payloads[i]))
		h := &b.headers[i]
		h.Iov = &b.vectors[i]
		h.SetIovlen(1)
		h.Name = (*byte)(unsafe.Pointer(&b.sources[i]))
		h.Control = (*byte)(unsafe.Pointer(&b.controls[i]))
	}
	return b
}}

func (b *batch) receive(fd uintptr) (int, error) {
	for i := range b.headers {
		b.headers[i].Namelen = uint32(unsafe.Sizeof(b.sources[i]))
		b.headers[i].SetControllen(int(unsafe.Sizeof(b.controls[i])))
		b.controls[i] = control{}
	}
	for {
		n, _, e := unix.Syscall6(unix.SYS_RECVMMSG, fd, uintptr(unsafe.Pointer(&b.headers)), batchSize, unix.MSG_DONTWAIT, 0, 0)
		switch e {
		case 0:
			return int(n), nil
		case unix.EINTR:
		default:
			return 0, e
		}
	}
}

// datagram is the i-th that was received; its destination is valid if the kernel
// tells it.
func (b *batch) datagram(i int) Datagram {
	d := Datagram{Payload: b.payloads[i][:b.headers[i].length], Source: addrPort(&b.sources[i])}
	c := &b.controls[i]
	if c.Level == unix.SOL_IP && c.Type == unix.IP_ORIGDSTADDR || c.Level == unix.SOL_IPV6 && c.Type == unix.IPV6_ORIGDSTADDR {
		d.Destination = addrPort(&c.dst)
	}
	return d
}

// addrPort reads a socket address of either family.
func addrPort(sa *unix.RawSockaddrInet6) netip.AddrPort {
	switch sa.Family {
	case unix.AF_INET:
		four := (*unix.RawSockaddrInet4)(unsafe.Pointer(sa))
		return netip.AddrPortFrom(netip.AddrFrom4(four.Addr), networkOrder(four.Port))
	case unix.AF_INET6:
		return canonical(netip.AddrPortFrom(netip.AddrFrom16(sa.Addr), networkOrder(sa.Port)))
	}
	return netip.AddrPort{}
}
