package xds

import (
	"context"
	"log/slog"
	"sync"
	"time"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
)

// Peer is one connected client, as it described itself and as it was
// authenticated.
type Peer struct {
	// ID, Node and Cluster are the client's own words.
	ID, Node, Cluster string
	// Gateway is the name of the Gateway that a waypoint serves; its namespace
	// is the caller's. Empty for other clients.
	Gateway string
	// Caller is the authenticated name.
	Caller string
	// Addr is where it connected from.
	Addr string
}

// Source tells what clients should hold. It is called from every session, so
// it must be quick and safe for concurrent use.
type Source interface {
	// Snapshot is what the client should hold now, nil while nothing is known.
	Snapshot(Peer) *Snapshot
}

// Observer is told what the server does, for metrics. Its methods are called
// from every session.
type Observer interface {
	Connected(delta int)
	Pushed(typ string, resources, bytes int)
	Rejected(typ string)
	// Converged is the time from a change to its last byte given to a client.
	Converged(time.Duration)
}

// ServerConfig configures a Server.
type ServerConfig struct {
	// Source must be set.
	Source Source
	// Authenticate names the caller of a stream or refuses it with a gRPC
	// status; nil admits everyone.
	Authenticate func(ctx context.Context) (caller string, err error)
	// Late says that replacing a policy must wait until the workloads that
	// name it arrived, because it would otherwise apply to fewer of them for
	// a moment; nil never waits.
	Late LateFunc
	// Moves says which guards that are replaced with it a workload comes under,
	// and which it leaves: see Turns. Nil is none.
	Moves MoveFunc
	// StandIns keeps workloads that are stuck guarded meanwhile as they were. Nil
	// does not: what they leave may be replaced before.
	StandIns StandInFunc
	// Guards says which resources protect others: they arrive before those, and
	// leave after them; nil is every policy (TypeAuthorization).
	Guards func(typ, name string) bool
	// MaxMessage is the longest response that clients take: a longer one ends the
	// stream here, with the reason, since the client could not tell it from a lost
	// connection. 0 is 200 MiB.
	MaxMessage int
	// MaxNames is how many names of a type a client may ask for or say it holds;
	// 0 is a million.
	MaxNames int
	// Arriving is how many clients may be arriving at once: those that return name
	// all they hold, so that this bounds what their words take while they are read
	// and compared. The others wait unread. 0 is 4.
	Arriving int
	// Hold is how long the first answer waits for the client to have asked
	// for policies and workloads both, so that they can be ordered; 0 is 1 s.
	Hold time.Duration
	// Identifier is shown to clients as the control plane's name.
	Identifier string
	// Observer may be nil.
	Observer Observer
	// Logger is slog.Default() if nil.
	Logger *slog.Logger
}

// Server answers delta xDS streams from a Source. Policies reach a client
// before the workloads that name them, and leave after. A slow client holds
// back only itself: it gets the newest snapshot when it reads again.
type Server struct {
	cfg      ServerConfig
	differ   differ
	messages *messages
	done     chan struct{}
	arrivals chan struct{} // a place for each client that arrives

	mu       sync.Mutex
	sessions map[*session]struct{}
	closed   bool
}

// NewServer makes a server; Register it at a gRPC server.
func NewServer(cfg ServerConfig) *Server {
	if cfg.Hold == 0 {
		cfg.Hold = time.Second
	}
	if cfg.MaxMessage == 0 {
		cfg.MaxMessage = maxMessage
	}
	if cfg.MaxNames == 0 {
		cfg.MaxNames = 1_000_000
	}
	if cfg.Arriving == 0 {
		cfg.Arriving = 4
	}
	if cfg.Guards == nil {
		cfg.Guards = func(typ, _ string) bool { return typ == TypeAuthorization }
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	if cfg.Observer == nil {
		cfg.Observer = nobody{}
	}
	return &Server{
		cfg:      cfg,
		differ:   differ{late: cfg.Late},
		messages: newMessages(cfg.Identifier),
		done:     make(chan struct{}),
		arrivals: make(chan struct{}, cfg.Arriving),
		sessions: map[*session]struct{}{},
	}
}

// Register adds the discovery service to a gRPC server, which owns the
// goroutines of its streams.
func (s *Server) Register(g grpc.ServiceRegistrar) {
	discovery.RegisterAggregatedDiscoveryServiceServer(g, endpoint{srv: s})
}

// Notify says that the source has something new. It never blocks; a session
// that is busy sees it once when it is free.
func (s *Server) Notify() {
	s.differ.forget()
	s.messages.forget()
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.sessions {
		select {
		case c.wake <- struct{}{}:
		default: // it has not taken the last one yet and will see the newest
		}
	}
}

// Close ends all streams, so that clients go to another replica, and refuses
// new ones. The gRPC server's Stop waits for the handlers.
func (s *Server) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		s.closed = true
		close(s.done)
	}
}

func (s *Server) add(c *session) {
	s.mu.Lock()
	s.sessions[c] = struct{}{}
	s.mu.Unlock()
	s.cfg.Observer.Connected(1)
}

func (s *Server) remove(c *session) {
	s.mu.Lock()
	delete(s.sessions, c)
	s.mu.Unlock()
	s.cfg.Observer.Connected(-1)
}

// endpoint keeps the gRPC methods out of Server's API.
type endpoint struct {
	discovery.UnimplementedAggregatedDiscoveryServiceServer
	srv *Server
}

// nobody observes nothing.
type nobody struct{}

func (nobody) Connected(int)           {}
func (nobody) Pushed(string, int, int) {}
func (nobody) Rejected(string)         {}
func (nobody) Converged(time.Duration) {}

// peerOf reads what the client says of itself.
func peerOf(n *core.Node, caller, addr string) Peer {
	p := Peer{ID: n.GetId(), Caller: caller, Addr: addr}
	fields := n.GetMetadata().GetFields()
	p.Node = fields["NODE_NAME"].GetStringValue()
	p.Cluster = fields["CLUSTER_ID"].GetStringValue()
	p.Gateway = fields[MetadataGateway].GetStringValue()
	return p
}
