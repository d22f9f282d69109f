package h2

import (
	"math"
	"os"
)

// The sending windows: a stream's and the tunnel's, all under tunnel.mu.

// awaitWindow waits until something may be sent, and says how much.
func (s *stream) awaitWindow() (int, error) {
	t := s.t
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := s.awaitWindowLocked(); err != nil {
		return 0, err
	}
	return int(min(s.sendWindow, t.sendWindow, math.MaxInt32)), nil
}

func (s *stream) awaitWindowLocked() error {
	t := s.t
	for {
		switch {
		case s.serr != nil:
			return s.serr
		case s.writeBy.passed:
			return os.ErrDeadlineExceeded
		case s.sendWindow > 0 && t.sendWindow > 0:
			return nil
		case s.sendWindow > 0 && !s.starved:
			s.starved = true
			t.starved = append(t.starved, s)
		}
		s.scond.Wait()
	}
}

// reserve takes up to n bytes from both windows, waiting for the first.
func (s *stream) reserve(n int) (int, error) {
	s.t.mu.Lock()
	defer s.t.mu.Unlock()
	if err := s.awaitWindowLocked(); err != nil {
		return 0, err
	}
	return s.takeLocked(n), nil
}

// tryReserve takes what there is, up to n.
func (s *stream) tryReserve(n int) int {
	s.t.mu.Lock()
	defer s.t.mu.Unlock()
	return s.takeLocked(n)
}

func (s *stream) takeLocked(n int) int {
	t := s.t
	n = int(max(0, min(int64(n), s.sendWindow, t.sendWindow)))
	s.sendWindow -= int64(n)
	t.sendWindow -= int64(n)
	return n
}

// refund returns what was reserved and not used.
func (s *stream) refund(n int) {
	if n == 0 {
		return
	}
	s.t.mu.Lock()
	defer s.t.mu.Unlock()
	s.sendWindow += int64(n)
	s.t.addWindowLocked(int64(n))
}

// addWindowLocked adds to the tunnel's window and wakes who waits for it.
func (t *tunnel) addWindowLocked(n int64) bool {
	t.sendWindow += n
	if t.sendWindow <= 0 {
		return t.sendWindow <= math.MaxInt32
	}
	for i, s := range t.starved {
		s.starved = false
		s.scond.Broadcast()
		t.starved[i] = nil
	}
	t.starved = t.starved[:0]
	return t.sendWindow <= math.MaxInt32
}

// credit is WINDOW_UPDATE for a stream; false is an overflow.
func (s *stream) credit(n int64) bool {
	s.t.mu.Lock()
	defer s.t.mu.Unlock()
	s.sendWindow += n
	if s.sendWindow > 0 {
		s.scond.Broadcast()
	}
	return s.sendWindow <= math.MaxInt32
}

// initialWindowLocked applies SETTINGS_INITIAL_WINDOW_SIZE to all streams (RFC
// 9113, 6.9.2).
func (t *tunnel) initialWindowLocked(n int64) bool {
	diff := n - t.peerWindow
	t.peerWindow = n
	for _, s := range t.streams {
		s.sendWindow += diff
		if s.sendWindow > math.MaxInt32 {
			return false
		}
		if s.sendWindow > 0 {
			s.scond.Broadcast()
		}
	}
	return true
}
