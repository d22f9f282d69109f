package h2

import (
	"encoding/binary"
	"fmt"
	"sync"
	"time"

	"golang.org/x/net/http2"
)

// keepalive probes a silent peer. Its timer's function never waits, so that it
// also finds out about a peer that reads nothing.
type keepalive struct {
	sentSettings time.Time // set before start

	mu      sync.Mutex
	timer   *time.Timer
	first   *time.Timer // server: waits for the first stream
	last    *time.Timer // server: ends the first step of a drain
	probing bool
	seq     uint64 // of the last ping sent
	sent    time.Time
	awaited int // pings without an answer
	drain   bool
	writes  int64     // at the last look
	stuck   time.Time // since when one write has not ended
	stopped bool
}

// drainSeq marks the ping of a drain.
const drainSeq = 1 << 63

func (k *keepalive) start(t *tunnel) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.stopped {
		k.timer = time.AfterFunc(t.tuning.PingInterval, t.probe)
	}
}

func (k *keepalive) stop() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.stopped = true
	for _, timer := range []*time.Timer{k.timer, k.first, k.last} {
		if timer != nil {
			timer.Stop()
		}
	}
}

// after runs f once, unless the tunnel ends before.
func (k *keepalive) after(timer **time.Timer, d time.Duration, f func()) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.stopped && *timer == nil {
		*timer = time.AfterFunc(d, f)
	}
}

// probe is the timer's function.
func (t *tunnel) probe() {
	k := &t.pings
	k.mu.Lock()
	defer k.mu.Unlock()
	stuck := t.stuckLocked(k, time.Now())
	switch {
	case k.stopped:
	case stuck:
		k.stopped = true
		k.mu.Unlock()
		t.fail(abuseError(AbuseDeaf, fmt.Sprintf("nothing was taken within %v", t.tuning.PingTimeout)))
		k.mu.Lock()
	case t.heard.Swap(false):
		k.probing = false
		k.timer.Reset(t.tuning.PingInterval)
	case k.probing:
		k.stopped = true
		err := fmt.Errorf("no answer to a ping within %v", t.tuning.PingTimeout)
		k.mu.Unlock()
		t.fail(err)
		k.mu.Lock()
	default:
		k.probing = true
		t.pingLocked(k, 0)
		k.timer.Reset(t.tuning.PingTimeout)
	}
}

// stuckLocked reports a peer that talks and reads nothing: nothing that we write
// reaches it, as no honest engine lets happen, whatever its applications do.
func (t *tunnel) stuckLocked(k *keepalive, now time.Time) bool {
	writes := t.writes.Load()
	if t.wmu.TryLock() {
		t.wmu.Unlock()
		t.wake()    // for who has seen it locked
		writes = -1 // nobody writes
	}
	if writes != k.writes || writes < 0 {
		k.writes, k.stuck = writes, now
		return false
	}
	return now.Sub(k.stuck) >= t.tuning.PingTimeout
}

func (t *tunnel) pingLocked(k *keepalive, mark uint64) {
	k.seq++
	k.awaited++
	k.drain = k.drain || mark != 0
	k.sent = time.Now()
	var data [8]byte
	binary.BigEndian.PutUint64(data[:], k.seq|mark)
	t.control(func(f *http2.Framer) { f.WritePing(false, data) })
}

// pingToDrain tells by its answer that the peer has seen the GOAWAY before it.
func (t *tunnel) pingToDrain() {
	t.pings.mu.Lock()
	defer t.pings.mu.Unlock()
	t.pingLocked(&t.pings, drainSeq)
}

// pong is the answer to a ping; false is one to none.
func (t *tunnel) pong(data [8]byte) bool {
	seq := binary.BigEndian.Uint64(data[:])
	k := &t.pings
	k.mu.Lock()
	if k.awaited == 0 {
		k.mu.Unlock()
		return false
	}
	k.awaited--
	drained := k.drain && seq&drainSeq != 0
	fresh, took := seq&^drainSeq == k.seq, time.Since(k.sent)
	if k.probing && !k.stopped {
		k.probing = false
		k.timer.Reset(t.tuning.PingInterval)
	}
	k.mu.Unlock()
	if fresh {
		t.sampleRTT(took)
	}
	if drained {
		t.goAwayFinally()
	}
	return true
}

// sampleRTT keeps the least seen: what lies above it is waiting, not distance.
func (t *tunnel) sampleRTT(d time.Duration) {
	if old := t.rttNanos.Load(); int64(d) < old || old == int64(unknownRTT) {
		t.rttNanos.Store(max(1, int64(d)))
	}
}

// unknownRTT stands until something was measured.
const unknownRTT = time.Millisecond
