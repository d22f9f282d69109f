package exchange

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/ambit-mesh/ambit/internal/relay"
	"github.com/ambit-mesh/ambit/internal/telemetry"
)

func sameProtocol(answered []string, asked string) bool {
	return len(answered) == 1 && strings.EqualFold(strings.TrimSpace(answered[0]), asked)
}

// switchProtocol passes 101 on and then bytes, which are nobody's business
// here. The bounds of a request's time do not hold for them.
func (t *try) switchProtocol() *reply {
	t.whole.lift()
	t.limit.lift()
	backend, ok := t.response.Body.(io.ReadWriteCloser)
	if !ok {
		t.report(errNonsense)
		return &reply{status: http.StatusBadGateway, flag: telemetry.ExchangeBackendEnded, text: "upstream connect error or disconnect", err: errNonsense}
	}
	header := t.response.Header
	upgrade := header["Upgrade"]
	t.editAnswer(header)
	t.keepSession(header)
	header["Connection"], header["Upgrade"] = []string{"Upgrade"}, upgrade
	raw, buffered, err := http.NewResponseController(t.w).Hijack()
	if err != nil {
		backend.Close()
		t.report(nil)
		return &reply{status: http.StatusInternalServerError, flag: telemetry.ExchangeClientProtocol, err: fmt.Errorf("taking the connection over: %w", err)}
	}
	t.replied = true
	t.record.Status = http.StatusSwitchingProtocols
	defer func() { t.report(nil) }()
	raw.SetDeadline(time.Time{})
	client := &switched{Conn: raw, buffered: buffered.Reader}
	if err := writeSwitch(raw, header); err != nil {
		backend.Close()
		raw.Close()
		t.record.Flag, t.record.Err = telemetry.ExchangeClientEnded, err
		return done
	}
	var counts relay.Counts
	err = relay.Run(t.r.Context(), client, backendEnd{backend}, &counts)
	sent, got := counts.Load()
	t.record.RequestBytes, t.record.ResponseBytes = sent, got
	if err != nil && !errors.Is(err, net.ErrClosed) {
		t.record.Err = err
	}
	return done
}

// writeSwitch writes the head of a 101.
func writeSwitch(w io.Writer, h http.Header) error {
	b := bufio.NewWriter(w)
	b.WriteString("HTTP/1.1 101 Switching Protocols\r\n")
	if err := h.Write(b); err != nil {
		return err
	}
	b.WriteString("\r\n")
	return b.Flush()
}

// switched is a client's connection after its last request. Some bytes were
// read from it already.
type switched struct {
	net.Conn
	buffered *bufio.Reader
}

func (s *switched) Read(p []byte) (int, error) {
	if s.buffered != nil {
		if n := s.buffered.Buffered(); n > 0 {
			return s.buffered.Read(p[:min(n, len(p))])
		}
		s.buffered = nil
	}
	return s.Conn.Read(p)
}

// Reset is for relay.
func (s *switched) Reset() error {
	if c, ok := s.Conn.(*conn); ok {
		c.cut()
	}
	return s.Close()
}

func (s *switched) CloseWrite() error {
	if c, ok := s.Conn.(interface{ CloseWrite() error }); ok {
		return c.CloseWrite()
	}
	return nil
}

// backendEnd half-closes where the transport lets it.
type backendEnd struct{ io.ReadWriteCloser }

func (b backendEnd) CloseWrite() error {
	if c, ok := b.ReadWriteCloser.(interface{ CloseWrite() error }); ok {
		return c.CloseWrite()
	}
	return nil
}
