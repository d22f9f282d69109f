package linux

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"golang.org/x/sys/unix"
)

// Answers sends datagrams with the address of whoever they answer for, which
// another host or a program of the namespace has. It is therefore no UDP socket,
// which had to be bound to that address, but writes the headers itself.
type Answers struct {
	four, six *net.IPConn // six is nil where there is no IPv6
}

// overIP is UDP whose header is ours to write.
var overIP = transport{"ip", unix.SOCK_RAW, unix.IPPROTO_UDP}

// The addresses that these sockets are bound to are nobody's (RFC 5737, RFC
// 6666): the kernel would give them a copy of every datagram.
const (
	nobody4 = "192.0.2.1"
	nobody6 = "100::1"
)

// NewAnswers makes the sockets inside ns, or here if ns is nil. Their packets
// have AnswerMark.
func NewAnswers(ctx context.Context, ns *NetNS) (*Answers, error) {
	var has6 bool
	if err := within(ns, func() error { has6 = HasIPv6(); return nil }); err != nil {
		return nil, err
	}
	a := &Answers{}
	var err error
	if a.four, err = rawSocket(ctx, ns, "ip4:17", nobody4); err != nil {
		return nil, err
	}
	if has6 {
		if a.six, err = rawSocket(ctx, ns, "ip6:17", nobody6); err != nil {
			return nil, errors.Join(err, a.four.Close())
		}
	}
	return a, nil
}

func rawSocket(ctx context.Context, ns *NetNS, network, at string) (*net.IPConn, error) {
	config := net.ListenConfig{Control: overIP.swapIn(ns, family(netip.MustParseAddr(at)), []option{markOption(AnswerMark), transparent})}
	c, err := config.ListenPacket(ctx, network, at)
	if err != nil {
		return nil, fmt.Errorf("opening a socket for answers: %w", err)
	}
	return c.(*net.IPConn), nil
}

// Send sends one datagram. Where it is too large for the way, the kernel takes it
// apart.
func (a *Answers) Send(payload []byte, from, to netip.AddrPort) error {
	c, to := a.four, canonical(to)
	if to.Addr().Is6() {
		c = a.six
	}
	if c == nil || from.Addr().Unmap().Is4() != to.Addr().Is4() {
		return fmt.Errorf("answering %s for %s: %w", to, from, unix.EAFNOSUPPORT)
	}
	packet := make([]byte, 8, 8+len(payload))
	binary.BigEndian.PutUint16(packet, from.Port())
	binary.BigEndian.PutUint16(packet[2:], to.Port())
	binary.BigEndian.PutUint16(packet[4:], uint16(8+len(payload)))
	packet = append(packet, payload...)
	binary.BigEndian.PutUint16(packet[6:], checksum(from.Addr().Unmap(), to.Addr(), packet))
	if _, _, err := c.WriteMsgIP(packet, sourceAddress(from.Addr().Unmap()), &net.IPAddr{IP: to.Addr().AsSlice()}); err != nil {
		return fmt.Errorf("answering %s for %s: %w", to, from, err)
	}
	return nil
}

// Close closes the sockets. It may be called twice.
func (a *Answers) Close() error {
	var errs []error
	for _, c := range []*net.IPConn{a.four, a.six} {
		if c == nil {
			continue
		}
		if err := c.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// sourceAddress is the control message that gives a packet its source.
func sourceAddress(ip netip.Addr) []byte {
	if ip.Is4() {
		return unix.PktInfo4(&unix.Inet4Pktinfo{Spec_dst: ip.As4()})
	}
	return unix.PktInfo6(&unix.Inet6Pktinfo{Addr: ip.As16()})
}

// checksum is that of a UDP packet whose own field is zero (RFC 768, RFC 8200
// section 8.1).
func checksum(from, to netip.Addr, packet []byte) uint16 {
	sum := uint64(unix.IPPROTO_UDP + len(packet))
	for _, part := range [][]byte{from.AsSlice(), to.AsSlice(), packet} {
		for ; len(part) >= 4; part = part[4:] {
			sum += uint64(binary.BigEndian.Uint32(part))
		}
		var rest [4]byte
		copy(rest[:], part)
		sum += uint64(binary.BigEndian.Uint32(rest[:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	if sum == 0xffff {
		return 0xffff // for zero says that there is none
	}
	return ^uint16(sum)
}
