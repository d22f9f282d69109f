package h3

import (
	"context"
	"net"
	"net/netip"
	"testing"

	"github.com/ambit-mesh/ambit/internal/hbone"
	"github.com/ambit-mesh/ambit/internal/hbone/hbonetest"
	"github.com/ambit-mesh/ambit/internal/spiffe"
)

// transport is this one, as the conformance test wants it.
var transport = hbonetest.Transport{
	Dialer: func(c hbone.Credentials) hbone.Dialer { return NewDialer(Config{Credentials: c, Silence: unhurried}) },
	Server: func(t testing.TB, self spiffe.ID, c hbone.Credentials, h hbone.Handler, refused func(error)) (hbone.Server, netip.AddrPort) {
		pc, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			t.Fatal(err)
		}
		return NewServer(ServerConfig{
			Conn:        pc,
			Self:        func(context.Context) (spiffe.ID, error) { return self, nil },
			Credentials: c,
			Handler:     h,
			Datagrams:   true,
			Refused:     func(_ netip.AddrPort, err error) { refused(err) },
		}), addrPort(pc.LocalAddr())
	},
}

func TestConformance(t *testing.T) { hbonetest.Run(t, transport) }
