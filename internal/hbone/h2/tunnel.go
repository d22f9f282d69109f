package h2

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

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
	peer    hbone.Peer
	tls     secured
	wire    *wire
	client  bool
	handler hbone.Handler // server
	offered bool          // server: handler takes CONNECT-UDP
	// requestOf reads a server's requests; tests of HTTP/2 itself put another in
	// its place.
	requestOf func(*head.Block) (r hbone.Request, status int, reason, malformed string)
	ctx       context.Context // of all streams; outlives a lost tunnel while handlers deliver what had come
	cancel    context.CancelFunc
	work      sync.WaitGroup // reader and flusher
	serving   sync.WaitGroup // handlers

	// The reading half belongs to the reader; see read.go.
	fr     *http2.Framer
	dec    *hpack.Decoder
	window int // what the peer may still send
	credit int
	calm   door.Meter
	acked  bool // the peer has acknowledged our SETTINGS
	// The last streams that the peer ended: it knows that they have.
	endedByPeer [32]uint32
	endedNext   int

	// The writing half, under wmu; see write.go.
	wmu  sync.Mutex
	werr error

	// Frames other than DATA wait here for the next writer; under cmu.
	cmu     sync.Mutex
	ctl     bytes.Buffer
	cf      *http2.Framer // writes to ctl
	hbuf    bytes.Buffer
	enc     *hpack.Encoder // writes to hbuf
	pending atomic.Bool    // ctl is not empty
	kick    chan struct{}  // wakes the flusher

	// State, under mu.
	mu          sync.Mutex
	streams     map[uint32]*stream
	nextID      uint32 // client: of the next stream
	lastID      uint32 // server: highest stream seen
	goAwayID    uint32 // server: streams above are ignored
	sendWindow  int64
	starved     []*stream // wait for sendWindow
	peerWindow  int64     // initial window of a stream
	peerMax     int       // longest payload the peer takes
	capacity    int
	peerHeaders uint32 // longest header list the peer takes
	extended    bool   // the peer takes CONNECT-UDP (RFC 8441)
	running     int    // server: handlers not yet returned
	draining    bool   // by us
	peerLeft    bool   // the peer said GOAWAY
	isDone      bool
	err         error // why it ended

	earned   atomic.Int64 // frames that the peer may send in answer to ours
	unread   atomic.Int64 // bytes of buffers that wait for applications
	writes   atomic.Int64 // to the socket
	growth   atomic.Int64 // budget for windows beyond their first size
	rttNanos atomic.Int64
	heard    atomic.Bool // something came since the last look
	pings    keepalive
	settled  chan struct{} // closed by the peer's first SETTINGS
	emptied  chan struct{} // closed when draining and no stream is left
	done     chan struct{} // takes no new streams
	ended_   chan struct{} // closed by fail
}

var _ hbone.Tunnel = (*tunnel)(nil)

// secured is what a tunnel needs of its *tls.Conn.
type secured interface {
	io.ReadWriter
	CloseWrite() error
}

const maxStreamID = math.MaxInt32

func newTunnel(c secured, w *wire, tuning Tuning, client bool) *tunnel {
	t := &tunnel{
		tuning: tuning, tls: c, wire: w, client: client,
		log:       tuning.Logger,
		requestOf: (*head.Block).Request,
		dec:       hpack.NewDecoder(4096, nil),
		window:    tuning.Window,
		calm:      door.NewMeter(meterBurst, meterRate),
		kick:      make(chan struct{}, 1),

		streams: map[uint32]*stream{}, nextID: 1,
		goAwayID:   maxStreamID,
		sendWindow: 65535, peerWindow: 65535,
		peerMax:  recordLen - frameHeaderLen,
		capacity: tuning.MaxStreams, peerHeaders: head.ServerLimit,

		settled: make(chan struct{}), emptied: make(chan struct{}),
		done: make(chan struct{}), ended_: make(chan struct{}),
	}
	t.growth.Store(int64(tuning.Window))
	t.rttNanos.Store(int64(unknownRTT))
	t.cf = http2.NewFramer(&t.ctl, nil)
	t.enc = hpack.NewEncoder(&t.hbuf)
	t.fr = http2.NewFramer(nil, c)
	t.fr.SetMaxReadFrameSize(frameLen)
	t.ctx, t.cancel = context.WithCancel(context.Background())
	return t
}

