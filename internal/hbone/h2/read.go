package h2

import (
	"errors"
	"fmt"
	"io"
	"time"

	"golang.org/x/net/http2"

	"github.com/ambit-mesh/ambit/internal/hbone"
)

// read is the reader: it takes frames until the connection ends, and never
// waits for anything but the connection.
func (t *tunnel) read() error {
	if !t.client {
		if err := t.readPreface(); err != nil {
			return err
		}
	}
	for first := true; ; first = false {
		fh, err := t.fr.ReadFrameHeader()
		if err != nil {
			return t.readError(err)
		}
		if first && (fh.Type != http2.FrameSettings || fh.Flags.Has(http2.FlagSettingsAck)) {
			return protocolError("connection begins with %v", fh.Type)
		}
		if !t.heard.Load() {
			t.heard.Store(true)
		}
		err = t.frame(fh)
		if err == nil {
			err = t.heeded()
		}
		if err != nil {
			return t.readError(err)
		}
	}
}

func (t *tunnel) readPreface() error {
	var b [len(http2.ClientPreface)]byte
	if _, err := io.ReadFull(t.tls, b[:]); err != nil {
		return t.readError(err)
	}
	if string(b[:]) != http2.ClientPreface {
		return protocolError("no HTTP/2 preface")
	}
	return nil
}

// readError gives Framer's errors their code.
func (t *tunnel) readError(err error) error {
	if code, ok := errors.AsType[http2.ConnectionError](err); ok {
		if d := t.fr.ErrorDetail(); d != nil {
			return &connError{code: http2.ErrCode(code), reason: d.Error()}
		}
		return &connError{code: http2.ErrCode(code), reason: "malformed frame"}
	}
	if errors.Is(err, http2.ErrFrameTooLarge) {
		return &connError{code: http2.ErrCodeFrameSize, reason: "frame too large"}
	}
	if errors.Is(err, io.EOF) {
		return errors.New("closed by peer")
	}
	return err
}

func (t *tunnel) frame(fh http2.FrameHeader) error {
	switch fh.Type {
	case http2.FrameData:
		return t.data(fh)
	case http2.FrameHeaders:
		return t.headers(fh)
	}
	f, err := t.fr.ReadFrameForHeader(fh)
	if se, ok := errors.AsType[http2.StreamError](err); ok {
		return t.streamError(se.StreamID, se.Code)
	}
	if err != nil {
		return err
	}
	switch f := f.(type) {
	case *http2.WindowUpdateFrame:
		return t.windowUpdate(f)
	case *http2.RSTStreamFrame:
		return t.rstStream(f)
	case *http2.SettingsFrame:
		return t.settingsFrame(f)
	case *http2.PingFrame:
		return t.pingFrame(f)
	case *http2.GoAwayFrame:
		return t.goAwayFrame(f)
	case *http2.PushPromiseFrame:
		return protocolError("PUSH_PROMISE")
	}
	return t.pay(AbuseEmptyFrames, costFrame) // PRIORITY and what we do not know
}

// stream finds an open stream. Nil without an error is one that was.
func (t *tunnel) stream(id uint32) (*stream, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if s := t.streams[id]; s != nil {
		return s, nil
	}
	known := id <= t.lastID
	if t.client {
		known = id < t.nextID
	}
	if id == 0 || id%2 == 0 || !known {
		return nil, protocolError("frame for stream %d, which never was", id)
	}
	return nil, nil
}

// streamError resets one stream for a fault of the peer.
func (t *tunnel) streamError(id uint32, code http2.ErrCode) error {
	s, err := t.stream(id)
	if err != nil {
		return err
	}
	if s == nil {
		return t.pay(AbuseFaults, costFrame)
	}
	s.abort(code, fmt.Errorf("%w: peer broke the protocol (%v)", hbone.ErrReset, code))
	return t.pay(AbuseFaults, costRequest)
}

