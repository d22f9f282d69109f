package echo

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"net"
	"strings"
	"sync"
)

// The protocols of the TCP ports, in words:
//
//   - TCP: what comes in goes out; the end of one direction ends the other.
//   - First: the server sends Banner and then behaves as TCP.
//   - Bulk: the client sends one line.
//     "up": then data, then the end of its direction; the server answers one
//     line, "BYTES SHA256", and closes. The answer crosses a half-closed
//     connection.
//     "down BYTES ID": the server sends that many bytes and ends its
//     direction; the client then sends one line, the SHA256 of what it got, on
//     the other half, and closes.
//     "ack ID": the server answers "ok" if the line of transfer ID arrived and
//     was right, else what was wrong.

// Banner is what the port "first" says first.
const Banner = "220 echo speaks first\r\n"

// echoConn sends back what it receives.
func (s *server) echoConn(conn net.Conn) error {
	n, err := io.Copy(conn, conn)
	if err != nil {
		return fmt.Errorf("after %d bytes: %w", n, err)
	}
	return closeWrite(conn)
}

func (s *server) firstConn(conn net.Conn) error {
	if _, err := io.WriteString(conn, Banner); err != nil {
		return err
	}
	return s.echoConn(conn)
}

func (s *server) bulkConn(conn net.Conn) error {
	r := bufio.NewReaderSize(conn, 64<<10)
	line, err := r.ReadString('\n')
	if err != nil {
		return fmt.Errorf("read request: %w", err)
	}
	var n int64
	var id string
	switch f := strings.Fields(line); {
	case len(f) == 1 && f[0] == "up":
		return receive(conn, r)
	case len(f) == 2 && f[0] == "ack":
		_, err := fmt.Fprintln(conn, s.acks.get(f[1]))
		return err
	default:
		if _, err := fmt.Sscanf(line, "down %d %s\n", &n, &id); err != nil {
			return fmt.Errorf("unknown request %q", line)
		}
		return s.send(conn, r, n, id)
	}
}

func receive(conn net.Conn, r io.Reader) error {
	h := sha256.New()
	n, err := io.Copy(h, r)
	if err != nil {
		return fmt.Errorf("after %d bytes: %w", n, err)
	}
	_, err = fmt.Fprintf(conn, "%d %s\n", n, sum(h))
	return err
}

func (s *server) send(conn net.Conn, r *bufio.Reader, n int64, id string) error {
	h := sha256.New()
	if _, err := io.Copy(conn, io.TeeReader(pattern(n), h)); err != nil {
		s.acks.put(id, "sending failed: "+err.Error())
		return err
	}
	if err := closeWrite(conn); err != nil {
		s.acks.put(id, "half-close failed: "+err.Error())
		return err
	}
	line, err := r.ReadString('\n')
	switch {
	case err != nil:
		s.acks.put(id, "no line after the half-close: "+err.Error())
		return err
	case strings.TrimSpace(line) != sum(h):
		s.acks.put(id, "the client got other bytes")
		return errors.New("checksum differs")
	}
	s.acks.put(id, "ok")
	return nil
}

// acks remembers how the last transfers ended; old ones are forgotten.
type acks struct {
	mu    sync.Mutex
	last  []string // ids, oldest first
	known map[string]string
}

const maxAcks = 256

func (a *acks) put(id, outcome string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.known == nil {
		a.known = map[string]string{}
	}
	if _, ok := a.known[id]; !ok {
		a.last = append(a.last, id)
	}
	a.known[id] = outcome
	if len(a.last) > maxAcks {
		delete(a.known, a.last[0])
		a.last = a.last[1:]
	}
}

func (a *acks) get(id string) string {
	a.mu.Lock()
	defer a.mu.Unlock()
	if outcome, ok := a.known[id]; ok {
		return outcome
	}
	return "unknown transfer"
}

// serveUDP sends datagrams back to where they came from.
func serveUDP(ctx context.Context, pc net.PacketConn) error {
	stop := context.AfterFunc(ctx, func() { pc.Close() })
	defer stop()
	buf := make([]byte, 64<<10)
	for {
		n, from, err := pc.ReadFrom(buf)
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return nil
			}
			return err
		}
		// A datagram that cannot be sent back is lost, as datagrams may be.
		_, _ = pc.WriteTo(buf[:n], from)
	}
}

// closeWrite ends one direction of a connection.
func closeWrite(conn net.Conn) error {
	if c, ok := conn.(interface{ CloseWrite() error }); ok {
		return c.CloseWrite()
	}
	return errors.New("this connection cannot be half-closed")
}

func sum(h hash.Hash) string { return hex.EncodeToString(h.Sum(nil)) }

// pattern is n bytes that differ from place to place, so that lost, doubled or
// swapped pieces change the checksum.
func pattern(n int64) io.Reader { return &patternReader{left: n} }

type patternReader struct {
	left int64
	at   uint64
}

func (p *patternReader) Read(b []byte) (int, error) {
	if p.left == 0 {
		return 0, io.EOF
	}
	b = b[:min(int64(len(b)), p.left)]
	p.left -= int64(len(b))
	// Whole words first where they start at the right place, single bytes around them.
	for i := 0; i < len(b); {
		if p.at%8 == 0 && len(b)-i >= 8 {
			binary.LittleEndian.PutUint64(b[i:], word(p.at))
			i, p.at = i+8, p.at+8
			continue
		}
		b[i] = byte(word(p.at) >> (8 * (p.at % 8)))
		i, p.at = i+1, p.at+1
	}
	return len(b), nil
}

// word is the eight bytes of the pattern around a position.
func word(at uint64) uint64 { return (at/8 + 1) * 0x9e3779b97f4a7c15 }