// start sends our SETTINGS and runs the reader and the flusher.
func (t *tunnel) start() {
	t.pings.sentSettings = time.Now()
	t.cmu.Lock()
	if t.client {
		t.ctl.WriteString(http2.ClientPreface)
	}
	t.cf.WriteSettings(t.settings()...)
	if more := t.tuning.Window - 65535; more > 0 {
		t.cf.WriteWindowUpdate(0, uint32(more))
	}
	t.pending.Store(true)
	t.cmu.Unlock()
	t.work.Go(t.flushLoop)
	t.tuning.Unread.add(t)
	t.work.Go(func() {
		t.fail(t.read())
		t.tuning.Unread.remove(t)
		t.linger()
	})
	t.wake()
	t.pings.start(t)
}

func (t *tunnel) settings() []http2.Setting {
	s := []http2.Setting{
		{ID: http2.SettingInitialWindowSize, Val: uint32(t.tuning.StreamWindow)},
		{ID: http2.SettingMaxFrameSize, Val: frameLen},
		{ID: http2.SettingMaxHeaderListSize, Val: t.maxHeaderList()},
	}
	if t.client {
		return append(s, http2.Setting{ID: http2.SettingEnablePush, Val: 0})
	}
	s = append(s, http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: uint32(t.tuning.MaxStreams)})
	if t.offered {
		s = append(s, http2.Setting{ID: http2.SettingEnableConnectProtocol, Val: 1})
	}
	return s
}

// fail ends the tunnel at once, for the first reason given.
func (t *tunnel) fail(err error) {
	t.mu.Lock()
	if t.err != nil {
		t.mu.Unlock()
		return
	}
	t.err = err
	t.doneLocked()
	close(t.ended_)
	streams := make([]*stream, 0, len(t.streams))
	for _, s := range t.streams {
		streams = append(streams, s)
	}
	t.mu.Unlock()
	t.pings.stop()
	hoard := abuseOf(err) == AbuseHoard
	if !hoard { // or first what is needed at once
		t.hangUp(err)
	}
	for _, s := range streams {
		s.tunnelEnded(err)
	}
	if hoard || errors.Is(err, hbone.ErrClosed) {
		t.cancel() // cut also what only delivers what it has
	}
	if hoard {
		t.hangUp(err)
	}
	t.tell(err)
}

// tell logs how the tunnel ended.
func (t *tunnel) tell(err error) {
	if abuse := abuseOf(err); abuse != "" {
		t.report.Add(abuse, "peer cut off", keyPeer, t.peer.ID, keyRemote, t.peer.Remote, keyReason, err)
	} else if !errors.Is(err, hbone.ErrClosed) {
		t.log.Debug("tunnel lost", keyPeer, t.peer.ID, keyRemote, t.peer.Remote, "err", err)
	}
}

// cut is fail, and ends also what only delivers what it has.
func (t *tunnel) cut(err error) {
	t.fail(err)
	t.cancel()
}

// hangUp says why, if that needs no waiting, and leaves it to the reader to
// close the socket after lingering; Close does not wait for that.
func (t *tunnel) hangUp(err error) {
	if !t.sayGoodbye(codeOf(err)) || t.wire.raw == nil {
		t.wire.Close()
		return
	}
	t.wire.SetReadDeadline(time.Now().Add(lingering))
	if c, ok := t.wire.Conn.(interface{ CloseWrite() error }); ok {
		c.CloseWrite()
	}
}

