package dns

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"time"
)

// Dial reaches a name server over "udp" or "tcp".
type Dial func(ctx context.Context, network string, to netip.AddrPort) (net.Conn, error)

// The patience with name servers: half of what programs' resolvers have with
// theirs, so that a second try still counts.
const (
	tryTimeout = 2 * time.Second
	maxTries   = 2
)

// forwarder asks name servers.
type forwarder struct {
	servers func() ([]netip.AddrPort, error)
	dial    Dial
}

// ask sends the query to the servers in turn, until one has an answer that is
// no failure of its own; of failures the last is told.
func (f *forwarder) ask(ctx context.Context, network string, q *query) ([]byte, error) {
	servers, err := f.servers()
	if err != nil {
		return nil, err
	}
	var failure []byte
	for range maxTries {
		for _, s := range servers {
			answer, e := f.try(ctx, network, s, q)
			switch {
			case e != nil:
				err = fmt.Errorf("asking %s: %w", s, e)
			case rcode(answer) != 2 && rcode(answer) != 5: // SERVFAIL, REFUSED
				return answer, nil
			default:
				failure = answer
			}
			if ctx.Err() != nil {
				return failure, err
			}
		}
		if failure != nil {
			return failure, nil
		}
	}
	return nil, err
}

// try asks one server once.
func (f *forwarder) try(ctx context.Context, network string, to netip.AddrPort, q *query) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, tryTimeout)
	defer cancel()
	c, err := f.dial(ctx, network, to)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	stop := context.AfterFunc(ctx, func() { c.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if network == "tcp" {
		return exchangeStream(c, q)
	}
	return exchangeDatagram(c, q)
}

func exchangeDatagram(c net.Conn, q *query) ([]byte, error) {
	if _, err := c.Write(q.raw); err != nil {
		return nil, err
	}
	buf := make([]byte, max(q.size, 4096))
	for {
		n, err := c.Read(buf)
		if err != nil {
			return nil, err
		}
		if q.answers(buf[:n]) {
			return buf[:n], nil
		}
	}
}

func exchangeStream(c net.Conn, q *query) ([]byte, error) {
	if err := writeMessage(c, q.raw); err != nil {
		return nil, err
	}
	answer, err := readMessage(c)
	if err == nil && !q.answers(answer) {
		err = errors.New("the answer is to another question")
	}
	return answer, err
}

// readMessage and writeMessage frame messages on a stream (RFC 1035 4.2.2).
func readMessage(r io.Reader) ([]byte, error) {
	var size [2]byte
	if _, err := io.ReadFull(r, size[:]); err != nil {
		return nil, err
	}
	b := make([]byte, binary.BigEndian.Uint16(size[:]))
	if _, err := io.ReadFull(r, b); err != nil {
		return nil, err
	}
	return b, nil
}

func writeMessage(w io.Writer, b []byte) error {
	if len(b) > maxSize {
		return fmt.Errorf("a message of %d bytes", len(b))
	}
	// One write: some servers want length and message in one segment.
	_, err := w.Write(append(binary.BigEndian.AppendUint16(make([]byte, 0, 2+len(b)), uint16(len(b))), b...))
	return err
}
