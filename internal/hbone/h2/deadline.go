package h2

import (
	"sync"
	"time"
)

// deadline is when one half of a stream gives up waiting, under the lock of
// that half. Most streams never have one.
type deadline struct {
	timer  *time.Timer
	passed bool
	set    uint64 // tells a timer that was too late to stop
}

// setLocked changes the deadline; cond is on the lock that the caller holds.
func (d *deadline) setLocked(at time.Time, cond *sync.Cond) {
	if d.timer != nil {
		d.timer.Stop()
		d.timer = nil
	}
	d.set++
	wait := time.Until(at)
	d.passed = !at.IsZero() && wait <= 0
	switch {
	case d.passed:
		cond.Broadcast()
	case !at.IsZero():
		this := d.set
		d.timer = time.AfterFunc(wait, func() {
			cond.L.Lock()
			defer cond.L.Unlock()
			if d.set == this {
				d.passed = true
				cond.Broadcast()
			}
		})
	}
}

// stopLocked forgets the deadline.
func (d *deadline) stopLocked() {
	if d.timer != nil {
		d.timer.Stop()
		d.timer = nil
	}
	d.set++
}

// SetReadDeadline implements hbone.Stream.
func (s *stream) SetReadDeadline(at time.Time) error {
	s.rmu.Lock()
	defer s.rmu.Unlock()
	if s.over {
		return nil // no timer may outlive the stream
	}
	s.readBy.setLocked(at, &s.rcond)
	return nil
}

// SetWriteDeadline implements hbone.Stream.
func (s *stream) SetWriteDeadline(at time.Time) error {
	s.t.mu.Lock()
	defer s.t.mu.Unlock()
	if s.gone {
		return nil
	}
	s.writeBy.setLocked(at, &s.scond)
	return nil
}
