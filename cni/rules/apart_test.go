package rules_test

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/ambit-mesh/ambit/cni/netnstest"
	"github.com/ambit-mesh/ambit/cni/rules"
	"github.com/ambit-mesh/ambit/internal/linux"
)

// TestAClientsPortMayBeThatOfItsConnectionToTheProgram: ztunnel goes to the
// pod's program with the client's address and a port of which it cannot know
// that the client has none like it: a NAT on the way may have given it any.
func TestAClientsPortMayBeThatOfItsConnectionToTheProgram(t *testing.T) {
	w := newWorld(t)
	apply(t, w.pod.NS, rules.Spec{})
	for _, f := range []struct {
		name           string
		client, server netip.Addr
	}{{"IPv4", w.peer.V4, w.pod.V4}, {"IPv6", w.peer.V6, w.pod.V6}} {
		t.Run(f.name, func(t *testing.T) {
			next := spoofed(t, w.pod.NS)
			var clients []*netnstest.Client
			for i := range uint16(20) {
				clients = append(clients, netnstest.DialFrom(t, w.peer.NS, at(f.client, next+i), at(f.server, 8080)))
			}
			for round := range 2 {
				for i, c := range clients {
					asks(t, fmt.Sprintf("client %d, round %d", i, round), c, fmt.Sprintf("by 15006 pod %s: hi", f.client))
				}
			}
		})
	}
}

// spoofed is the port that the next spoofed connection of this process gets.
func spoofed(t *testing.T, ns *linux.NetNS) uint16 {
	t.Helper()
	l, err := linux.ListenTCP(t.Context(), ns, netip.MustParseAddrPort("127.0.0.1:0"), linux.ListenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for {
		c, err := linux.DialTCP(t.Context(), ns, linux.AddrPort(l.Addr()), linux.DialOptions{Source: netip.MustParseAddr("127.0.0.2")})
		if err != nil {
			t.Fatal(err)
		}
		port := linux.AddrPort(c.LocalAddr()).Port()
		c.Close()
		if port >= 61000 && port < 65000 {
			return port + 1
		}
	}
}
