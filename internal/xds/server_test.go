package xds

import (
	"context"
	"log/slog"
	"net"
	"sync"
	"testing"
	"time"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	grpcstatus "google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/types/known/structpb"
)

// patience is how long tests wait for what must happen; it is generous.
const patience = 20 * time.Second

var quiet = slog.New(slog.DiscardHandler)

// fixed is a Source whose snapshot tests replace.
type fixed struct {
	mu   sync.Mutex
	snap *Snapshot
	gen  uint64
}

func (f *fixed) Snapshot(Peer) *Snapshot {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.snap
}

func (f *fixed) set(s *Server, policies, addresses Resources) {
	f.mu.Lock()
	f.gen++
	f.snap = &Snapshot{Generation: f.gen, Types: map[string]Resources{TypeAuthorization: policies, TypeAddress: addresses}}
	f.mu.Unlock()
	s.Notify()
}

// listen serves s in memory and returns a way to open streams at it.
func listen(t *testing.T, s *Server) func(opts ...grpc.CallOption) clientStream {
	t.Helper()
	l := bufconn.Listen(1 << 16)
	g := grpc.NewServer()
	s.Register(g)
	served := make(chan struct{})
	go func() { defer close(served); g.Serve(l) }()
	// Windows that do not grow: how much a client that does not read is sent
	// must not depend on how busy the machine is.
	conn, err := grpc.NewClient("passthrough:///mesh", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithStaticStreamWindowSize(1<<16), grpc.WithStaticConnWindowSize(1<<24),
		grpc.WithContextDialer(func(context.Context, string) (net.Conn, error) { return l.Dial() }))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(func() { cancel(); conn.Close(); s.Close(); g.Stop(); <-served })
	return func(opts ...grpc.CallOption) clientStream {
		stream, err := discovery.NewAggregatedDiscoveryServiceClient(conn).DeltaAggregatedResources(ctx, opts...)
		if err != nil {
			t.Fatal(err)
		}
		return stream
	}
}

// talk is a hand-driven client.
type talk struct {
	t *testing.T
	clientStream
	last *discovery.DeltaDiscoveryResponse
}

func (c *talk) ask(r *discovery.DeltaDiscoveryRequest) {
	c.t.Helper()
	r.Node = &core.Node{Id: "ztunnel~10.0.0.1~z.istio-system~istio-system.svc.cluster.local",
		Metadata: &structpb.Struct{Fields: map[string]*structpb.Value{"NODE_NAME": structpb.NewStringValue("n1")}}}
	if err := c.Send(r); err != nil {
		c.t.Fatal(err)
	}
}

// hear reads one response as a sentence.
func (c *talk) hear() string {
	c.t.Helper()
	resp, err := c.Recv()
	if err != nil {
		c.t.Fatal(err)
	}
	c.last = resp
	r := response{typ: resp.TypeUrl, removed: resp.RemovedResources}
	for _, u := range resp.Resources {
		if u.Resource.TypeUrl != resp.TypeUrl || string(u.Resource.Value) != u.Version {
			c.t.Errorf("resource %s: body %q of type %s, version %q", u.Name, u.Resource.Value, u.Resource.TypeUrl, u.Version)
		}
		r.upserts = append(r.upserts, &Resource{Name: u.Name})
	}
	if r.empty() {
		return map[string]string{TypeAuthorization: "policies", TypeAddress: "workloads"}[r.typ] + " none"
	}
	return say([]response{r})[0]
}

func (c *talk) expect(want ...string) {
	c.t.Helper()
	for _, w := range want {
		if got := c.hear(); got != w {
			c.t.Fatalf("heard %q, want %q", got, w)
		}
	}
}

func (c *talk) ack() {
	c.ask(&discovery.DeltaDiscoveryRequest{TypeUrl: c.last.TypeUrl, ResponseNonce: c.last.Nonce})
}

// wildcard asks for workloads first, the order that must not matter.
func (c *talk) wildcard() {
	c.ask(&discovery.DeltaDiscoveryRequest{TypeUrl: TypeAddress})
	c.ask(&discovery.DeltaDiscoveryRequest{TypeUrl: TypeAuthorization})
}

func (c *talk) onDemand(held map[string]string) {
	c.ask(&discovery.DeltaDiscoveryRequest{TypeUrl: TypeAuthorization})
	c.ask(&discovery.DeltaDiscoveryRequest{TypeUrl: TypeAddress, InitialResourceVersions: held,
		ResourceNamesSubscribe: []string{"*"}, ResourceNamesUnsubscribe: []string{"*"}})
}

