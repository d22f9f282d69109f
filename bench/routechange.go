package bench

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"
	grpccredentials "google.golang.org/grpc/credentials"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gateway "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/internal/xds"
	"github.com/ambit-mesh/ambit/istiod-lite/ca"
	"github.com/ambit-mesh/ambit/istiod-lite/objects"
	"github.com/ambit-mesh/ambit/istiod-lite/push"
	"github.com/ambit-mesh/ambit/istiod-lite/translate"
	"github.com/ambit-mesh/ambit/waypoint/match"
	"github.com/ambit-mesh/ambit/waypoint/table"
)

const (
	routes         = 5000
	routedServices = 500
	// routeGoal is in milliseconds.
	routeGoal = 50
)

// routeChange measures how long one of 5,000 routes takes from the changed
// object to a waypoint that serves it: translated, pushed over xDS in TLS, and
// in the waypoint's table. Requests to another service go on meanwhile, and all
// must find their route.
func routeChange(ctx context.Context, cfg *Config) (rows []Row, err error) {
	const name = "route.change"
	if !cfg.wants(name) {
		return nil, nil
	}
	cfg.say(name)
	dir, err := os.MkdirTemp("", "ambit-bench")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	c, err := newRouteChain(dir)
	if err != nil {
		return nil, err
	}
	defer c.close()
	begin := time.Now()
	if err := c.live(ctx, 0); err != nil {
		return nil, err
	}
	whole := time.Since(begin)
	stop := c.disturb()
	var took []float64
	for i := range 50 * cfg.Rounds {
		begin := time.Now()
		c.change(i%routes, int64(i+1))
		if err := c.live(ctx, i%routes); err != nil {
			return nil, err
		}
		took = append(took, float64(time.Since(begin).Microseconds())/1e3)
	}
	asked, lost := stop()
	slices.Sort(took)
	row := Row{
		Name: name, Unit: "ms", Value: median(took), Rounds: len(took), Better: Lower, Goal: routeGoal,
		Note: fmt.Sprintf("one of %d routes; p99 %.1f ms; all of them the first time %.0f ms; of %d requests meanwhile %d found no route",
			routes, percentile(took, 0.99), float64(whole.Microseconds())/1e3, asked, lost),
	}
	return []Row{row}, nil
}

// routeChain is the control plane and a waypoint's table, in one process.
type routeChain struct {
	set        objects.Set
	translator *translate.Translator
	pusher     *push.Pusher
	store      *table.Store
	stop       func()
}

func routedService(i int) string { return fmt.Sprintf("s%d", i%routedServices) }

func routedKey(i int) mesh.ServiceKey {
	return mesh.ServiceKey{Namespace: "bench", Hostname: routedService(i) + ".bench.svc.cluster.local"}
}

// pathOf is what a route matches in a version of it.
func pathOf(i int, version int64) string { return fmt.Sprintf("/r%d/v%d", i, version) }

func newRouteChain(dir string) (*routeChain, error) {
	c := &routeChain{set: objects.Set{Mesh: objects.MeshConfig{}.WithDefaults()}, translator: translate.New(), store: table.NewStore(wpService)}
	for i := range routedServices + 1 {
		name := fmt.Sprintf("s%d", i)
		labels := map[string]string{"istio.io/use-waypoint": "wp"}
		if i == routedServices {
			name, labels = "wp", nil
		}
		a := netip.AddrFrom4([4]byte{10, 96, byte(i >> 8), byte(i)})
		if _, err := c.set.Put(&corev1.Service{
			ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "bench", Labels: labels},
			Spec:       corev1.ServiceSpec{ClusterIP: a.String(), Ports: []corev1.ServicePort{{Name: "http", Port: 80}}},
		}); err != nil {
			return nil, err
		}
	}
	for i := range routes {
		c.put(i, 0)
	}
	if err := c.serve(dir); err != nil {
		return nil, err
	}
	model, _ := c.translator.Update(c.set, nil)
	c.pusher.Publish(model, time.Now())
	return c, nil
}

