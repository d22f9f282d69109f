package nft

import (
	"encoding/binary"
	"net/netip"

	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// register 1 is used for everything: no expression here needs two at once but
// concatenations, which run on from it.
const reg = 1

// Concat joins the parts of a rule.
func Concat(parts ...[]expr.Any) []expr.Any {
	var all []expr.Any
	for _, p := range parts {
		all = append(all, p...)
	}
	return all
}

func load(k expr.MetaKey) expr.Any { return &expr.Meta{Key: k, Register: reg} }

func equal(b []byte) expr.Any { return &expr.Cmp{Op: expr.CmpOpEq, Register: reg, Data: b} }

func payload(base expr.PayloadBase, offset, length uint32) expr.Any {
	return &expr.Payload{DestRegister: reg, Base: base, Offset: offset, Len: length}
}

func masked(mask, xor uint32) expr.Any {
	return &expr.Bitwise{SourceRegister: reg, DestRegister: reg, Len: 4,
		Mask: binaryutil.NativeEndian.PutUint32(mask), Xor: binaryutil.NativeEndian.PutUint32(xor)}
}

// TCP matches TCP packets.
func TCP() []expr.Any {
	return []expr.Any{load(expr.MetaKeyL4PROTO), equal([]byte{unix.IPPROTO_TCP})}
}

// UDP matches UDP packets.
func UDP() []expr.Any {
	return []expr.Any{load(expr.MetaKeyL4PROTO), equal([]byte{unix.IPPROTO_UDP})}
}

// SYN matches the first packet of a TCP connection; put TCP before it.
func SYN() []expr.Any {
	const fin, syn, rst, ack = 0x01, 0x02, 0x04, 0x10
	return []expr.Any{
		payload(expr.PayloadBaseTransportHeader, 13, 1),
		&expr.Bitwise{SourceRegister: reg, DestRegister: reg, Len: 1, Mask: []byte{fin | syn | rst | ack}, Xor: []byte{0}},
		equal([]byte{syn}),
	}
}

// DstPort matches packets to a port; put TCP or UDP before it.
func DstPort(port uint16) []expr.Any {
	return []expr.Any{payload(expr.PayloadBaseTransportHeader, 2, 2), equal(binary.BigEndian.AppendUint16(nil, port))}
}

// NotDstPort matches packets to another port; put TCP before it.
func NotDstPort(port uint16) []expr.Any {
	return []expr.Any{
		payload(expr.PayloadBaseTransportHeader, 2, 2),
		&expr.Cmp{Op: expr.CmpOpNeq, Register: reg, Data: binary.BigEndian.AppendUint16(nil, port)},
	}
}

// SrcPort matches packets from a port; put TCP before it.
func SrcPort(port uint16) []expr.Any {
	return []expr.Any{
		payload(expr.PayloadBaseTransportHeader, 0, 2),
		equal(binary.BigEndian.AppendUint16(nil, port)),
	}
}

// Source matches packets from ip.
func Source(ip netip.Addr) []expr.Any {
	offset := uint32(12)
	if ip.Is6() {
		offset = 8
	}
	b := ip.AsSlice()
	return append(Family(ip.Is6()), payload(expr.PayloadBaseNetworkHeader, offset, uint32(len(b))), equal(b))
}

// Family matches packets of one IP family.
func Family(v6 bool) []expr.Any {
	family := byte(unix.NFPROTO_IPV4)
	if v6 {
		family = unix.NFPROTO_IPV6
	}
	return []expr.Any{load(expr.MetaKeyNFPROTO), equal([]byte{family})}
}

// In and Out match packets that came or go through an interface.
func In(name string) []expr.Any { return ifname(expr.MetaKeyIIFNAME, name, expr.CmpOpEq) }

// Out is In's other side.
func Out(name string) []expr.Any { return ifname(expr.MetaKeyOIFNAME, name, expr.CmpOpEq) }

// NotIn and NotOut match packets that came or go through another.
func NotIn(name string) []expr.Any { return ifname(expr.MetaKeyIIFNAME, name, expr.CmpOpNeq) }

// NotOut is NotIn's other side.
func NotOut(name string) []expr.Any { return ifname(expr.MetaKeyOIFNAME, name, expr.CmpOpNeq) }

func ifname(k expr.MetaKey, name string, op expr.CmpOp) []expr.Any {
	b := make([]byte, unix.IFNAMSIZ)
	copy(b, name)
	return []expr.Any{load(k), &expr.Cmp{Op: op, Register: reg, Data: b}}
}

// What connection tracking says of a connection (enum ip_conntrack_status).
const (
	confirmed  = 1 << 3 // its first packet has gone its whole way
	translated = 1 << 5 // to another destination
)

// First matches the first packet of a connection, as often as it is sent until
// it has once gone its whole way. It needs connection tracking, and switches
// it on.
func First() []expr.Any { return status(confirmed, expr.CmpOpEq) }

// Translated matches packets of connections that were given another
// destination.
func Translated() []expr.Any { return status(translated, expr.CmpOpNeq) }

// There matches packets that go the way in which their connection was opened,
// and none of their answers.
func There() []expr.Any { return direction(0) }

// Back matches the answers.
func Back() []expr.Any { return direction(1) }

func direction(d byte) []expr.Any {
	return []expr.Any{&expr.Ct{Key: expr.CtKeyDIRECTION, Register: reg}, equal([]byte{d})}
}

func status(bit uint32, op expr.CmpOp) []expr.Any {
	return []expr.Any{&expr.Ct{Key: expr.CtKeySTATUS, Register: reg}, masked(bit, 0),
		&expr.Cmp{Op: op, Register: reg, Data: binaryutil.NativeEndian.PutUint32(0)}}
}

// SocketMark matches packets that a local socket of mark m is to get: the one
// that they were given by Proxy, or else the one bound to their destination.
func SocketMark(m uint32) []expr.Any {
	return mark(&expr.Socket{Key: expr.SocketKeyMark, Register: reg}, m, expr.CmpOpEq)
}

// ToLocal matches packets to an address that an interface has, ToUnicast those
// to one host elsewhere: neither what is sent to many.
func ToLocal() []expr.Any { return destination(unix.RTN_LOCAL) }

// ToUnicast is ToLocal's other side.
func ToUnicast() []expr.Any { return destination(unix.RTN_UNICAST) }

func destination(kind uint32) []expr.Any {
	return []expr.Any{&expr.Fib{Register: reg, ResultADDRTYPE: true, FlagDADDR: true}, equal(binaryutil.NativeEndian.PutUint32(kind))}
}

// PortUnreachable matches the ICMP messages of one IP family by which the kernel
// says that nobody has a port.
func PortUnreachable(v6 bool) []expr.Any {
	protocol, kind := byte(unix.IPPROTO_ICMP), []byte{3, 3} // type and code, RFC 792
	if v6 {
		protocol, kind = unix.IPPROTO_ICMPV6, []byte{1, 4} // RFC 4443
	}
	return []expr.Any{load(expr.MetaKeyL4PROTO), equal([]byte{protocol}), payload(expr.PayloadBaseTransportHeader, 0, 2), equal(kind)}
}

// UID matches packets of local sockets that uid made.
func UID(uid uint32) []expr.Any {
	return []expr.Any{load(expr.MetaKeySKUID), equal(binaryutil.NativeEndian.PutUint32(uid))}
}

// DstIn matches packets whose destination address and port are in the set; put
// TCP before it.
func DstIn(s Set) []expr.Any {
	// The port follows the address: in the next register of 4 bytes, or the
	// next of 16. Both are called as the kernel calls them when it tells.
	offset, length, next := uint32(16), uint32(4), uint32(unix.NFT_REG32_01)
	if s.V6 {
		offset, length, next = 24, 16, unix.NFT_REG_2
	}
	return append(Family(s.V6),
		payload(expr.PayloadBaseNetworkHeader, offset, length),
		&expr.Payload{DestRegister: next, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
		&expr.Lookup{SourceRegister: reg, SetName: s.Name},
	)
}
