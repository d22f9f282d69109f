package h2

import (
	"fmt"

	"golang.org/x/net/http2"

	"github.com/ambit-mesh/ambit/internal/hbone"
)

// Everything but DATA is encoded into ctl under cmu and sent by whoever holds
// wmu next: the flusher, which control wakes, or a stream that is writing. So
// the reader answers without ever waiting for the network, and an answer often
// shares a record with DATA.

// maxControl is how many bytes may wait before the peer, which then provokes
// answers and does not read them, is cut off.
const maxControl = 256 << 10

// control queues the frames that encode writes. It never waits.
func (t *tunnel) control(encode func(*http2.Framer)) {
	t.cmu.Lock()
	encode(t.cf)
	t.pending.Store(true)
	t.cmu.Unlock()
	t.wake()
}

// heeded is asked after each frame: whoever it was that queued an answer, the
// peer sends no more until it has read.
func (t *tunnel) heeded() error {
	if !t.pending.Load() {
		return nil
	}
	t.cmu.Lock()
	defer t.cmu.Unlock()
	if t.ctl.Len() > maxControl {
		return abuseError(AbuseDeaf, fmt.Sprintf("%d bytes wait", t.ctl.Len()))
	}
	return nil
}

func (t *tunnel) wake() {
	select {
	case t.kick <- struct{}{}:
	default:
	}
}

func (t *tunnel) flushLoop() {
	for {
		select {
		case <-t.ended_:
			return
		case <-t.kick:
			t.push()
		}
	}
}

// push sends what is queued; if somebody else is writing, they will.
func (t *tunnel) push() {
	if t.pending.Load() && t.wmu.TryLock() {
		t.unlockWrite()
	}
}

func (t *tunnel) lockWrite() { t.wmu.Lock() }

// unlockWrite leaves nothing queued behind: what came after the last look is
// sent by whoever gets the lock next.
func (t *tunnel) unlockWrite() {
	for {
		t.writeControlLocked()
		err := t.werr
		t.wmu.Unlock()
		if err != nil {
			t.fail(err)
			return
		}
		if !t.pending.Load() || !t.wmu.TryLock() {
			return
		}
	}
}

// writeControlLocked sends what is queued; wmu is held.
func (t *tunnel) writeControlLocked() error {
	if !t.pending.Load() {
		return nil
	}
	b := getSmall()
	defer smallBufs.Put(b)
	for {
		t.cmu.Lock()
		n, _ := t.ctl.Read(b[:])
		if t.ctl.Len() == 0 {
			t.pending.Store(false)
			t.shrinkLocked()
		}
		t.cmu.Unlock()
		if n == 0 {
			return nil
		}
		if err := t.writeLocked(b[:n]); err != nil {
			return err
		}
	}
}

// shrinkLocked gives up a control buffer that a burst made big; cmu is held.
func (t *tunnel) shrinkLocked() {
	if t.ctl.Cap() > smallLen {
		t.ctl = *newBuffer()
	}
	if t.hbuf.Cap() > smallLen {
		t.hbuf = *newBuffer()
	}
}

// writeLocked encrypts and sends p, or leaves it to the flush of a gathering.
// wmu is held; an error is the end of the tunnel.
func (t *tunnel) writeLocked(p []byte) error {
	if t.werr != nil {
		return t.werr
	}
	if _, err := t.tls.Write(p); err != nil {
		return t.brokenLocked(err)
	}
	t.writes.Add(1)
	return nil
}

// brokenLocked remembers that nothing can be written any more; unlockWrite then
// ends the tunnel.
func (t *tunnel) brokenLocked(err error) error {
	t.werr = fmt.Errorf("%w: tunnel lost: writing: %w", hbone.ErrReset, err)
	return t.werr
}

// putHeader writes a DATA frame's header.
func putHeader(b []byte, n int, flags http2.Flags, id uint32) {
	_ = b[8]
	b[0], b[1], b[2] = byte(n>>16), byte(n>>8), byte(n)
	b[3], b[4] = byte(http2.FrameData), byte(flags)
	b[5], b[6], b[7], b[8] = byte(id>>24), byte(id>>16), byte(id>>8), byte(id)
}
