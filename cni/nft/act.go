package nft

import (
	"encoding/binary"
	"net/netip"

	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// markMask is the part of a packet's or connection's mark that the mesh uses;
// the rest is left to others.
const markMask = 0xfff

// Mark matches packets whose mark is m under the mesh's mask.
func Mark(m uint32) []expr.Any { return mark(load(expr.MetaKeyMARK), m, expr.CmpOpEq) }

// NotMark matches packets whose mark is another.
func NotMark(m uint32) []expr.Any { return mark(load(expr.MetaKeyMARK), m, expr.CmpOpNeq) }

// ConnMark matches packets of connections whose mark is m.
func ConnMark(m uint32) []expr.Any {
	return mark(&expr.Ct{Key: expr.CtKeyMARK, Register: reg}, m, expr.CmpOpEq)
}

func mark(from expr.Any, m uint32, op expr.CmpOp) []expr.Any {
	return []expr.Any{from, masked(markMask, 0),
		&expr.Cmp{Op: op, Register: reg, Data: binaryutil.NativeEndian.PutUint32(m)}}
}

// MarkBit matches packets whose mark has a bit beyond the mesh's mask.
func MarkBit(bit uint32) []expr.Any {
	return []expr.Any{load(expr.MetaKeyMARK), masked(bit, 0),
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg, Data: binaryutil.NativeEndian.PutUint32(bit)}}
}

// SetMark gives the packet mark m and leaves the bits outside the mask.
func SetMark(m uint32) []expr.Any {
	return []expr.Any{load(expr.MetaKeyMARK), masked(^uint32(markMask), m),
		&expr.Meta{Key: expr.MetaKeyMARK, SourceRegister: true, Register: reg}}
}

// SetConnMark gives the packet's connection mark m.
func SetConnMark(m uint32) []expr.Any {
	return []expr.Any{&expr.Ct{Key: expr.CtKeyMARK, Register: reg}, masked(^uint32(markMask), m),
		&expr.Ct{Key: expr.CtKeyMARK, SourceRegister: true, Register: reg}}
}

// SetZone gives the packet's connection a namespace of its own among those that
// are tracked: in another zone the same addresses are another connection.
func SetZone(zone uint16) []expr.Any {
	return []expr.Any{
		&expr.Immediate{Register: reg, Data: binaryutil.NativeEndian.PutUint16(zone)},
		&expr.Ct{Key: expr.CtKeyZONE, SourceRegister: true, Register: reg},
	}
}

// Untrack keeps the packet out of connection tracking; before that, at the
// priority raw.
func Untrack() []expr.Any { return []expr.Any{&expr.Notrack{}} }

// Proxy gives the packet, as it is, to the transparent socket bound to an
// address of this host, or to the connected one that its addresses name; without
// either it does not match. Put UDP before it.
func Proxy(to netip.AddrPort) []expr.Any {
	family := byte(unix.NFPROTO_IPV4)
	if to.Addr().Is6() {
		family = unix.NFPROTO_IPV6
	}
	return append(Family(to.Addr().Is6()),
		&expr.Immediate{Register: reg, Data: to.Addr().AsSlice()},
		&expr.Immediate{Register: portReg, Data: binary.BigEndian.AppendUint16(nil, to.Port())},
		&expr.TProxy{Family: family, RegAddr: reg, RegPort: portReg})
}

// portReg is a register that an address in reg leaves free.
const portReg = unix.NFT_REG_2

// SetZoneThere is SetZone for the way there alone: the answers are looked for
// as ever, so that nobody has to know to which connection they belong.
func SetZoneThere(zone uint16) []expr.Any {
	set := SetZone(zone)
	last := len(set) - 1
	set[last] = there{set[last].(*expr.Ct)}
	return set
}

// there is an expression of connection tracking about packets that go the way
// in which their connection was opened (NFTA_CT_DIRECTION), which the library
// cannot say.
type there struct{ *expr.Ct }

// Accept ends the chain's work on the packet.
func Accept() []expr.Any { return []expr.Any{&expr.Verdict{Kind: expr.VerdictAccept}} }

// Drop lets the packet vanish: its sender tries again.
func Drop() []expr.Any { return []expr.Any{&expr.Verdict{Kind: expr.VerdictDrop}} }

// Redirect sends the connection to a local port.
func Redirect(port uint16) []expr.Any {
	return []expr.Any{
		&expr.Immediate{Register: reg, Data: binary.BigEndian.AppendUint16(nil, port)},
		&expr.Redir{RegisterProtoMin: reg, RegisterProtoMax: reg, Flags: natProtoSpecified},
	}
}

// natProtoSpecified is a flag that the kernel adds by itself when a port is
// given; it is written out so that comparison holds.
const natProtoSpecified = 1 << 1

// SNAT gives the connection another source address.
func SNAT(to netip.Addr) []expr.Any {
	family := uint32(unix.NFPROTO_IPV4)
	if to.Is6() {
		family = unix.NFPROTO_IPV6
	}
	return []expr.Any{
		&expr.Immediate{Register: reg, Data: to.AsSlice()},
		&expr.NAT{Type: expr.NATTypeSourceNAT, Family: family, RegAddrMin: reg, RegAddrMax: reg},
	}
}
