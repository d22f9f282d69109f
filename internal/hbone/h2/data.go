package h2

import (
	"slices"

	"golang.org/x/net/http2"
)

// data reads a DATA frame and delivers its payload piece by piece: a piece is
// what is here, so that nobody waits for the rest of a frame, and is as long as
// that allows, so that the application's socket is written to rarely.
func (t *tunnel) data(fh http2.FrameHeader) error {
	s, err := t.stream(fh.StreamID)
	if err != nil {
		return err
	}
	if s == nil && slices.Contains(t.endedByPeer[:], fh.StreamID) {
		return errAfterEnd
	}
	n := int(fh.Length)
	if err := t.received(n); err != nil {
		return err
	}
	end := fh.Flags.Has(http2.FlagDataEndStream)
	if n == 0 && !end {
		return t.pay(AbuseEmptyFrames, costFrame)
	}
	if err := t.makeRoom(); err != nil {
		return err
	}
	if s != nil {
		if s.peerEnded() {
			return errAfterEnd
		}
		if !s.arrived(n) {
			s.abort(http2.ErrCodeFlowControl, errOverrun)
			s = nil
			if err := t.pay(AbuseFaults, costRequest); err != nil {
				return err
			}
		}
	}
	if err := t.payload(s, fh); err != nil {
		return err
	}
	if s != nil && end {
		t.peerEnds(s)
	}
	return nil
}

// peerEnds is END_STREAM.
func (t *tunnel) peerEnds(s *stream) {
	t.noteEnd(s.id)
	s.endReceive(errEOF, false)
	t.ended(s, false, true)
}

// noteEnd remembers for a while that the peer has ended a stream. Of older ones
// nobody can tell who did, and their frames are ignored.
func (t *tunnel) noteEnd(id uint32) {
	t.endedByPeer[t.endedNext] = id
	t.endedNext = (t.endedNext + 1) % len(t.endedByPeer)
}

var errAfterEnd = &connError{code: http2.ErrCodeStreamClosed, reason: "DATA after the end of its stream"}

var errOverrun = protocolError("peer overran the window")

// received keeps the tunnel's window, which is given back on arrival.
func (t *tunnel) received(n int) error {
	t.window -= n
	if t.window < 0 {
		return &connError{code: http2.ErrCodeFlowControl, reason: "peer overran the window"}
	}
	t.credit += n
	if give := t.credit; give >= t.tuning.Window/4 {
		t.window += give
		t.credit = 0
		t.control(func(f *http2.Framer) { f.WriteWindowUpdate(0, uint32(give)) })
	}
	return nil
}

// payload delivers to s, or to nobody. Padding is given back at once.
func (t *tunnel) payload(s *stream, fh http2.FrameHeader) error {
	n := int(fh.Length)
	if n == 0 {
		return nil
	}
	b := getFrame()
	defer frameBufs.Put(b)
	pad := 0
	if fh.Flags.Has(http2.FlagDataPadded) {
		if _, err := readFull(t.tls, b[:1]); err != nil {
			return err
		}
		pad = int(b[0])
		n--
		if pad > n {
			return protocolError("padding longer than its frame")
		}
		n -= pad
		if n == 0 {
			if err := t.pay(AbuseEmptyFrames, costFrame); err != nil {
				return err
			}
		}
	}
	if err := t.pieces(s, b, n); err != nil {
		return err
	}
	if _, err := readFull(t.tls, b[:pad]); err != nil {
		return err
	}
	if over := int(fh.Length) - n; s != nil && over > 0 {
		s.rmu.Lock()
		s.consumedLocked(over)
		s.rmu.Unlock()
	}
	return nil
}

func (t *tunnel) pieces(s *stream, b *frameBuf, n int) error {
	have := 0
	for n > 0 {
		m, err := t.tls.Read(b[have:min(len(b), have+n)])
		if err != nil {
			return err
		}
		have += m
		n -= m
		if n == 0 || have == len(b) || !t.wire.hasRecord() {
			if s != nil {
				s.deliver(b[:have])
			}
			have = 0
		}
	}
	return nil
}

func (s *stream) peerEnded() bool {
	s.t.mu.Lock()
	defer s.t.mu.Unlock()
	return s.gotEnd
}