func (t *tunnel) windowUpdate(f *http2.WindowUpdateFrame) error {
	if err := t.payEarned(AbuseWindow); err != nil {
		return err
	}
	n := int64(f.Increment)
	if f.StreamID == 0 {
		t.mu.Lock()
		defer t.mu.Unlock()
		if !t.addWindowLocked(n) {
			return &connError{code: http2.ErrCodeFlowControl, reason: "window too large"}
		}
		return nil
	}
	s, err := t.stream(f.StreamID)
	if s == nil || err != nil {
		return err
	}
	if !s.credit(n) {
		return t.streamError(f.StreamID, http2.ErrCodeFlowControl)
	}
	return nil
}

func (t *tunnel) rstStream(f *http2.RSTStreamFrame) error {
	s, err := t.stream(f.StreamID)
	if err != nil {
		return err
	}
	if s == nil { // it has ended here; the peer did not know
		return t.payEarned(AbuseEmptyFrames)
	}
	if !t.client && !s.replied.Load() && time.Since(s.began) < patienceOfAll {
		if err := t.pay(AbuseRapidReset, costRequest); err != nil {
			return err
		}
	}
	t.noteEnd(s.id)
	s.peerReset(f.ErrCode)
	return nil
}

func (t *tunnel) pingFrame(f *http2.PingFrame) error {
	if f.IsAck() {
		if !t.pong(f.Data) {
			return t.pay(AbuseEmptyFrames, costFrame)
		}
		return nil
	}
	if err := t.pay(AbuseEmptyFrames, costFrame); err != nil {
		return err
	}
	data := f.Data
	t.control(func(f *http2.Framer) { f.WritePing(true, data) })
	return nil
}

func (t *tunnel) settingsFrame(f *http2.SettingsFrame) error {
	if f.IsAck() {
		if t.acked {
			return t.pay(AbuseEmptyFrames, costFrame)
		}
		t.acked = true
		t.sampleRTT(time.Since(t.pings.sentSettings))
		return nil
	}
	if err := t.pay(AbuseEmptyFrames, costFrame); err != nil {
		return err
	}
	if err := f.ForeachSetting(t.setting); err != nil {
		return err
	}
	t.control(func(f *http2.Framer) { f.WriteSettingsAck() })
	select {
	case <-t.settled:
	default:
		close(t.settled)
	}
	return nil
}

func (t *tunnel) setting(s http2.Setting) error {
	if err := s.Valid(); err != nil {
		return err
	}
	if s.ID == http2.SettingHeaderTableSize {
		t.cmu.Lock()
		defer t.cmu.Unlock()
		t.enc.SetMaxDynamicTableSizeLimit(min(s.Val, 4096))
		t.enc.SetMaxDynamicTableSize(min(s.Val, 4096))
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	switch s.ID {
	case http2.SettingInitialWindowSize:
		if !t.initialWindowLocked(int64(s.Val)) {
			return &connError{code: http2.ErrCodeFlowControl, reason: "window too large"}
		}
	case http2.SettingMaxFrameSize:
		t.peerMax = int(s.Val) - frameHeaderLen // so that records are full
	case http2.SettingMaxHeaderListSize:
		t.peerHeaders = s.Val
	case http2.SettingEnableConnectProtocol:
		t.extended = s.Val == 1
	case http2.SettingMaxConcurrentStreams:
		t.capacity = int(min(int64(s.Val), int64(t.tuning.MaxStreams)))
	}
	return nil
}

// goAwayFrame takes no new streams; those the peer has not begun may be tried
// elsewhere.
func (t *tunnel) goAwayFrame(f *http2.GoAwayFrame) error {
	if err := t.pay(AbuseEmptyFrames, costFrame); err != nil {
		return err
	}
	var refused []*stream
	t.mu.Lock()
	t.peerLeft = true
	t.doneLocked()
	for id, s := range t.streams {
		if t.client && id > f.LastStreamID {
			refused = append(refused, s)
		}
	}
	last := t.checkEmptyLocked()
	t.mu.Unlock()
	for _, s := range refused {
		s.endReceive(hbone.ErrDraining, false)
		t.mu.Lock()
		s.endSendLocked(hbone.ErrDraining)
		t.mu.Unlock()
		t.ended(s, true, true)
	}
	if last {
		return hbone.ErrClosed
	}
	return nil
}
