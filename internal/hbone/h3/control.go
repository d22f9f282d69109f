package h3

import (
	"errors"
	"fmt"
	"io"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
	"github.com/quic-go/quic-go/quicvarint"

	"github.com/ambit-mesh/ambit/internal/hbone/door"
	"github.com/ambit-mesh/ambit/internal/hbone/head"
)

// Types of unidirectional streams (RFC 9114, 6.2; RFC 9204, 4.2).
const (
	uniControl = 0x00
	uniPush    = 0x01
	uniEncoder = 0x02
	uniDecoder = 0x03
)

// Settings (RFC 9114, 7.2.4.1; RFC 9220; RFC 9297).
const (
	settingHeaders   = 0x06
	settingExtended  = 0x08
	settingDatagrams = 0x33
	// settingStreams is ours, and ignored by who does not know it: how many
	// streams the sender takes at once. QUIC tells only of streams in all.
	settingStreams = 0x616d6269
)

// maxControlFrame bounds a frame on the control stream; all that we know are a
// few bytes long.
const maxControlFrame = 4 << 10

func (t *tunnel) maxHeaders() uint32 {
	if t.client {
		return head.ClientLimit
	}
	return head.ServerLimit
}

func (t *tunnel) sendSettings() error {
	var p []byte
	settings := [][2]uint64{
		{settingHeaders, uint64(t.maxHeaders())},
		{settingDatagrams, 1},
		{settingStreams, uint64(t.tuning.MaxStreams)},
	}
	if t.offered {
		settings = append(settings, [2]uint64{settingExtended, 1})
	}
	for _, s := range settings {
		p = quicvarint.Append(quicvarint.Append(p, s[0]), s[1])
	}
	t.cmu.Lock()
	defer t.cmu.Unlock()
	c, err := t.conn.OpenUniStream()
	if err != nil {
		return fmt.Errorf("opening the control stream: %w", err)
	}
	t.control = c
	if _, err := c.Write(appendFrame([]byte{uniControl}, frameSettings, p)); err != nil {
		return fmt.Errorf("writing settings: %w", err)
	}
	return nil
}

// sendGoAway says from which request on (a client: which push) nothing is
// served. It never waits for the peer: who does not read its control stream does
// not hear it.
func (t *tunnel) sendGoAway(id uint64) {
	t.cmu.Lock()
	defer t.cmu.Unlock()
	if t.control != nil {
		t.control.TryWriteAll(appendFrame(nil, frameGoAway, quicvarint.Append(nil, id)))
	}
}

// acceptUni takes the peer's unidirectional streams, one goroutine for each;
// quic-go bounds how many there are.
func (t *tunnel) acceptUni() {
	var seen seen
	for {
		s, err := t.conn.AcceptUniStream(t.conn.Context())
		if err != nil {
			return // the tunnel has ended, and its context says why
		}
		t.work.Go(func() {
			if err := t.uni(s, &seen); err != nil {
				t.fail(err)
			}
		})
	}
}

// uni reads one unidirectional stream.
func (t *tunnel) uni(s *quic.ReceiveStream, seen *seen) error {
	kind, err := quicvarint.Read(quicvarint.NewReader(s))
	if err != nil {
		t.pay(door.Streams, costRequest)
		return nil // it was withdrawn
	}
	switch {
	case kind == uniPush:
		return fault(http3.ErrCodeIDError, "push stream")
	case kind > uniDecoder:
		s.CancelRead(quic.StreamErrorCode(http3.ErrCodeStreamCreationError))
		t.pay(door.Streams, costRequest)
		return nil
	case seen.again(kind):
		return fault(http3.ErrCodeStreamCreationError, "second control or QPACK stream")
	case kind != uniControl:
		return nil // without a dynamic table, nothing comes there
	}
	return t.readControl(s)
}

// readControl reads SETTINGS and what follows.
func (t *tunnel) readControl(s *quic.ReceiveStream) error {
	var h header
	for first := true; ; first = false {
		kind, length, err := h.read(s)
		if err != nil {
			return critical(err)
		}
		if first != (kind == frameSettings) {
			if first {
				return fault(http3.ErrCodeMissingSettings, "control stream begins without settings")
			}
			return fault(http3.ErrCodeFrameUnexpected, "settings again")
		}
		if length > maxControlFrame {
			return fault(http3.ErrCodeExcessiveLoad, "control frame of excessive length")
		}
		p := make([]byte, length)
		if _, err := io.ReadFull(s, p); err != nil {
			return critical(err)
		}
		t.pay(door.EmptyFrames, costFrame)
		if err := t.controlFrame(kind, p); err != nil {
			return err
		}
	}
}

// critical is the end of a stream that must not end. That of the connection says
// itself why.
func critical(err error) error {
	_, reset := errors.AsType[*quic.StreamError](err)
	if reset || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, errTruncated) {
		return fault(http3.ErrCodeClosedCriticalStream, "control stream ended")
	}
	return err
}

func (t *tunnel) controlFrame(kind uint64, p []byte) error {
	switch kind {
	case frameSettings:
		return t.takeSettings(p)
	case frameGoAway:
		id, n, err := quicvarint.Parse(p)
		if err != nil || n != len(p) {
			return fault(http3.ErrCodeFrameError, "malformed GOAWAY")
		}
		return t.takeGoAway(id)
	case frameData, frameHeaders, 0x02, 0x05, 0x06, 0x08, 0x09:
		return fault(http3.ErrCodeFrameUnexpected, "frame that has no place on a control stream")
	}
	return nil // what we do not know is ignored (RFC 9114, 9)
}

func (t *tunnel) takeSettings(p []byte) error {
	packets := t.conn.ConnectionState().SupportsDatagrams.Remote
	t.mu.Lock()
	defer t.mu.Unlock()
	for len(p) > 0 {
		id, n, err := quicvarint.Parse(p)
		if err != nil {
			return fault(http3.ErrCodeFrameError, "malformed settings")
		}
		value, m, err := quicvarint.Parse(p[n:])
		if err != nil {
			return fault(http3.ErrCodeFrameError, "malformed settings")
		}
		p = p[n+m:]
		switch id {
		case 0x00, 0x02, 0x03, 0x04, 0x05:
			return fault(http3.ErrCodeSettingsError, "setting of HTTP/2")
		case settingHeaders:
			t.peerHeaders = uint32(min(value, uint64(head.ServerLimit)))
		case settingExtended, settingDatagrams:
			if value > 1 || id == settingDatagrams && value == 1 && !packets {
				return fault(http3.ErrCodeSettingsError, "setting with a value that is none")
			}
			if id == settingExtended {
				t.extended = value == 1
			} else {
				t.datagrams.Store(value == 1)
			}
		case settingStreams:
			t.capacity = int(min(value, uint64(t.tuning.MaxStreams)))
		}
	}
	close(t.settled)
	return nil
}
