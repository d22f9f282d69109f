package istiodlite

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ambit-mesh/ambit/internal/wire"
	"github.com/ambit-mesh/ambit/internal/xds"
	"github.com/ambit-mesh/ambit/istiod-lite/feed"
	"github.com/ambit-mesh/ambit/istiod-lite/jwks"
	"github.com/ambit-mesh/ambit/istiod-lite/objects"
	"github.com/ambit-mesh/ambit/istiod-lite/provision"
	"github.com/ambit-mesh/ambit/istiod-lite/push"
	"github.com/ambit-mesh/ambit/istiod-lite/translate"
)

// listener is a client that keeps the revision of every workload.
type listener struct {
	revisions map[string]string
	messages  int
}

func (l *listener) run(stream discovery.AggregatedDiscoveryService_DeltaAggregatedResourcesClient) {
	for {
		r, err := stream.Recv()
		if err != nil {
			return
		}
		l.messages++
		for _, u := range r.Resources {
			if w, _, err := wire.UnmarshalAddress(u.GetResource().GetValue()); err == nil && w != nil {
				l.revisions[w.Name] = w.CanonicalRevision
			}
		}
		stream.Send(&discovery.DeltaDiscoveryRequest{TypeUrl: r.TypeUrl, ResponseNonce: r.Nonce})
	}
}

func podOfRevision(name string, revision int) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name, Labels: map[string]string{"version": fmt.Sprint("v", revision)}},
		Status:     corev1.PodStatus{Phase: corev1.PodRunning, PodIP: "10.0.0.1"},
	}
}

// withoutPlatform is a control plane that nobody feeds and that tells nobody.
func withoutPlatform() *plane {
	quiet := slog.New(slog.DiscardHandler)
	p := &plane{cfg: Config{Mesh: objects.MeshConfig{}.WithDefaults()}, log: quiet, metrics: newMetrics(), queue: feed.NewQueue(), pods: newPlacement(Config{}.kindOf)}
	p.issuers = jwks.New(jwks.Config{Put: p.queue.Put, Logger: quiet})
	p.platform = platform{tell: func([]translate.Condition, map[objects.Ref]*translate.Detail) {}, provide: func(provision.Plan) {}}
	p.pusher = push.New(push.Config{Logger: quiet})
	return p
}

// Ten thousand changes in a second become a few runs of the rules and a few
// messages, and everybody ends with the last state.
func TestAStormCoalesces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := withoutPlatform()
		clients, stop := listeners(t, p.pusher, 3)
		ctx, cancel := context.WithCancel(t.Context())
		steps, rules := 0, newTranslation(p)
		var running sync.WaitGroup
		running.Go(func() {
			push.Pace(ctx, p.queue.Changed(), push.Shortest, push.Longest, func() error { steps++; return rules.step() })
		})
		const changes, pods = 10_000, 100
		for i := range changes {
			name := fmt.Sprint("p", i%pods)
			p.queue.Put(objects.Ref{Kind: objects.KindPod, Key: objects.Key{Namespace: "shop", Name: name}}, podOfRevision(name, i/pods))
			time.Sleep(time.Second / changes)
		}
		time.Sleep(time.Second)
		cancel()
		running.Wait()
		stop()
		if steps > 12 {
			t.Errorf("the rules ran %d times", steps)
		}
		for i, l := range clients {
			if l.messages > 15 {
				t.Errorf("client %d got %d messages", i, l.messages)
			}
			for pod := range pods {
				if got, want := l.revisions[fmt.Sprint("p", pod)], fmt.Sprint("v", changes/pods-1); got != want {
					t.Errorf("client %d has pod %d in revision %q, want %q", i, pod, got, want)
				}
			}
		}
	})
}

// listeners connects clients to a pusher.
func listeners(t *testing.T, p *push.Pusher, n int) (all []*listener, stop func()) {
	l, g := bufconn.Listen(1<<16), grpc.NewServer()
	p.Register(g)
	var running sync.WaitGroup
	running.Go(func() { g.Serve(l) })
	conn, err := grpc.NewClient("passthrough:///mesh", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(context.Context, string) (net.Conn, error) { return l.Dial() }))
	if err != nil {
		t.Fatal(err)
	}
	for range n {
		stream, err := discovery.NewAggregatedDiscoveryServiceClient(conn).DeltaAggregatedResources(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, typ := range []string{xds.TypeAddress, xds.TypeAuthorization} {
			if err := stream.Send(&discovery.DeltaDiscoveryRequest{TypeUrl: typ, Node: &core.Node{Id: "z"}}); err != nil {
				t.Fatal(err)
			}
		}
		one := &listener{revisions: map[string]string{}}
		all = append(all, one)
		running.Go(func() { one.run(stream) })
	}
	return all, func() {
		conn.Close()
		p.Close()
		g.Stop()
		running.Wait()
	}
}
