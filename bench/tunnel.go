package bench

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"

	"github.com/ambit-mesh/ambit/internal/certs"
	"github.com/ambit-mesh/ambit/internal/certs/certstest"
	"github.com/ambit-mesh/ambit/internal/hbone"
	"github.com/ambit-mesh/ambit/internal/hbone/h2"
	"github.com/ambit-mesh/ambit/internal/hbone/pool"
	"github.com/ambit-mesh/ambit/internal/relay"
	"github.com/ambit-mesh/ambit/internal/spiffe"
)

// Two hops of the tunnel alone, without ztunnel's decisions, are printed beside:
// what lies between them and two ztunnels is not the tunnel's.

// runTunnelOut opens streams: tunnel-out LISTEN TO CAFILE.
func runTunnelOut(ctx context.Context, args []string, ready func()) error {
	creds, stop, err := credentials(ctx, args[2])
	if err != nil {
		return err
	}
	defer stop()
	to, err := netip.ParseAddrPort(args[1])
	if err != nil {
		return err
	}
	p := pool.New(pool.Config{Dialer: h2.NewDialer(h2.Config{
		Credentials: creds,
		Connect:     func(_ context.Context, to netip.AddrPort) (net.Conn, error) { return dial(to.String(), netip.Addr{}) },
	})})
	defer p.Close()
	l, err := net.Listen("tcp", args[0])
	if err != nil {
		return err
	}
	ready()
	return accept(ctx, l, func(c *net.TCPConn) {
		s, _, _, err := p.Open(ctx, hbone.Target{Address: to, Self: clientID, Accept: []spiffe.ID{serverID}}, hbone.Request{Authority: "app:8080"})
		if err != nil {
			fmt.Fprintln(os.Stderr, "tunnel:", err)
			c.Close()
			return
		}
		relay.Run(ctx, c, s, nil)
	})
}

// runTunnelIn accepts streams: tunnel-in LISTEN TO CAFILE.
func runTunnelIn(ctx context.Context, args []string, ready func()) error {
	creds, stop, err := credentials(ctx, args[2])
	if err != nil {
		return err
	}
	defer stop()
	l, err := net.Listen("tcp", args[0])
	if err != nil {
		return err
	}
	srv := h2.NewServer(h2.ServerConfig{
		Listener: l, Credentials: creds, MaxTunnels: boundless, PeerTunnels: boundless, PeerRate: boundless,
		Self: func(context.Context) (spiffe.ID, error) { return serverID, nil },
		Handler: func(in hbone.Incoming) {
			to, err := dial(args[1], in.Peer().Remote.Addr())
			if err != nil {
				in.Reject(hbone.StatusUnavailable, err.Error())
				return
			}
			s, err := in.Accept(nil)
			if err != nil {
				to.Close()
				return
			}
			relay.Run(ctx, s, to, nil)
		},
	})
	ready()
	return srv.Serve(ctx)
}

// credentials run until stop.
func credentials(ctx context.Context, caFile string) (m *certs.Manager, stop func(), err error) {
	ca, err := certstest.Load(caFile)
	if err != nil {
		return nil, nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	m = certs.NewManager(certs.Config{CA: ca})
	var run sync.WaitGroup
	run.Go(func() { m.Run(ctx) })
	return m, func() { cancel(); run.Wait() }, nil
}