// put makes one route anew.
func (c *routeChain) put(i int, version int64) objects.Ref {
	exact, path := gateway.PathMatchExact, pathOf(i, version)
	port, group, kind := gateway.PortNumber(80), gateway.Group(""), gateway.Kind("Service")
	to := gateway.BackendObjectReference{Name: gateway.ObjectName(routedService(i)), Port: &port}
	ref, err := c.set.Put(&gateway.HTTPRoute{
		ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("r%d", i), Namespace: "bench", Generation: version + 1},
		Spec: gateway.HTTPRouteSpec{
			CommonRouteSpec: gateway.CommonRouteSpec{ParentRefs: []gateway.ParentReference{{Group: &group, Kind: &kind, Name: to.Name}}},
			Rules: []gateway.HTTPRouteRule{{
				Matches:     []gateway.HTTPRouteMatch{{Path: &gateway.HTTPPathMatch{Type: &exact, Value: &path}}},
				BackendRefs: []gateway.HTTPBackendRef{{BackendRef: gateway.BackendRef{BackendObjectReference: to}}},
			}},
		},
	})
	if err != nil {
		panic(err) // a route is a kind that a Set holds
	}
	return ref
}

// serve joins both by real xDS.
func (c *routeChain) serve(dir string) error {
	material, err := ca.NewRoot("bench", time.Now())
	if err != nil {
		return err
	}
	authority, err := ca.NewAuthority(material, ca.AuthorityConfig{})
	if err != nil {
		return err
	}
	rootFile := filepath.Join(dir, "root.pem")
	if err := os.WriteFile(rootFile, authority.Roots(), 0o600); err != nil {
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	quiet := slog.New(slog.DiscardHandler)
	g := grpc.NewServer(grpc.Creds(grpccredentials.NewTLS(&tls.Config{GetCertificate: ca.NewServing(authority, []string{"localhost"}).GetCertificate})))
	c.pusher = push.New(push.Config{Logger: quiet, Authenticate: func(context.Context) (string, error) { return "bench/wp", nil }})
	c.pusher.Register(g)
	client := xds.NewClient(xds.Config{
		Address: l.Addr().String(), ServerName: "localhost", RootFile: rootFile, Types: table.Types(), Receiver: c.store, Logger: quiet,
		Node: xds.Node{ID: "waypoint~127.0.0.1~wp.bench~bench.svc.cluster.local", Metadata: map[string]any{xds.MetadataGateway: "wp"}},
	})
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { g.Serve(l) })
	running.Go(func() { client.Run(ctx) })
	c.stop = func() { cancel(); c.pusher.Close(); g.Stop(); running.Wait() }
	return nil
}

func (c *routeChain) close() { c.stop() }

// change makes another version of a route and takes it to the pusher.
func (c *routeChain) change(i int, version int64) {
	ref := c.put(i, version)
	model, _ := c.translator.Update(c.set, []objects.Ref{ref})
	c.pusher.Publish(model, time.Now())
}

// live waits until the waypoint's table has the newest version of a route.
func (c *routeChain) live(ctx context.Context, i int) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	r := c.set.HTTPRoutes[objects.Key{Namespace: "bench", Name: fmt.Sprintf("r%d", i)}]
	_, err := c.store.Wait(ctx, func(t *table.Table) bool { return found(t, i, r.Generation-1) })
	if err != nil {
		return fmt.Errorf("route %d does not come to be served: %w", i, err)
	}
	return nil
}

func found(t *table.Table, i int, version int64) bool {
	d := t.Routes(routedKey(i), 80).Find(&match.Request{Method: "GET", Path: pathOf(i, version)})
	return d.Outcome == match.Matched
}

// disturb asks, until stop, for a route of another service than those whose
// routes change at that moment: its answer must never be missing.
func (c *routeChain) disturb() (stop func() (asked, lost int)) {
	ctx, cancel := context.WithCancel(context.Background())
	var asking sync.WaitGroup
	var asked, lost int
	const undisturbed = routes - 1 // is changed by nobody: there are fewer changes than routes
	asking.Go(func() {
		for ctx.Err() == nil {
			asked++
			if !found(c.store.Table(), undisturbed, 0) {
				lost++
			}
			time.Sleep(100 * time.Microsecond)
		}
	})
	return func() (int, int) { cancel(); asking.Wait(); return asked, lost }
}
