package xds

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"runtime/metrics"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/proto"
)

// counted is a Source that takes its time, and a server's stream that is looked
// at: how many clients have been read whose words were not compared yet.
type counted struct {
	snap  *Snapshot
	takes time.Duration

	mu         sync.Mutex
	read, done map[string]bool // by address
	most       int
}

func (c *counted) Snapshot(p Peer) *Snapshot {
	time.Sleep(c.takes)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.done[p.ID] = true
	return c.snap
}

func (c *counted) took(id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.read[id] = true
	c.most = max(c.most, len(c.read)-len(c.done))
}

// looked tells a counted what the server has read.
type looked struct {
	grpc.ServerStream
	by *counted
}

func (l looked) RecvMsg(m any) error {
	err := l.ServerStream.RecvMsg(m)
	if r, ok := m.(*discovery.DeltaDiscoveryRequest); ok && err == nil && r.GetNode() != nil {
		l.by.took(r.GetNode().GetId())
	}
	return err
}

// crowd serves s to many clients in memory.
func crowd(t testing.TB, s *Server, opts ...grpc.ServerOption) (open func(context.Context, ...grpc.CallOption) (clientStream, error), stop func()) {
	t.Helper()
	l, g := bufconn.Listen(1<<16), grpc.NewServer(append(opts, grpc.WaitForHandlers(true))...)
	s.Register(g)
	var served sync.WaitGroup
	served.Go(func() { g.Serve(l) })
	conn, err := grpc.NewClient("passthrough:///mesh", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithStaticStreamWindowSize(1<<16), grpc.WithStaticConnWindowSize(1<<24), // see listen
		grpc.WithContextDialer(func(context.Context, string) (net.Conn, error) { return l.Dial() }))
	if err != nil {
		t.Fatal(err)
	}
	return func(ctx context.Context, opts ...grpc.CallOption) (clientStream, error) {
			return discovery.NewAggregatedDiscoveryServiceClient(conn).DeltaAggregatedResources(ctx, opts...)
		}, func() {
			conn.Close()
			s.Close()
			g.Stop()
			served.Wait()
		}
}

// returns says what a proxy of a name holds, of both types.
func returns(id string, held map[string]string) []*discovery.DeltaDiscoveryRequest {
	node := &core.Node{Id: id}
	return []*discovery.DeltaDiscoveryRequest{
		{Node: node, TypeUrl: TypeAddress, InitialResourceVersions: held},
		{Node: node, TypeUrl: TypeAuthorization},
	}
}

// TestOfManyWhoReturnFewAreReadAtOnce: the others wait with their words unread,
// and all are served in the end.
func TestOfManyWhoReturnFewAreReadAtOnce(t *testing.T) {
	const clients, atOnce = 200, 3
	synctest.Test(t, func(t *testing.T) {
		held := map[string]string{"w/gone": "1"}
		src := &counted{takes: 50 * time.Millisecond, read: map[string]bool{}, done: map[string]bool{},
			snap: &Snapshot{Generation: 1, Types: map[string]Resources{TypeAddress: {"w/new": {Name: "w/new", Version: "1", Body: []byte("1")}}}}}
		s := NewServer(ServerConfig{Source: src, Logger: quiet, Arriving: atOnce})
		open, stop := crowd(t, s, grpc.StreamInterceptor(func(srv any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, h grpc.StreamHandler) error {
			return h(srv, looked{stream, src})
		}))
		defer stop()
		var all sync.WaitGroup
		var served atomic.Int32
		for n := range clients {
			all.Go(func() {
				stream, err := open(t.Context())
				if err != nil {
					t.Error(err)
					return
				}
				for _, r := range returns(fmt.Sprint("z", n), maps.Clone(held)) {
					if err := stream.Send(r); err != nil {
						t.Error(err)
						return
					}
				}
				for {
					r, err := stream.Recv()
					if err != nil {
						t.Error(err)
						return
					}
					if len(r.Resources) == 1 && len(r.RemovedResources) == 1 {
						served.Add(1)
						return
					}
				}
			})
		}
		all.Wait()
		if src.most > atOnce || src.most == 0 || served.Load() != clients {
			t.Errorf("%d were read at once, want %d at the most; %d of %d were served", src.most, atOnce, served.Load(), clients)
		}
	})
}

