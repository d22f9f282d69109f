package dns

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"
)

// maxDatagram is the longest answer in one datagram. Loopback carries any.
const maxDatagram = 65000

// receive serves the datagrams of one socket, until it is turned away and
// nothing is queued. Answers of the mesh are written at once; for the others
// somebody waits.
func (s *Server) receive(c *net.UDPConn) {
	var waiting sync.WaitGroup
	defer c.Close()
	defer waiting.Wait()
	buf := make([]byte, maxSize)
	for {
		n, from, err := c.ReadFromUDPAddrPort(buf)
		if err != nil {
			if errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, net.ErrClosed) {
				return
			}
			// An answer to somebody who has gone comes back as an error.
			continue
		}
		q, ok := readQuery(buf[:n])
		if !ok {
			continue
		}
		limit := min(q.size, maxDatagram)
		if local := s.Known(); local != nil {
			if b, ok := s.resolve(&q, local, limit); ok {
				s.note(&q, "udp", local, "the mesh", nil)
				s.reply(c, b, from)
				continue
			}
		}
		select {
		case s.datagrams <- struct{}{}:
		default:
			s.Metrics.asked(&q, "udp", nil)
			s.reply(c, q.fail(), from)
			continue
		}
		q.raw = slices.Clone(q.raw)
		waiting.Go(func() {
			defer func() { <-s.datagrams }()
			s.reply(c, s.serve(s.cut, "udp", &q, limit), from)
		})
	}
}

func (s *Server) reply(c *net.UDPConn, b []byte, to netip.AddrPort) {
	if len(b) == 0 {
		return
	}
	c.SetWriteDeadline(time.Now().Add(time.Second))
	if _, err := c.WriteToUDPAddrPort(b, to); err != nil {
		s.Logger.Debug("dns answer not sent", "to", to, "error", err)
	}
}
