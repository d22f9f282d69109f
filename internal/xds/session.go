package xds

import (
	"errors"
	"io"
	"log/slog"
	"sync"
	"time"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
)

type deltaStream = discovery.AggregatedDiscoveryService_DeltaAggregatedResourcesServer

// maxTypes bounds what a client may make a session remember.
const maxTypes = 32

// pendingRequests is how many requests may wait while a session sends. A
// client's initial requests must all fit, or both sides could wait for each
// other: it need not read before it has asked.
const pendingRequests = 64

// session is one client's stream. Its goroutine is the gRPC handler's; only
// the fields under mu are read by others.
type session struct {
	srv      *Server
	stream   deltaStream
	log      *slog.Logger
	wake     chan struct{} // capacity 1
	requests chan *discovery.DeltaDiscoveryRequest
	readErr  error // set before requests is closed
	started  time.Time
	nonces   uint64
	arrived  func() // gives its place among those who arrive to the next

	mu   sync.Mutex
	peer Peer
	subs map[string]*subscription
	// order is the types in the order of their first request.
	order []string
}

// DeltaAggregatedResources serves one stream until it or the server ends.
func (e endpoint) DeltaAggregatedResources(stream deltaStream) error {
	s := e.srv
	caller := ""
	if s.cfg.Authenticate != nil {
		var err error
		if caller, err = s.cfg.Authenticate(stream.Context()); err != nil {
			return err
		}
	}
	c := &session{
		srv: s, stream: stream, log: s.cfg.Logger,
		wake:     make(chan struct{}, 1),
		requests: make(chan *discovery.DeltaDiscoveryRequest, pendingRequests),
		started:  time.Now(),
		subs:     map[string]*subscription{},
	}
	c.peer.Caller = caller
	if p, ok := peer.FromContext(stream.Context()); ok {
		c.peer.Addr = p.Addr.String()
	}
	if err := c.arrive(); err != nil {
		return err
	}
	defer c.arrived()
	// read ends when the stream's context does, which is at the latest when
	// this handler returns; gRPC offers no way to wait for it before.
	go c.read()
	if err := c.introduce(); err != nil {
		return err
	}
	s.add(c)
	defer s.remove(c)
	c.log.Info("client connected", "caller", caller, "addr", c.peer.Addr)
	err := c.run()
	c.log.Info("client disconnected", "reason", reason(err))
	return err
}

// arriveLimit is how long a client may keep others waiting until it has said what
// it holds. One that is slower is read on, beside the next.
const arriveLimit = 10 * time.Second

// arrive waits for a place among those whose first requests are read. It is given
// back once what the client holds has been compared, and does not wait for the
// client to take the answer.
func (c *session) arrive() error {
	select {
	case c.srv.arrivals <- struct{}{}:
	case <-c.stream.Context().Done():
		return c.stream.Context().Err()
	case <-c.srv.done:
		return errStopping
	}
	leave := sync.OnceFunc(func() { <-c.srv.arrivals })
	late := time.AfterFunc(arriveLimit, leave)
	c.arrived = func() { late.Stop(); leave() }
	return nil
}

// read moves requests from the stream to the session.
func (c *session) read() {
	defer close(c.requests)
	for {
		r, err := c.stream.Recv()
		if err != nil {
			c.readErr = err
			return
		}
		select {
		case c.requests <- r:
		case <-c.stream.Context().Done():
			c.readErr = c.stream.Context().Err()
			return
		}
	}
}

// introduce waits for the first request, which must say who the client is.
func (c *session) introduce() error {
	select {
	case r, ok := <-c.requests:
		if !ok {
			return c.ended()
		}
		if r.GetNode().GetId() == "" {
			return status.Error(codes.InvalidArgument, "the first request carries no node id")
		}
		c.peer = peerOf(r.GetNode(), c.peer.Caller, c.peer.Addr)
		c.log = c.log.With("client", c.peer.ID)
		return c.request(r)
	case <-c.srv.done:
		return errStopping
	}
}

var errStopping = status.Error(codes.Unavailable, "control plane is stopping")

// run answers requests and pushes what is new. Requests come first: they hold
// what the client already knows.
func (c *session) run() error {
	hold := time.NewTimer(c.srv.cfg.Hold)
	defer hold.Stop()
	held := true
	for {
		if err := c.drain(); err != nil {
			return err
		}
		if !held || c.complete() {
			held = false
			if err := c.push(); err != nil {
				return err
			}
		}
		select {
		case r, ok := <-c.requests:
			if !ok {
				return c.ended()
			}
			if err := c.request(r); err != nil {
				return err
			}
		case <-c.wake:
		case <-hold.C:
			held = false
		case <-c.srv.done:
			return errStopping
		}
	}
}

// drain takes the requests that are already there.
func (c *session) drain() error {
	for {
		select {
		case r, ok := <-c.requests:
			if !ok {
				return c.ended()
			}
			if err := c.request(r); err != nil {
				return err
			}
		default:
			return nil
		}
	}
}

// complete reports whether the client asked for the types that must be ordered:
// addresses and what guards them.
func (c *session) complete() bool {
	return c.subs[TypeAddress] != nil && (c.subs[TypeAuthorization] != nil || c.subs[TypeWaypoint] != nil)
}

// ended is the handler's result once the client's side is over.
func (c *session) ended() error {
	if errors.Is(c.readErr, io.EOF) {
		return nil
	}
	return c.readErr
}

// reason is what the log says of a stream's end.
func reason(err error) string {
	if err == nil {
		return "client left"
	}
	return status.Convert(err).Message()
}