// TestWhoIsSlowDoesNotKeepOthersWaitingForLong: neither who says nothing, nor who
// does not take its answer, nor who leaves while it waits.
func TestWhoIsSlowDoesNotKeepOthersWaitingForLong(t *testing.T) {
	large := Resources{"w/large": {Name: "w/large", Version: "1", Body: make([]byte, 1<<20)}}
	for _, tt := range []struct {
		sentence string
		before   func(t *testing.T, open func(context.Context, ...grpc.CallOption) (clientStream, error)) error
		within   time.Duration
	}{
		{"nobody", func(*testing.T, func(context.Context, ...grpc.CallOption) (clientStream, error)) error { return nil }, 0},
		{"one that says nothing", func(t *testing.T, open func(context.Context, ...grpc.CallOption) (clientStream, error)) error {
			_, err := open(t.Context())
			return err
		}, arriveLimit},
		{"one that does not read", func(t *testing.T, open func(context.Context, ...grpc.CallOption) (clientStream, error)) error {
			stream, err := open(t.Context())
			for _, r := range returns("deaf", nil) {
				err = errors.Join(err, stream.Send(r))
			}
			return err
		}, 0},
		{"one that says nothing, and one that left while it waited for that", func(t *testing.T, open func(context.Context, ...grpc.CallOption) (clientStream, error)) error {
			_, err := open(t.Context())
			synctest.Wait()
			ctx, cancel := context.WithCancel(t.Context())
			_, other := open(ctx)
			synctest.Wait()
			cancel()
			return errors.Join(err, other)
		}, arriveLimit},
	} {
		t.Run(tt.sentence, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				src := &fixed{snap: &Snapshot{Generation: 1, Types: map[string]Resources{TypeAddress: large}}}
				s := NewServer(ServerConfig{Source: src, Logger: quiet, Arriving: 1})
				open, stop := crowd(t, s)
				defer stop()
				if err := tt.before(t, open); err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				began := time.Now()
				stream, err := open(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				for _, r := range returns("next", nil) {
					if err := stream.Send(r); err != nil {
						t.Fatal(err)
					}
				}
				if _, err := stream.Recv(); err != nil {
					t.Fatal(err)
				}
				if took := time.Since(began); took != tt.within {
					t.Errorf("the next one is answered after %v, want %v", took, tt.within)
				}
			})
		})
	}
}

// wordsOnce is a codec by which many clients send the bytes of one request, so
// that what is measured is the server's.
type wordsOnce struct{ encoding.CodecV2 }

type words []byte

func (c wordsOnce) Marshal(v any) (mem.BufferSlice, error) {
	if w, ok := v.(words); ok {
		return mem.BufferSlice{mem.SliceBuffer(w)}, nil
	}
	return c.CodecV2.Marshal(v)
}

// BenchmarkTheReturnOfMany is 200 proxies that come back at once and name 100,000
// workloads each: the most memory that the process takes meanwhile.
func BenchmarkTheReturnOfMany(b *testing.B) {
	const clients, names = 200, 100_000
	held, has := map[string]string{}, Resources{}
	for n := range names {
		name := fmt.Sprintf("Kubernetes//Pod/namespace-%d/deployment-name-%d-7d9c8b6f5-x2x2x", n%1000, n)
		held[name] = "0123456789abcdef"
		has[name] = &Resource{Name: name, Version: held[name]}
	}
	var said []words
	for _, r := range returns("z", held) {
		text, err := proto.Marshal(r)
		if err != nil {
			b.Fatal(err)
		}
		said = append(said, text)
	}
	held = nil
	for _, atOnce := range []int{0, clients} {
		b.Run(fmt.Sprintf("arriving=%d", atOnce), func(b *testing.B) {
			for b.Loop() {
				src := &fixed{snap: &Snapshot{Generation: 1, Types: map[string]Resources{TypeAddress: has}}}
				s := NewServer(ServerConfig{Source: src, Logger: quiet, Arriving: atOnce})
				open, stop := crowd(b, s, grpc.MaxRecvMsgSize(32<<20), grpc.StaticStreamWindowSize(1<<17))
				most := watchMemory(b)
				var all sync.WaitGroup
				for range clients {
					all.Go(func() {
						stream, err := open(b.Context(), grpc.ForceCodecV2(wordsOnce{encoding.GetCodecV2("proto")}))
						for _, w := range said {
							if err == nil {
								err = stream.SendMsg(w)
							}
						}
						for range said {
							if err == nil {
								_, err = stream.Recv()
							}
						}
						if err != nil {
							b.Error(err)
						}
					})
				}
				all.Wait()
				b.ReportMetric(most(), "MB")
				stop()
			}
		})
	}
}

// watchMemory gives the most memory of the heap until it is asked.
func watchMemory(b *testing.B) func() float64 {
	ask, answer := make(chan struct{}), make(chan float64)
	go func() {
		sample := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
		most := 0.0
		tick := time.NewTicker(2 * time.Millisecond)
		defer tick.Stop()
		for {
			metrics.Read(sample)
			most = max(most, float64(sample[0].Value.Uint64())/(1<<20))
			select {
			case <-tick.C:
			case <-ask:
				answer <- most
				return
			}
		}
	}()
	return func() float64 { close(ask); return <-answer }
}
