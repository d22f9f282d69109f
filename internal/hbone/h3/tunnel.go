package h3

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/ambit-mesh/ambit/internal/hbone"
	"github.com/ambit-mesh/ambit/internal/hbone/door"
	"github.com/ambit-mesh/ambit/internal/hbone/head"
)

// tunnel is one connection, on either end. It implements hbone.Tunnel.
type tunnel struct {
	// Set before the goroutines start.
	tuning  Tuning
	log     *slog.Logger
	report  *door.Report // nil: of no abuse
	conn    *quic.Conn
	peer    hbone.Peer
	client  bool
	handler hbone.Handler // server
	offered bool          // server: handler takes CONNECT-UDP
	release func()        // client: closes the socket
	silence time.Duration // client: see Config
	silent  func(why error)
	ctx     context.Context
	cancel  context.CancelFunc
	work    sync.WaitGroup // what reads the peer's unidirectional streams, and what empties ended ones
	serving sync.WaitGroup // server: handlers, and what accepts streams
	closing sync.Once

	// The control stream, under cmu.
	cmu     sync.Mutex
	control *quic.SendStream

	// State, under mu.
	mu          sync.Mutex
	streams     map[quic.StreamID]*stream // open in the protocol's sense
	untaken     map[*stream]bool          // which the peer has ended and nobody has read to the end
	capacity    int
	peerHeaders uint32        // longest header list the peer takes
	extended    bool          // the peer takes CONNECT-UDP
	nextID      quic.StreamID // server: the lowest not seen
	opening     int           // client: streams about to be in streams
	begun       int           // server: streams that came
	running     int           // server: handlers not yet returned
	draining    bool          // by us
	leaving     bool          // the peer said GOAWAY
	said, heard bool          // that nothing is missing; see leave.go
	isDone      bool
	calm        door.Meter
	err         error       // why it ended
	linger      *time.Timer // ends a tunnel whose peer does not say so
	first       *time.Timer // server: waits for the first stream

	datagrams atomic.Bool // the peer takes them in packets

	settled chan struct{} // closed by the peer's SETTINGS
	done    chan struct{} // takes no new streams
	ended_  chan struct{} // closed by fail
}

var _ hbone.Tunnel = (*tunnel)(nil)

func newTunnel(c *quic.Conn, peer hbone.Peer, tuning Tuning, client bool) *tunnel {
	t := &tunnel{
		tuning: tuning, log: tuning.Logger, conn: c, peer: peer, client: client,
		release: func() {}, calm: door.NewMeter(meterBurst, meterRate),
		streams: map[quic.StreamID]*stream{}, untaken: map[*stream]bool{},
		capacity: tuning.MaxStreams, peerHeaders: head.ServerLimit,
		settled: make(chan struct{}), done: make(chan struct{}), ended_: make(chan struct{}),
	}
	t.ctx, t.cancel = context.WithCancel(context.Background())
	return t
}

// start sends our SETTINGS and listens to the peer's.
func (t *tunnel) start() {
	context.AfterFunc(t.conn.Context(), func() { t.fail(context.Cause(t.conn.Context())) })
	t.work.Go(t.acceptUni)
	t.work.Go(t.receiveDatagrams)
	if !t.client {
		t.serving.Go(t.accept)
	}
	if err := t.sendSettings(); err != nil {
		t.fail(err)
	}
}

// fail ends the tunnel at once, for the first reason given. It is never called
// by quic-go's own goroutine, for which closing a connection waits.
func (t *tunnel) fail(err error) {
	t.mu.Lock()
	if t.err != nil {
		t.mu.Unlock()
		return
	}
	t.err = err
	t.doneLocked()
	close(t.ended_)
	for _, timer := range []*time.Timer{t.linger, t.first} {
		if timer != nil {
			timer.Stop()
		}
	}
	streams := make([]*stream, 0, len(t.streams))
	for _, s := range t.streams {
		streams = append(streams, s)
	}
	t.mu.Unlock()
	for _, s := range streams {
		s.tunnelEnded(err)
	}
	if errors.Is(err, hbone.ErrClosed) {
		t.cancel() // cut also what only delivers what it has
	}
	t.hangUp()
	t.tell(err)
}

