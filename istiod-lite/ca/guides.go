package ca

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/ambit-mesh/ambit/internal/certs"
	pb "github.com/ambit-mesh/ambit/internal/wire/trustpb"
	"github.com/ambit-mesh/ambit/istiod-lite/rotation"
)

// Guides tells connected proxies which roots to trust, and hears how far each
// is. It is safe for concurrent use.
type Guides struct {
	heard chan struct{} // capacity 1: somebody said something else
	done  chan struct{}

	mu     sync.Mutex
	trust  certs.Trust
	fresh  chan struct{} // closed when trust is replaced
	live   map[*follower]struct{}
	closed bool
}

// follower is one connected proxy; standing is nil until its first word.
type follower struct {
	member   rotation.Member
	standing *certs.Standing
}

// NewGuides makes one that tells nothing before Tell.
func NewGuides() *Guides {
	return &Guides{
		heard: make(chan struct{}, 1), done: make(chan struct{}),
		fresh: make(chan struct{}), live: map[*follower]struct{}{},
	}
}

// Tell gives connected proxies another trust.
func (g *Guides) Tell(t certs.Trust) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.trust = t
	close(g.fresh)
	g.fresh = make(chan struct{})
}

// Heard is sent to when a proxy said something else or has left.
func (g *Guides) Heard() <-chan struct{} { return g.heard }

// Standings are those of connected proxies, by the UID of their pod.
func (g *Guides) Standings() map[string]Standing {
	g.mu.Lock()
	defer g.mu.Unlock()
	out := map[string]Standing{}
	for f := range g.live {
		if s := (Standing{Member: f.member, Standing: f.standing}); f.standing != nil || out[f.member.ID].Standing == nil {
			out[f.member.ID] = s
		}
	}
	return out
}

// Standing is what a connected proxy has told, nil for nothing yet.
type Standing struct {
	rotation.Member
	*certs.Standing
}

// Close ends all streams and refuses new ones.
func (g *Guides) Close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.closed {
		g.closed = true
		close(g.done)
	}
}

// Follow tells a proxy, and is told by it in words, until either ends.
func (g *Guides) Follow(ctx context.Context, m rotation.Member, words <-chan certs.Standing, tell func(certs.Trust) error) error {
	f := &follower{member: m}
	g.change(func() { g.live[f] = struct{}{} })
	defer g.change(func() { delete(g.live, f) })
	var last chan struct{}
	for {
		g.mu.Lock()
		trust, fresh := g.trust, g.fresh
		g.mu.Unlock()
		if trust.Epoch > 0 && fresh != last {
			if err := tell(trust); err != nil {
				return err
			}
			last = fresh
		}
		select {
		case s, ok := <-words:
			if !ok {
				return nil
			}
			g.change(func() { f.standing = &s })
		case <-fresh:
		case <-g.done:
			return status.Error(codes.Unavailable, "control plane is stopping")
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// change changes what is live and says so.
func (g *Guides) change(f func()) {
	g.mu.Lock()
	f()
	g.mu.Unlock()
	select {
	case g.heard <- struct{}{}:
	default:
	}
}

// Serve adds the stream to a gRPC server. Callers are whose standing counts;
// member finds who they are.
func (g *Guides) Serve(r grpc.ServiceRegistrar, a Authenticator, member func(Caller) (rotation.Member, error)) {
	r.RegisterService(&grpc.ServiceDesc{
		ServiceName: certs.TrustService, HandlerType: (*any)(nil), Metadata: "trustpb/trust.proto",
		Streams: []grpc.StreamDesc{{
			StreamName: certs.TrustStream.StreamName, ServerStreams: true, ClientStreams: true,
			Handler: func(_ any, stream grpc.ServerStream) error {
				caller, err := CallerOf(stream.Context(), a)
				if err != nil {
					return answer(Unauthentic, err)
				}
				m, err := member(caller)
				if err != nil {
					return status.Error(codes.PermissionDenied, err.Error())
				}
				return g.stream(m, stream)
			},
		}},
	}, g)
}

func (g *Guides) stream(m rotation.Member, stream grpc.ServerStream) error {
	words := make(chan certs.Standing)
	// It ends with the stream's context, at the latest when the handler returns.
	go func() {
		defer close(words)
		for {
			msg := &pb.Standing{}
			if stream.RecvMsg(msg) != nil {
				return
			}
			select {
			case words <- certs.StandingOf(msg):
			case <-stream.Context().Done():
				return
			}
		}
	}()
	err := g.Follow(stream.Context(), m, words, func(t certs.Trust) error { return stream.SendMsg(certs.BundleOf(t)) })
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// roots are fingerprints as the rule of rotation calls them.
func rootsOf(fingerprints []string) []rotation.Root {
	out := make([]rotation.Root, len(fingerprints))
	for i, f := range fingerprints {
		out[i] = rotation.Root(f)
	}
	return out
}

// said is a standing as the rule of rotation sees it.
func said(s *certs.Standing) rotation.Standing {
	out := rotation.Standing{Epoch: s.Epoch, Trusts: rootsOf(s.Trusts), File: rootsOf(s.File), HasFile: s.File != nil}
	held := map[rotation.Root]bool{}
	for _, h := range s.Holds {
		held[rotation.Root(h.Root)] = true
	}
	out.Holds = slices.Sorted(maps.Keys(held))
	return out
}