func TestTheFirstRequestIsAnsweredEvenWhenEmpty(t *testing.T) {
	src := &fixed{}
	s := NewServer(ServerConfig{Logger: quiet, Source: src})
	c := &talk{t: t, clientStream: listen(t, s)()}
	c.wildcard()
	src.set(s, nil, nil)
	c.expect("policies none", "workloads none")
}

func TestPoliciesComeFirstWhateverWasAskedFirst(t *testing.T) {
	src := &fixed{}
	s := NewServer(ServerConfig{Logger: quiet, Source: src, Hold: time.Hour})
	src.set(s, set(res("p", "1")), set(res("w", "1")))
	c := &talk{t: t, clientStream: listen(t, s)()}
	c.wildcard()
	c.expect("policies +p", "workloads +w")
	src.set(s, set(res("q", "1")), set(res("w", "2"), res("v", "1")))
	c.expect("policies +q", "workloads +v +w", "policies -p")
}

func TestAClientOfOneTypeIsServedAfterTheHold(t *testing.T) {
	src := &fixed{}
	s := NewServer(ServerConfig{Logger: quiet, Source: src, Hold: time.Millisecond})
	src.set(s, nil, set(res("w", "1")))
	c := &talk{t: t, clientStream: listen(t, s)()}
	c.ask(&discovery.DeltaDiscoveryRequest{TypeUrl: TypeAddress})
	c.expect("workloads +w")
}

func TestAReturningClientGetsOnlyTheDifference(t *testing.T) {
	src := &fixed{}
	s := NewServer(ServerConfig{Logger: quiet, Source: src})
	src.set(s, set(res("p", "1")), set(res("same", "1"), res("new", "1"), res("changed", "2")))
	c := &talk{t: t, clientStream: listen(t, s)()}
	c.ask(&discovery.DeltaDiscoveryRequest{TypeUrl: TypeAuthorization, InitialResourceVersions: map[string]string{"p": "1", "old": "1"}})
	c.ask(&discovery.DeltaDiscoveryRequest{TypeUrl: TypeAddress, InitialResourceVersions: map[string]string{"same": "1", "changed": "1", "gone": "1"}})
	c.expect("policies none", "workloads +changed +new -gone", "policies -old")
}

func TestAReturningClientIsNeverLeftWithoutAPolicy(t *testing.T) {
	src := &fixed{}
	selects := func(_ string, _, new *Resource) bool { return new.Version == "selects" }
	s := NewServer(ServerConfig{Logger: quiet, Source: src, Late: selects})
	src.set(s, set(res("changed", "selects"), res("new", "selects"), res("wide", "2")), set(res("w", "2")))
	c := &talk{t: t, clientStream: listen(t, s)()}
	c.ask(&discovery.DeltaDiscoveryRequest{TypeUrl: TypeAddress, InitialResourceVersions: map[string]string{"w": "1"}})
	c.ask(&discovery.DeltaDiscoveryRequest{TypeUrl: TypeAuthorization, InitialResourceVersions: map[string]string{"changed": "1", "wide": "1"}})
	// What "changed" was before is not known: it may have guarded w without
	// being named by it.
	c.expect("policies +new +wide", "workloads +w", "policies +changed")
}

