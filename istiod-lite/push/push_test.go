package push

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"

	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/internal/xds"
)

var quiet = slog.New(slog.DiscardHandler)

// world makes a model of workloads with the policies that they name, and of
// policies with their scopes.
func world(workloads map[string]string, policies map[string]mesh.PolicyScope) mesh.Model {
	m := mesh.Model{Workloads: map[string]*mesh.Workload{}, Policies: map[mesh.PolicyKey]*mesh.Policy{}}
	for uid, policy := range workloads {
		w := &mesh.Workload{UID: uid, Name: uid, Namespace: "shop", ServiceAccount: "default", TrustDomain: "cluster.local", Capacity: 1}
		if policy != "" {
			w.Policies = []mesh.PolicyKey{{Namespace: "shop", Name: policy}}
		}
		m.Workloads[uid] = w
	}
	for name, scope := range policies {
		k := mesh.PolicyKey{Namespace: "shop", Name: name}
		m.Policies[k] = &mesh.Policy{Key: k, Scope: scope, Action: mesh.ActionDeny}
	}
	return m
}

// connect subscribes to everything and returns what is heard, as sentences.
func connect(t *testing.T, p *Pusher) (hear func() string) {
	t.Helper()
	l := bufconn.Listen(1 << 16)
	g := grpc.NewServer()
	p.Register(g)
	served := make(chan struct{})
	go func() { defer close(served); g.Serve(l) }()
	conn, err := grpc.NewClient("passthrough:///mesh", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(context.Context, string) (net.Conn, error) { return l.Dial() }))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	t.Cleanup(func() { cancel(); conn.Close(); p.Close(); g.Stop(); <-served })
	stream, err := discovery.NewAggregatedDiscoveryServiceClient(conn).DeltaAggregatedResources(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, typ := range []string{xds.TypeAddress, xds.TypeAuthorization} {
		if err := stream.Send(&discovery.DeltaDiscoveryRequest{TypeUrl: typ, Node: &core.Node{Id: "z"}}); err != nil {
			t.Fatal(err)
		}
	}
	return func() string {
		r, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		words := []string{"workloads"}
		if r.TypeUrl == xds.TypeAuthorization {
			words[0] = "policies"
		}
		for _, u := range r.Resources {
			words = append(words, "+"+u.Name)
		}
		for _, name := range r.RemovedResources {
			words = append(words, "-"+name)
		}
		return strings.Join(words, " ")
	}
}

