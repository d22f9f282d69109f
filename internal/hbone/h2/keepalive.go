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
	switch {
	case k.stopped:
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

func (t *tunnel) pingLocked(k *keepalive, mark uint64) {
	k.seq++
	k.sent = time.Now()
	var data [8]byte
	binary.BigEndian.PutUint64(data[:], k.seq|mark)
	t.control(func(f *http2.Framer) { f.WritePing(false, data) })
}

// ping measures the round trip.
func (t *tunnel) ping(mark uint64) {
	t.pings.mu.Lock()
	defer t.pings.mu.Unlock()
	t.pingLocked(&t.pings, mark)
}

// pong is the answer to a ping.
func (t *tunnel) pong(data [8]byte) {
	seq := binary.BigEndian.Uint64(data[:])
	k := &t.pings
	k.mu.Lock()
	fresh, took := seq&^drainSeq == k.seq, time.Since(k.sent)
	if k.probing && !k.stopped {
		k.probing = false
		k.timer.Reset(t.tuning.PingInterval)
	}
	k.mu.Unlock()
	if fresh {
		t.sampleRTT(took)
	}
	if seq&drainSeq != 0 {
		t.goAwayFinally()
	}
}

// sampleRTT keeps the least seen: what lies above it is waiting, not distance.
func (t *tunnel) sampleRTT(d time.Duration) {
	if old := t.rttNanos.Load(); int64(d) < old || old == int64(unknownRTT) {
		t.rttNanos.Store(max(1, int64(d)))
	}
}

// unknownRTT stands until something was measured.
const unknownRTT = time.Millisecond
