// Package wire is the door between the mesh's vocabulary and its protobuf
// form: it writes internal/mesh values as the workload, service and
// authorization resources of ambient's xDS, and reads and checks them.
//
// It owns field mapping, defaults (an empty trust domain is cluster.local),
// names and content versions. It refuses what it does not understand rather
// than passing half of it on: a policy condition that was dropped on the way
// would open what its author closed. Called by istiod-lite/snapshot to write
// and by internal/view and waypoint/table to read. Pure.
package wire

import (
	"fmt"
	"math"
	"net/netip"
	"strconv"

	"github.com/cespare/xxhash/v2"
	"google.golang.org/protobuf/proto"
)

// Version is the content hash of a resource's body, as hexadecimal text.
func Version(body []byte) string {
	return strconv.FormatUint(xxhash.Sum64(body), 16)
}

// marshal writes deterministically: equal values are equal bytes, so that
// equal content has equal versions in every replica of the control plane.
func marshal(m proto.Message) []byte {
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		// Only text that is not UTF-8 makes marshalling fail, and Kubernetes
		// names are ASCII; a caller that lets such text in has a bug.
		panic(fmt.Sprintf("wire: marshalling %s: %v", m.ProtoReflect().Descriptor().FullName(), err))
	}
	return b
}

// readAddr reads 4 or 16 bytes. IPv4 in its IPv6 form becomes IPv4, so that
// one address has one value.
func readAddr(b []byte) (netip.Addr, error) {
	a, ok := netip.AddrFromSlice(b)
	if !ok {
		return netip.Addr{}, fmt.Errorf("an address of %d bytes", len(b))
	}
	return a.Unmap(), nil
}

// readPrefix reads an address and a prefix length. Host bits are cleared.
func readPrefix(b []byte, length uint32) (netip.Prefix, error) {
	a, ok := netip.AddrFromSlice(b)
	if !ok {
		return netip.Prefix{}, fmt.Errorf("an address of %d bytes", len(b))
	}
	if a.Is4In6() && length >= 96 {
		a, length = a.Unmap(), length-96
	}
	if length > uint32(a.BitLen()) {
		return netip.Prefix{}, fmt.Errorf("a prefix of %d bits for %s", length, a)
	}
	return netip.PrefixFrom(a, int(length)).Masked(), nil
}

// readPort reads a port number; 0 is left to the caller.
func readPort(p uint32) (uint16, error) {
	if p > math.MaxUint16 {
		return 0, fmt.Errorf("port %d", p)
	}
	return uint16(p), nil
}

// known reports an enum value that this build has no name for.
func known(what string, v int32, names map[int32]string) error {
	if _, ok := names[v]; !ok {
		return fmt.Errorf("%s %d is not known", what, v)
	}
	return nil
}