func TestNoPushLeavesAWorkloadWithoutItsPolicy(t *testing.T) {
	p := New(Config{Logger: quiet})
	hear := connect(t, p)
	for _, step := range []struct {
		name  string
		model mesh.Model
		want  []string
	}{
		{"the first, in the order of safety and not of asking", world(map[string]string{"w": "p"}, map[string]mesh.PolicyScope{"p": mesh.ScopeSelector}), []string{"policies +shop/p", "workloads +w"}},
		{"a policy that comes to be for the namespace", world(map[string]string{"w": ""}, map[string]mesh.PolicyScope{"p": mesh.ScopeNamespace}), []string{"policies +shop/p", "workloads +w"}},
		{"a policy that comes to select", world(map[string]string{"w": "p"}, map[string]mesh.PolicyScope{"p": mesh.ScopeSelector}), []string{"workloads +w", "policies +shop/p"}},
		{"a policy in place of another", world(map[string]string{"w": "q"}, map[string]mesh.PolicyScope{"q": mesh.ScopeSelector}), []string{"policies +shop/q", "workloads +w", "policies -shop/p"}},
	} {
		t.Run(step.name, func(t *testing.T) {
			p.Publish(step.model, time.Now())
			var got []string
			for range step.want {
				got = append(got, hear())
			}
			if d := cmp.Diff(step.want, got); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestTheSameModelIsNotPushedTwice(t *testing.T) {
	p := New(Config{Logger: quiet})
	make := func() mesh.Model { return world(map[string]string{"w": ""}, nil) }
	first := p.Publish(make(), time.Now())
	if again := p.Publish(make(), time.Now()); again != first {
		t.Errorf("equal content became generation %d after %d", again, first)
	}
	if next := p.Publish(world(map[string]string{"v": ""}, nil), time.Now()); next != first+1 {
		t.Errorf("a change became generation %d after %d", next, first)
	}
}

func TestAnEmptyMeshIsPublished(t *testing.T) {
	p := New(Config{Logger: quiet})
	hear := connect(t, p)
	p.Publish(mesh.Model{}, time.Time{})
	if got := hear() + ", " + hear(); got != "policies, workloads" {
		t.Errorf("heard %q, want both types answered", got)
	}
}

func TestPace(t *testing.T) {
	const shortest, longest = 10 * time.Millisecond, 80 * time.Millisecond
	ms := func(times ...int) (out []time.Duration) {
		for _, n := range times {
			out = append(out, time.Duration(n)*time.Millisecond)
		}
		return out
	}
	for _, tt := range []struct {
		name  string
		every time.Duration
		times int
		want  []time.Duration // when, after the first change, act is called
	}{
		{"one change is acted on at once", 0, 1, ms(0)},
		{"what comes in the pause is acted on after it", 2 * time.Millisecond, 5, ms(0, 10)},
		{"a storm is acted on ever less often, and after its end", time.Millisecond, 300, ms(0, 10, 30, 70, 150, 230, 310)},
		{"changes far apart are acted on each, at once", 50 * time.Millisecond, 3, ms(0, 50, 100)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				changes, done := make(chan struct{}, 1), make(chan error, 1)
				began := time.Now()
				var acts []time.Duration
				go func() {
					done <- Pace(ctx, changes, shortest, longest, func() error {
						acts = append(acts, time.Since(began))
						return nil
					})
				}()
				for range tt.times {
					select {
					case changes <- struct{}{}:
					default: // it knows already
					}
					synctest.Wait()
					time.Sleep(tt.every)
				}
				time.Sleep(time.Second)
				cancel()
				if err := <-done; err != nil {
					t.Error(err)
				}
				if d := cmp.Diff(tt.want, acts); d != "" {
					t.Error(d)
				}
			})
		})
	}
	t.Run("an error ends it", func(t *testing.T) {
		changes := make(chan struct{}, 1)
		changes <- struct{}{}
		want := errors.New("no")
		if err := Pace(t.Context(), changes, 0, 0, func() error { return want }); !errors.Is(err, want) {
			t.Errorf("got %v", err)
		}
	})
}

// One pod of ten thousand changes: what a publish costs, clients apart.
func BenchmarkPublishOneOf10k(b *testing.B) {
	names := map[string]string{}
	for i := range 10_000 {
		names[fmt.Sprintf("Kubernetes//Pod/shop/p%d", i)] = ""
	}
	m := world(names, nil)
	p := New(Config{Logger: quiet})
	p.Publish(m, time.Now())
	for i := 0; b.Loop(); i++ {
		next := m
		next.Workloads = maps.Clone(m.Workloads)
		w := *m.Workloads["Kubernetes//Pod/shop/p7"]
		w.Node = fmt.Sprintf("n%d", i)
		next.Workloads[w.UID] = &w
		p.Publish(next, time.Now())
		m = next
	}
}

func TestAWaypointIsWhoItsTokenSays(t *testing.T) {
	m := world(map[string]string{"w": ""}, nil)
	reviews, wp := mesh.ServiceKey{Namespace: "shop", Hostname: "reviews.shop.svc"}, mesh.ServiceKey{Namespace: "shop", Hostname: "wp.shop.svc"}
	m.Services = map[mesh.ServiceKey]*mesh.Service{reviews: {Name: "reviews", Namespace: "shop", Hostname: reviews.Hostname, Waypoint: mesh.GatewayAddress{Service: wp}}}
	k := mesh.RouteKey{Kind: mesh.RouteHTTP, Namespace: "shop", Name: "r"}
	m.Routes = map[mesh.RouteKey]*mesh.Route{k: {Key: k, Parents: []mesh.RouteParent{{Service: reviews}}}}
	p := New(Config{Logger: quiet})
	first := p.Publish(m, time.Now())
	for _, tt := range []struct {
		name string
		peer xds.Peer
		want int
	}{
		{"the waypoint", xds.Peer{Gateway: "wp", Caller: "shop/any"}, 1},
		{"one that calls itself so in another namespace", xds.Peer{Gateway: "wp", Caller: "evil/wp"}, 0},
		{"another waypoint", xds.Peer{Gateway: "other", Caller: "shop/any"}, 0},
		{"a ztunnel", xds.Peer{Caller: "istio-system/ztunnel"}, 0},
	} {
		s := current{p}.Snapshot(tt.peer)
		if got := len(s.Types[xds.TypeWaypoint]); got != tt.want {
			t.Errorf("%s holds %d routes, want %d", tt.name, got, tt.want)
		}
		if len(s.Types[xds.TypeAddress]) != 2 {
			t.Errorf("%s does not hold the addresses", tt.name)
		}
	}
	if again := p.Publish(m, time.Now()); again != first {
		t.Errorf("the same model is generation %d after %d", again, first)
	}
	changed := *m.Routes[k]
	changed.Generation = 2
	m.Routes = map[mesh.RouteKey]*mesh.Route{k: &changed}
	if again := p.Publish(m, time.Now()); again != first+1 {
		t.Errorf("a changed route is generation %d after %d", again, first)
	}
}
