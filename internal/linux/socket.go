package linux

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Mark is the packet mark of every socket that the mesh makes inside a pod, so
// that the pod's rules do not capture it (dataplane spec 0.2).
const Mark = 0x539

// AnswerMark is that of datagrams that the mesh sends inside a pod with the
// address of whom it answers for. It is apart from Mark, because the pod's rules
// keep them out of connection tracking.
const AnswerMark = 0x53a

// SpoofedMark is one bit more on the packets that DialTCP sends with an address
// that is not the host's. It is beyond the mask under which upstream's rules,
// and ours, look at Mark (0xfff).
const SpoofedMark = 0x1000

// KeepAlive is the keepalive of captured connections (dataplane spec 0.3).
var KeepAlive = net.KeepAliveConfig{Enable: true, Idle: 180 * time.Second, Interval: 180 * time.Second, Count: 9}

// option is one setsockopt of a socket of the given family.
type option func(fd, family int) error

func intOption(what string, level, name, value int) option {
	return func(fd, _ int) error {
		return os.NewSyscallError("setsockopt "+what, unix.SetsockoptInt(fd, level, name, value))
	}
}

func markOption(mark int) option { return intOption("SO_MARK", unix.SOL_SOCKET, unix.SO_MARK, mark) }

func keepAlive(k net.KeepAliveConfig) []option {
	return []option{
		intOption("SO_KEEPALIVE", unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1),
		intOption("TCP_KEEPIDLE", unix.SOL_TCP, unix.TCP_KEEPIDLE, int(k.Idle/time.Second)),
		intOption("TCP_KEEPINTVL", unix.SOL_TCP, unix.TCP_KEEPINTVL, int(k.Interval/time.Second)),
		intOption("TCP_KEEPCNT", unix.SOL_TCP, unix.TCP_KEEPCNT, k.Count),
	}
}

// transparent lets a socket be bound to, and accept for, addresses that are
// not of this host.
func transparent(fd, family int) error {
	level, name := unix.SOL_IP, unix.IP_TRANSPARENT
	if family == unix.AF_INET6 {
		level, name = unix.SOL_IPV6, unix.IPV6_TRANSPARENT
	}
	return os.NewSyscallError("setsockopt IP_TRANSPARENT", unix.SetsockoptInt(fd, level, name, 1))
}

// freebind lets a socket be bound to an address that no interface has.
func freebind(fd, family int) error {
	level, name := unix.SOL_IP, unix.IP_FREEBIND
	if family == unix.AF_INET6 {
		level, name = unix.SOL_IPV6, unix.IPV6_FREEBIND
	}
	return os.NewSyscallError("setsockopt IP_FREEBIND", unix.SetsockoptInt(fd, level, name, 1))
}

func family(ip netip.Addr) int {
	if ip.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

// transport is what a socket speaks.
type transport struct {
	name           string // Go's, without the family
	kind, protocol int
}

var (
	overTCP = transport{"tcp", unix.SOCK_STREAM, unix.IPPROTO_TCP}
	overUDP = transport{"udp", unix.SOCK_DGRAM, unix.IPPROTO_UDP}
)

// network is Go's name for t over ip's family.
func (t transport) network(ip netip.Addr) string {
	if ip.Is4() {
		return t.name + "4"
	}
	return t.name + "6"
}

// socket makes a socket in the current namespace.
func (t transport) socket(family int, options []option) (int, error) {
	fd, err := unix.Socket(family, t.kind|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, t.protocol)
	if err != nil {
		return -1, os.NewSyscallError("socket", err)
	}
	for _, set := range options {
		if err := set(fd, family); err != nil {
			return -1, errors.Join(err, unix.Close(fd))
		}
	}
	return fd, nil
}

// swapIn is a net.Dialer's or net.ListenConfig's Control that puts a socket
// made inside ns in the place of the one Go has just made outside: the
// descriptor's number stays, and Go goes on to bind, connect and wait by it.
// Go registers the descriptor with its poller only after Control.
func (t transport) swapIn(ns *NetNS, family int, options []option) func(string, string, syscall.RawConn) error {
	return func(_, _ string, raw syscall.RawConn) error {
		var inside int
		err := within(ns, func() (err error) {
			inside, err = t.socket(family, options)
			return err
		})
		if err != nil {
			return err
		}
		defer unix.Close(inside)
		var dup error
		if err := raw.Control(func(fd uintptr) { dup = unix.Dup3(inside, int(fd), unix.O_CLOEXEC) }); err != nil {
			return err
		}
		return os.NewSyscallError("dup3", dup)
	}
}

// within runs f in ns, or here if ns is nil.
func within(ns *NetNS, f func() error) error {
	if ns == nil {
		return f()
	}
	return ns.Do(f)
}

// canonical is an address without the IPv4-mapped form.
func canonical(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}

// AddrPort is a TCP address as a value, without the IPv4-mapped form; the zero
// value if a is no TCP address.
func AddrPort(a net.Addr) netip.AddrPort {
	t, ok := a.(*net.TCPAddr)
	if !ok || t == nil {
		return netip.AddrPort{}
	}
	return canonical(t.AddrPort())
}