// sayGoodbye waits for its turn to write only where the peer needs to be told.
func (t *tunnel) sayGoodbye(code http2.ErrCode) bool {
	t.wire.SetWriteDeadline(time.Now().Add(lingering))
	if code != http2.ErrCodeNo {
		t.wmu.Lock()
	} else if !t.wmu.TryLock() {
		return false
	}
	defer t.wmu.Unlock()
	t.cmu.Lock()
	t.cf.WriteGoAway(t.processed(), code, nil)
	t.cmu.Unlock()
	t.pending.Store(true)
	return t.writeControlLocked() == nil && t.tls.CloseWrite() == nil
}

// lingering bounds the last words.
const lingering = time.Second

// linger reads on for a while and closes the socket then: a socket closed with
// bytes unread sends a reset, which overtakes the GOAWAY.
func (t *tunnel) linger() {
	defer t.wire.Close()
	b := getSmall()
	defer smallBufs.Put(b)
	for n := 0; n < 4<<20; {
		m, err := t.wire.Conn.Read(b[:])
		if err != nil {
			return
		}
		n += m
	}
}

func (t *tunnel) processed() uint32 {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.client {
		return 0
	}
	return min(t.lastID, t.goAwayID)
}

func codeOf(err error) http2.ErrCode {
	if ce, ok := errors.AsType[*connError](err); ok {
		return ce.code
	}
	return http2.ErrCodeNo
}

// tunnelEnded gives the stream's users their error. What had arrived may still
// be read.
func (s *stream) tunnelEnded(err error) {
	defer s.t.ended(s, true, true)
	hoard := abuseOf(err) == AbuseHoard
	if !hoard && s.whole() {
		return // its END_STREAM is just being written: it ended well
	}
	if !errors.Is(err, hbone.ErrClosed) && !errors.Is(err, hbone.ErrReset) {
		err = fmt.Errorf("%w: tunnel lost: %w", hbone.ErrReset, err)
	}
	if hoard {
		s.endReceive(err, true) // it is what is unread that must go
	}
	s.breakReceive(err)
	s.t.mu.Lock()
	s.endSendLocked(err)
	s.t.mu.Unlock()
	if s.cancel != nil {
		s.cancel()
	}
}

// whole says that both ends have said their END_STREAM.
func (s *stream) whole() bool {
	s.t.mu.Lock()
	defer s.t.mu.Unlock()
	return s.gotEnd && errors.Is(s.serr, errSentEnd)
}

// ended notes that a half of s has ended in the protocol's sense, and forgets
// the stream when both have.
func (t *tunnel) ended(s *stream, sent, got bool) {
	t.mu.Lock()
	s.sentEnd = s.sentEnd || sent
	s.gotEnd = s.gotEnd || got
	gone := s.sentEnd && s.gotEnd && !s.gone
	if gone {
		s.gone = true
		s.writeBy.stopLocked()
		delete(t.streams, s.id)
	}
	last := t.checkEmptyLocked()
	t.mu.Unlock()
	if gone {
		s.finished()
	}
	if last {
		t.fail(hbone.ErrClosed)
	}
}

// checkEmptyLocked tells Drain that the last stream has ended. True says that
// the peer is leaving and nobody here waits to close the tunnel.
func (t *tunnel) checkEmptyLocked() bool {
	if len(t.streams) > 0 || t.running > 0 {
		return false
	}
	if t.draining {
		select {
		case <-t.emptied:
		default:
			close(t.emptied)
		}
	}
	return t.peerLeft && !t.draining
}

func (t *tunnel) doneLocked() {
	if !t.isDone {
		t.isDone = true
		close(t.done)
	}
}

// drainLocked takes no new streams from our side.
func (t *tunnel) drainLocked() {
	t.draining = true
	t.doneLocked()
	t.checkEmptyLocked()
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
	t.wire.Close()
	t.work.Wait()
	return nil
}

func (t *tunnel) rtt() time.Duration { return time.Duration(t.rttNanos.Load()) }
