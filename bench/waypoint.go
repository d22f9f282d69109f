package bench

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/ambit-mesh/ambit/internal/certs/certstest"
	"github.com/ambit-mesh/ambit/internal/decision"
	"github.com/ambit-mesh/ambit/internal/linux"
	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/internal/telemetry"
	"github.com/ambit-mesh/ambit/waypoint"
	"github.com/ambit-mesh/ambit/waypoint/balance"
	"github.com/ambit-mesh/ambit/waypoint/exchange"
	"github.com/ambit-mesh/ambit/waypoint/forward"
	"github.com/ambit-mesh/ambit/waypoint/table"
)

// benchVIP is the service that is asked for: port 80 by HTTP, 81 by gRPC, 82 by
// HTTP to an endpoint with a tunnel.
var benchVIP = netip.MustParseAddrPort("240.0.0.80:82")

var (
	webService = mesh.ServiceKey{Namespace: "bench", Hostname: "web.bench.svc.cluster.local"}
	wpService  = mesh.ServiceKey{Namespace: "bench", Hostname: "wp.bench.svc.cluster.local"}
)

// benchModel is a waypoint and a service with a plain endpoint and one that has
// a tunnel.
func benchModel(p backendPorts) mesh.Model {
	wp, plain, tunnelled := benchWorkload("wp", "127.0.0.1"), benchWorkload("plain", "127.0.0.1"), benchWorkload("backend", backendAddress)
	plain.NetworkMode = mesh.NetworkHost
	tunnelled.Tunnel = mesh.TunnelHBONE
	plain.Services = map[mesh.ServiceKey][]mesh.Port{webService: {{Service: 80, Target: p.HTTP, App: mesh.AppHTTP11}, {Service: 81, Target: p.GRPC, App: mesh.AppGRPC}}}
	tunnelled.Services = map[mesh.ServiceKey][]mesh.Port{webService: {{Service: 82, Target: p.HTTP, App: mesh.AppHTTP11}}}
	wp.Services = map[mesh.ServiceKey][]mesh.Port{wpService: {{Service: 15008, Target: 15008}}}
	vip := netip.PrefixFrom(benchVIP.Addr(), 32)
	return mesh.Model{
		Workloads: map[string]*mesh.Workload{wp.UID: wp, plain.UID: plain, tunnelled.UID: tunnelled},
		Services: map[mesh.ServiceKey]*mesh.Service{
			webService: {
				Name: "web", Namespace: "bench", Hostname: webService.Hostname, Addresses: []mesh.NetworkPrefix{{Prefix: vip}},
				Ports:    []mesh.Port{{Service: 80, App: mesh.AppHTTP11}, {Service: 81, App: mesh.AppGRPC}, {Service: 82, App: mesh.AppHTTP11}},
				Waypoint: mesh.GatewayAddress{Service: wpService, Port: 15008},
			},
			wpService: {Name: "wp", Namespace: "bench", Hostname: wpService.Hostname, Ports: []mesh.Port{{Service: 15008, Target: 15008}}},
		},
	}
}

// proxyPorts are where a proxy that is compared listens.
type proxyPorts struct{ HTTP, HTTP2, GRPC uint16 }

func portsOf(args []string) (p backendPorts, err error) {
	for i, to := range []*uint16{&p.HTTP, &p.GRPC} {
		n, err := strconv.ParseUint(args[i], 10, 16)
		if err != nil {
			return p, err
		}
		*to = uint16(n)
	}
	return p, nil
}

// runWaypointPlain is the waypoint's engine on plain listeners, with all that
// handles a request behind it: waypoint-plain HTTPPORT GRPCPORT CAFILE.
func runWaypointPlain(ctx context.Context, args []string, ready func()) error {
	ports, err := portsOf(args)
	if err != nil {
		return err
	}
	ca, err := certstest.Load(args[2])
	if err != nil {
		return err
	}
	credentials, stop := credentialsOf(ca)
	defer stop()
	waypoint.SpareCollections()
	store := table.NewStore(wpService)
	store.Replace(benchModel(ports))
	self := func() *mesh.Workload { return store.Table().View().Workload(benchWorkload("wp", "127.0.0.1").UID) }
	f := forward.New(forward.Config{Credentials: credentials, Self: self})
	defer f.Close()
	// The record of a request is made and counted, and its line goes nowhere:
	// neither does the others'.
	requests := telemetry.NewExchanges(telemetry.ExchangesConfig{}, slog.New(slog.DiscardHandler))
	x := exchange.New(exchange.Config{
		Table: func() exchange.Table { return store.Table() }, Self: self, Balancer: balance.NewBalancer(), Forward: f,
		Record: requests.Record, Decisions: decision.NewRing(decision.Config{}),
	})
	defer x.Close()
	engine := exchange.NewEngine(exchange.EngineConfig{Handler: x})
	defer engine.Close()
	var all sync.WaitGroup
	defer all.Wait()
	var open proxyPorts
	for _, l := range []struct {
		to      *uint16
		service uint16
	}{{&open.HTTP, 80}, {&open.HTTP2, 80}, {&open.GRPC, 81}} {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		defer listener.Close()
		*l.to = portOf(listener)
		all.Go(func() { serveEngine(engine, listener, l.service) })
	}
	ready()
	if err := json.NewEncoder(os.Stdout).Encode(open); err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}

func serveEngine(e *exchange.Engine, l net.Listener, port uint16) {
	peer := benchWorkload("client", "127.0.0.1").Identity()
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go e.Serve(c, &exchange.Arrival{ // ends with the engine
			Peer: peer, Source: linux.AddrPort(c.RemoteAddr()), Dialled: netip.AddrPortFrom(benchVIP.Addr(), port), Service: webService, Port: port,
		})
	}
}

// tunnelPortOfWaypoint is where the real waypoint accepts HBONE.
const tunnelPortOfWaypoint = 15308

// runWaypoint is the real waypoint: waypoint HTTPPORT GRPCPORT CAFILE.
func runWaypoint(ctx context.Context, args []string, ready func()) error {
	ports, err := portsOf(args)
	if err != nil {
		return err
	}
	ca, err := certstest.Load(args[2])
	if err != nil {
		return err
	}
	waypoint.SpareCollections()
	store := table.NewStore(wpService)
	store.Replace(benchModel(ports))
	done := make(chan error, 1)
	go func() {
		done <- waypoint.Run(ctx, waypoint.Config{
			Self:  waypoint.Self{Name: "wp", Namespace: "bench", ServiceAccount: "wp", IP: "127.0.0.1", Gateway: "wp"},
			Store: store, Authority: ca, Listen: "127.0.0.1", TunnelPort: tunnelPortOfWaypoint,
			AdminPort: 15300, MetricsPort: 15320, ReadyPort: 15321, DrainDeadline: time.Second,
		})
	}()
	for {
		select {
		case err := <-done:
			return err
		case <-time.After(10 * time.Millisecond):
		}
		if listening(tunnelPortOfWaypoint) {
			ready()
			return <-done
		}
	}
}

func tunnelAddress() string { return fmt.Sprintf("127.0.0.1:%d", tunnelPortOfWaypoint) }