func TestOnDemand(t *testing.T) {
	w := &Resource{Name: "c//Pod/a/w", Version: "1", Body: []byte("1"), Aliases: []string{"net/10.0.0.1"}, Follows: []string{"a/svc.local"}}
	local := &Resource{Name: "c//Pod/a/local", Version: "1", Body: []byte("1"), Follows: []string{NodeKey("n1")}}
	svc := &Resource{Name: "a/svc.local", Version: "1", Body: []byte("1"), Aliases: []string{"net/10.96.0.1"}}
	other := &Resource{Name: "c//Pod/b/other", Version: "1", Body: []byte("1")}
	start := func(t *testing.T, held map[string]string) (*talk, *Server, *fixed) {
		src := &fixed{}
		s := NewServer(ServerConfig{Logger: quiet, Source: src})
		src.set(s, nil, set(w, local, svc, other))
		c := &talk{t: t, clientStream: listen(t, s)()}
		c.onDemand(held)
		return c, s, src
	}
	key := func(names ...string) *discovery.DeltaDiscoveryRequest {
		return &discovery.DeltaDiscoveryRequest{TypeUrl: TypeAddress, ResourceNamesSubscribe: names}
	}
	t.Run("starts with its own node only", func(t *testing.T) {
		c, _, _ := start(t, nil)
		c.expect("policies none", "workloads +c//Pod/a/local")
	})
	t.Run("an address finds its workload, a virtual address also the endpoints", func(t *testing.T) {
		c, _, _ := start(t, nil)
		c.expect("policies none", "workloads +c//Pod/a/local")
		c.ask(key("net/10.0.0.1"))
		c.expect("workloads +c//Pod/a/w")
		if d := cmp.Diff([]string{"net/10.0.0.1"}, c.last.Resources[0].Aliases); d != "" {
			t.Error(d)
		}
		c.ask(key("net/10.96.0.1"))
		c.expect("workloads +a/svc.local +c//Pod/a/w") // asked anew, so said anew
	})
	t.Run("an unknown key is removed, and heard of when it appears", func(t *testing.T) {
		c, s, src := start(t, nil)
		c.expect("policies none", "workloads +c//Pod/a/local")
		c.ask(key("net/10.0.0.9"))
		c.expect("workloads -net/10.0.0.9")
		late := &Resource{Name: "c//Pod/a/late", Version: "1", Body: []byte("1"), Aliases: []string{"net/10.0.0.9"}}
		src.set(s, nil, set(w, local, svc, other, late))
		c.expect("workloads +c//Pod/a/late")
		src.set(s, nil, set(w, local, svc, other))
		c.expect("workloads -c//Pod/a/late")
	})
	t.Run("what it held before it still hears of", func(t *testing.T) {
		c, s, src := start(t, map[string]string{"c//Pod/b/other": "1", "c//Pod/b/gone": "1"})
		c.expect("policies none", "workloads +c//Pod/a/local -c//Pod/b/gone")
		src.set(s, nil, set(w, local, svc, res("c//Pod/b/other", "2")))
		c.expect("workloads +c//Pod/b/other")
	})
	t.Run("others' changes are not its matter", func(t *testing.T) {
		c, s, src := start(t, nil)
		c.expect("policies none", "workloads +c//Pod/a/local")
		src.set(s, nil, set(w, local, svc, res("c//Pod/b/other", "2")))
		src.set(s, nil, set(w, svc))
		c.expect("workloads -c//Pod/a/local")
	})
}

func TestARejectionIsCountedAndNotSentAgain(t *testing.T) {
	src := &fixed{}
	obs := &counts{}
	s := NewServer(ServerConfig{Logger: quiet, Source: src, Observer: obs})
	src.set(s, set(res("p", "1")), nil)
	c := &talk{t: t, clientStream: listen(t, s)()}
	c.wildcard()
	c.expect("policies +p")
	policies := c.last
	c.expect("workloads none")
	c.ack()
	c.ask(&discovery.DeltaDiscoveryRequest{TypeUrl: TypeAuthorization, ResponseNonce: policies.Nonce, ErrorDetail: &status.Status{Message: "p: bad"}})
	eventually(t, "the rejection shows in the status", func() bool {
		st := s.Status()
		return len(st) == 1 && len(st[0].Types) == 2 && st[0].Types[0].Acked == 1 &&
			st[0].Types[1].Nacks == 1 && st[0].Types[1].LastNack == "p: bad" && st[0].Types[1].Nacked == 1 && st[0].Types[1].Acked == 0
	})
	if n := obs.get("rejected"); n != 1 {
		t.Errorf("%d rejections counted, want 1", n)
	}
	src.set(s, set(res("p", "2")), nil)
	c.expect("policies +p")
	c.ack()
	eventually(t, "accepted generations catch up, also of the type that did not change", func() bool {
		st := s.Status()[0].Types
		return st[0].Acked == 2 && st[1].Acked == 2
	})
}

