package bench

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/ambit-mesh/ambit/internal/certs"
	"github.com/ambit-mesh/ambit/internal/certs/certstest"
	"github.com/ambit-mesh/ambit/internal/hbone"
	"github.com/ambit-mesh/ambit/internal/hbone/h2"
	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/internal/relay"
	"github.com/ambit-mesh/ambit/internal/spiffe"
)

// backendPorts are where the backend listens.
type backendPorts struct{ HTTP, GRPC uint16 }

// backendAddress is the address of the backend that has a tunnel.
const backendAddress = "127.15.8.2"

// runBackend is the program behind all proxies: http-backend CAFILE. It answers
// a GET with few bytes and a POST with its body.
func runBackend(ctx context.Context, args []string, ready func()) error {
	web, err := net.Listen("tcp", "0.0.0.0:0")
	if err != nil {
		return err
	}
	call, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			body, err := io.ReadAll(r.Body)
			if err != nil {
				http.Error(w, err.Error(), http.StatusBadRequest)
				return
			}
			w.Header().Set("Content-Type", "application/octet-stream")
			w.Write(body)
			return
		}
		w.Header()["Content-Type"] = []string{"text/plain"}
		io.WriteString(w, "hello, world\n")
	})}
	g := grpc.NewServer()
	healthpb.RegisterHealthServer(g, health.NewServer())
	var all sync.WaitGroup
	all.Go(func() { s.Serve(web) })
	all.Go(func() { g.Serve(call) })
	ca, err := certstest.Load(args[0])
	if err != nil {
		return err
	}
	all.Go(func() { serveTunnels(ctx, ca) })
	ready()
	ports := backendPorts{HTTP: portOf(web), GRPC: portOf(call)}
	if err := json.NewEncoder(os.Stdout).Encode(ports); err != nil {
		return err
	}
	<-ctx.Done()
	s.Close()
	g.Stop()
	all.Wait()
	return nil
}

func portOf(l net.Listener) uint16 { return uint16(l.Addr().(*net.TCPAddr).Port) }

// serveTunnels is the backend's ztunnel.
func serveTunnels(ctx context.Context, ca *certstest.CA) error {
	l, err := net.Listen("tcp", net.JoinHostPort(backendAddress, "15008"))
	if err != nil {
		return err
	}
	credentials, stop := credentialsOf(ca)
	defer stop()
	return h2.NewServer(h2.ServerConfig{
		Listener: l, Credentials: credentials,
		Self: func(context.Context) (spiffe.ID, error) {
			return benchWorkload("backend", backendAddress).Identity(), nil
		},
		Handler: func(in hbone.Incoming) {
			app, err := net.Dial("tcp", in.Request().Authority)
			if err != nil {
				in.Reject(hbone.StatusUnavailable, err.Error())
				return
			}
			s, err := in.Accept(nil)
			if err != nil {
				app.Close()
				return
			}
			relay.Options{HalfOpen: time.Hour}.Run(in.Context(), s, app.(*net.TCPConn), new(relay.Counts))
		},
	}).Serve(ctx)
}

// credentialsOf run until stop.
func credentialsOf(ca *certstest.CA) (*certs.Manager, func()) {
	m := certs.NewManager(certs.Config{CA: ca})
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { m.Run(ctx) })
	return m, func() { cancel(); running.Wait() }
}

func benchWorkload(name, address string) *mesh.Workload {
	return &mesh.Workload{
		UID: "bench//Pod/bench/" + name, Name: name, Namespace: "bench", TrustDomain: spiffe.DefaultTrustDomain, ServiceAccount: name,
		Addresses: []netip.Addr{netip.MustParseAddr(address)}, ClusterID: "bench", CanonicalName: name, OwnerName: name, Capacity: 1,
	}
}

func acceptable(name string) []spiffe.ID {
	return []spiffe.ID{benchWorkload(name, "127.0.0.1").Identity()}
}