// hangUp closes the connection, and a client's socket, or waits for who does.
func (t *tunnel) hangUp() {
	t.closing.Do(func() {
		reason, err := "", t.reason()
		if ce, ok := errors.AsType[*connError](err); ok {
			reason = ce.reason
		}
		t.conn.CloseWithError(quic.ApplicationErrorCode(codeOf(err)), reason)
		t.release()
	})
}

// spawn runs what ends with the tunnel, which Close then waits for.
func (t *tunnel) spawn(f func()) {
	t.mu.Lock()
	over := t.err != nil
	if !over {
		t.work.Go(f)
	}
	t.mu.Unlock()
	if over {
		f()
	}
}

// cut is fail, and ends also what only delivers what it has.
func (t *tunnel) cut(err error) {
	t.fail(err)
	t.cancel()
}

// reason is why the tunnel ended, or is just about to.
func (t *tunnel) reason() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.err != nil {
		return t.err
	}
	return context.Cause(t.conn.Context())
}

// lost is what a stream's users get when the tunnel has ended.
func lost(err error) error {
	if err == nil || errors.Is(err, hbone.ErrClosed) || errors.Is(err, hbone.ErrReset) {
		return err
	}
	return fmt.Errorf("%w: tunnel lost: %w", hbone.ErrReset, err)
}

// errMoved ends a tunnel whose peer has another address than at its beginning,
// for which it was let in.
var errMoved = errors.New("the peer has moved to another address")

// moved ends the tunnel if its peer has moved. It is asked before a byte is given
// to an application and before one of its is taken: quic-go tells of a new path
// in no other way, and of no option of a server's to refuse one.
func (t *tunnel) moved() error {
	if now := addrPort(t.conn.RemoteAddr()); now.Addr() != t.peer.Remote.Addr() {
		t.fail(fmt.Errorf("%w: %s", errMoved, now))
		return lost(errMoved)
	}
	return nil
}

// ended notes that a half of s has ended in the protocol's sense, and forgets
// the stream when both have.
func (t *tunnel) ended(s *stream, sent, got bool) {
	t.mu.Lock()
	s.sentEnd = s.sentEnd || sent
	if got && !s.gotEnd {
		s.gotEnd = true
		if !s.taken {
			t.untaken[s] = true
		}
	}
	gone := s.sentEnd && s.gotEnd && !s.gone
	if gone {
		s.gone = true
		delete(t.streams, s.q.StreamID())
	}
	t.mu.Unlock()
	if gone {
		close(s.over)
	}
	t.leave()
}

// taken notes that nothing of s is left to be read from the connection.
func (t *tunnel) taken(s *stream) {
	t.mu.Lock()
	s.taken = true
	delete(t.untaken, s)
	t.mu.Unlock()
	t.ended(s, false, true)
}

func (t *tunnel) doneLocked() {
	if !t.isDone {
		t.isDone = true
		close(t.done)
	}
}

// Peer implements hbone.Tunnel.
func (t *tunnel) Peer() hbone.Peer { return t.peer }

// Done implements hbone.Tunnel.
func (t *tunnel) Done() <-chan struct{} { return t.done }

// Streams implements hbone.Tunnel.
func (t *tunnel) Streams() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.streams)
}

// Capacity implements hbone.Tunnel.
func (t *tunnel) Capacity() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.capacity
}

// Close implements hbone.Tunnel. It waits for the tunnel's own goroutines.
func (t *tunnel) Close() error {
	t.fail(hbone.ErrClosed)
	t.hangUp()
	t.work.Wait()
	return nil
}