func TestASlowClientIsBroughtToTheNewestAtOnce(t *testing.T) {
	src := &fixed{}
	s := NewServer(ServerConfig{Logger: quiet, Source: src})
	open := listen(t, s)
	big := make([]byte, 1<<20) // fills the stream's window, so that sending waits
	version := string(big)
	src.set(s, nil, set(res("w", version)))
	slow, quick := &talk{t: t, clientStream: open()}, &talk{t: t, clientStream: open()}
	slow.wildcard()
	quick.wildcard()
	quick.expect("policies none", "workloads +w")
	slow.expect("policies none")
	for i := range 50 {
		version = string(append(big, byte(i)))
		src.set(s, nil, set(res("w", version)))
	}
	for { // the quick one may see several of the fifty
		if quick.expect("workloads +w"); quick.last.Resources[0].Version == version {
			break
		}
	}
	pushes := 0
	for {
		slow.expect("workloads +w")
		pushes++
		if slow.last.Resources[0].Version == version {
			break
		}
	}
	if pushes > 3 {
		t.Errorf("a client that did not read was sent %d of 51 generations, want at most 3", pushes)
	}
}

func TestStreamsAreRefused(t *testing.T) {
	for _, tt := range []struct {
		name  string
		cfg   ServerConfig
		first *discovery.DeltaDiscoveryRequest
		want  codes.Code
	}{
		{
			name:  "a caller that is not authenticated",
			cfg:   ServerConfig{Authenticate: func(context.Context) (string, error) { return "", grpcstatus.Error(codes.Unauthenticated, "who?") }},
			first: &discovery.DeltaDiscoveryRequest{Node: &core.Node{Id: "x"}},
			want:  codes.Unauthenticated,
		}, {
			name:  "a client that does not say who it is",
			first: &discovery.DeltaDiscoveryRequest{TypeUrl: TypeAddress},
			want:  codes.InvalidArgument,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.cfg.Source, tt.cfg.Logger = &fixed{}, quiet
			stream := listen(t, NewServer(tt.cfg))()
			_ = stream.Send(tt.first)
			if _, err := stream.Recv(); grpcstatus.Code(err) != tt.want {
				t.Errorf("got %v, want %v", err, tt.want)
			}
		})
	}
}

func TestCloseEndsStreams(t *testing.T) {
	s := NewServer(ServerConfig{Logger: quiet, Source: &fixed{}})
	c := &talk{t: t, clientStream: listen(t, s)()}
	c.wildcard()
	eventually(t, "the client is connected", func() bool { return len(s.Status()) == 1 })
	s.Close()
	s.Close()
	if _, err := c.Recv(); grpcstatus.Code(err) != codes.Unavailable {
		t.Errorf("got %v, want unavailable", err)
	}
}

// eventually waits for a condition that others bring about.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("did not come true: %s", what)
		}
	}
}

// counts is an Observer that counts.
type counts struct {
	mu sync.Mutex
	n  map[string]int
}

func (c *counts) add(what string, n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.n == nil {
		c.n = map[string]int{}
	}
	c.n[what] += n
}

func (c *counts) get(what string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.n[what]
}

func (c *counts) Connected(d int)           { c.add("connected", d) }
func (c *counts) Pushed(_ string, n, _ int) { c.add("pushed", n) }
func (c *counts) Rejected(string)           { c.add("rejected", 1) }
func (c *counts) Converged(time.Duration)   { c.add("converged", 1) }

// Bytes for one client are not much; for hundreds that come at once they are.
func TestWhatManyClientsGetIsEncodedOnce(t *testing.T) {
	src := &fixed{}
	s := NewServer(ServerConfig{Source: src, Logger: quiet})
	open := listen(t, s)
	src.set(s, set(res("p", "1")), set(res("w", "1"), res("v", "1")))
	clients := []*talk{{t: t, clientStream: open()}, {t: t, clientStream: open()}, {t: t, clientStream: open()}}
	for _, c := range clients {
		c.wildcard()
		c.expect("policies +p", "workloads +v +w")
	}
	encodings := func(what string, want int) {
		t.Helper()
		s.messages.mu.Lock()
		defer s.messages.mu.Unlock()
		if n := len(s.messages.last); n != want {
			t.Errorf("%s: %d encodings for three clients, want %d", what, n, want)
		}
	}
	encodings("the first state", 2)
	src.set(s, set(res("p", "1")), set(res("w", "2"), res("v", "1")))
	for _, c := range clients {
		c.expect("workloads +w")
	}
	encodings("a change", 1)
	late := &talk{t: t, clientStream: open()}
	late.ask(&discovery.DeltaDiscoveryRequest{TypeUrl: TypeAddress, InitialResourceVersions: map[string]string{"w": "1", "v": "1"}})
	late.ask(&discovery.DeltaDiscoveryRequest{TypeUrl: TypeAuthorization})
	late.expect("policies +p", "workloads +w")
	encodings("a client that holds something", 2)
}
