package linux

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// soOriginalDst is SO_ORIGINAL_DST at level SOL_IP and IP6T_SO_ORIGINAL_DST at
// SOL_IPV6; x/sys names only the former.
const soOriginalDst = 80

// OriginalDst is where a redirected connection was going before the redirect,
// and the local address for one that was not redirected. It needs no
// privilege.
func OriginalDst(c *net.TCPConn) (netip.AddrPort, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("original destination: %w", err)
	}
	local := AddrPort(c.LocalAddr())
	var dst netip.AddrPort
	var failed error
	err = raw.Control(func(fd uintptr) {
		if local.Addr().Is4() {
			dst, failed = originalDst4(int(fd))
		} else {
			dst, failed = originalDst6(int(fd))
		}
	})
	switch {
	case err != nil:
		return netip.AddrPort{}, fmt.Errorf("original destination: %w", err)
	case failed == unix.ENOENT || failed == unix.ENOPROTOOPT:
		return local, nil // not tracked: nothing redirected it
	case failed != nil:
		return netip.AddrPort{}, os.NewSyscallError("getsockopt SO_ORIGINAL_DST", failed)
	}
	return canonical(dst), nil
}

func originalDst4(fd int) (netip.AddrPort, error) {
	var sa unix.RawSockaddrInet4
	if err := getsockopt(fd, unix.SOL_IP, soOriginalDst, unsafe.Pointer(&sa), unsafe.Sizeof(sa)); err != nil {
		return netip.AddrPort{}, err
	}
	return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), networkOrder(sa.Port)), nil
}

func originalDst6(fd int) (netip.AddrPort, error) {
	var sa unix.RawSockaddrInet6
	if err := getsockopt(fd, unix.SOL_IPV6, soOriginalDst, unsafe.Pointer(&sa), unsafe.Sizeof(sa)); err != nil {
		return netip.AddrPort{}, err
	}
	return netip.AddrPortFrom(netip.AddrFrom16(sa.Addr), networkOrder(sa.Port)), nil
}

func networkOrder(port uint16) uint16 {
	var b [2]byte
	binary.NativeEndian.PutUint16(b[:], port)
	return binary.BigEndian.Uint16(b[:])
}

func getsockopt(fd, level, name int, p unsafe.Pointer, size uintptr) error {
	length := uint32(size)
	_, _, e := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), uintptr(level), uintptr(name),
		uintptr(p), uintptr(unsafe.Pointer(&length)), 0)
	if e != 0 {
		return e
	}
	return nil
}
