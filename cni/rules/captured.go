package rules

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/ambit-mesh/ambit/internal/linux"
)

// Captured counts the live connections in the namespace that ztunnel carries:
// accepted on 15001 or 15006, or opened to the pod's own program for a peer
// that came by HBONE. Idle tunnels are none.
func Captured(ns *linux.NetNS) (int, error) {
	var sockets []socket
	own := map[netip.Addr]bool{}
	err := ns.Do(func() (err error) {
		if own, err = ownAddresses(); err != nil {
			return err
		}
		sockets, err = socketsOf(unix.IPPROTO_TCP, liveStates)
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("counting captured connections: %w", err)
	}
	n := 0
	for _, s := range sockets {
		if s.carries(own) {
			n++
		}
	}
	return n, nil
}

// socket is a live TCP socket.
type socket struct {
	local, remote netip.AddrPort
	mark          uint32
}

func (s socket) carries(own map[netip.Addr]bool) bool {
	if s.mark&^linux.SpoofedMark != linux.Mark {
		return false
	}
	if s.local.Port() == outboundPort || s.local.Port() == inboundPort {
		return true
	}
	return s.local.Port() != hbonePort && own[s.remote.Addr()]
}

// liveStates are the TCP states of connections that can still carry bytes: not
// listening, not only waiting out their time, not closed.
const liveStates = 1<<1 | 1<<2 | 1<<3 | 1<<4 | 1<<5 | 1<<8 | 1<<9 | 1<<11 | 1<<12

// boundStates are those of a UDP socket, bound or connected as well;
// listenState is that of a TCP socket that accepts.
const (
	boundStates = 1<<1 | 1<<7
	listenState = 1 << 10
)

// socketsOf asks the kernel (sock_diag(7)) for the sockets here that are in
// these states.
func socketsOf(protocol byte, states uint32) ([]socket, error) {
	conn, err := netlink.Dial(unix.NETLINK_INET_DIAG, nil)
	if err != nil {
		return nil, fmt.Errorf("connecting to sock_diag: %w", err)
	}
	defer conn.Close()
	var all []socket
	for _, family := range families() {
		request := make([]byte, 56) // struct inet_diag_req_v2
		request[0], request[1] = byte(family), protocol
		binary.NativeEndian.PutUint32(request[4:], states)
		answers, err := conn.Execute(netlink.Message{
			Header: netlink.Header{Type: unix.SOCK_DIAG_BY_FAMILY, Flags: netlink.Request | netlink.Dump},
			Data:   request,
		})
		if err != nil {
			return nil, fmt.Errorf("reading sockets: %w", err)
		}
		for _, m := range answers {
			if s, ok := parseSocket(m.Data); ok {
				all = append(all, s)
			}
		}
	}
	return all, nil
}

// diagMark is INET_DIAG_MARK, an attribute that needs CAP_NET_ADMIN.
const diagMark = 15

// parseSocket reads struct inet_diag_msg and its attributes.
func parseSocket(b []byte) (socket, bool) {
	const fixed = 72
	if len(b) < fixed {
		return socket{}, false
	}
	length := 4
	if b[0] == unix.AF_INET6 {
		length = 16
	}
	src, _ := netip.AddrFromSlice(b[8 : 8+length])
	dst, _ := netip.AddrFromSlice(b[24 : 24+length])
	s := socket{
		local:  netip.AddrPortFrom(src.Unmap(), binary.BigEndian.Uint16(b[4:])),
		remote: netip.AddrPortFrom(dst.Unmap(), binary.BigEndian.Uint16(b[6:])),
	}
	attrs, err := netlink.UnmarshalAttributes(b[fixed:])
	if err != nil {
		return socket{}, false
	}
	for _, a := range attrs {
		if a.Type == diagMark && len(a.Data) == 4 {
			s.mark = binary.NativeEndian.Uint32(a.Data)
		}
	}
	return s, true
}
