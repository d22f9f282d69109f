package dns

import (
	"context"
	"errors"
	"io"
	"net"
	"time"
)

// accept serves the connections of one listener until it is closed.
func (s *Server) accept(l *net.TCPListener) {
	for {
		c, err := l.AcceptTCP()
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil:
			s.Logger.Warn("accepting a dns connection", "error", err)
			select {
			case <-time.After(100 * time.Millisecond):
			case <-s.leaving:
			}
			continue
		}
		select {
		case s.streams <- struct{}{}:
			s.serving.Go(func() {
				defer func() { <-s.streams }()
				s.stream(c)
			})
		default:
			c.Close()
		}
	}
}

// stream answers the queries of one connection, one after the other.
func (s *Server) stream(c net.Conn) {
	defer c.Close()
	stop := context.AfterFunc(s.cut, func() { c.Close() })
	defer stop()
	for {
		c.SetDeadline(time.Now().Add(s.Idle))
		raw, err := readMessage(c)
		if err != nil {
			return
		}
		q, ok := readQuery(raw)
		if !ok {
			return
		}
		if q.transfers() {
			s.note(&q, "tcp", s.Known(), "a resolver", nil)
			s.transfer(c, &q)
			return
		}
		answer := s.serve(s.cut, "tcp", &q, maxSize)
		c.SetDeadline(time.Now().Add(s.Idle))
		if writeMessage(c, answer) != nil {
			return
		}
		select {
		case <-s.leaving:
			return
		default:
		}
	}
}

// transfer hands the connection over to a resolver: many messages answer, and
// only they say when they end.
func (s *Server) transfer(c net.Conn, q *query) {
	up, err := s.reach(q)
	if err != nil {
		s.Logger.Debug("dns zone transfer", "name", q.name(), "error", err)
		_ = writeMessage(c, q.fail()) // the program may have gone
		return
	}
	defer up.Close()
	stop := context.AfterFunc(s.cut, func() { up.Close() })
	defer stop()
	buf := make([]byte, 16<<10)
	for {
		deadline := time.Now().Add(s.Idle)
		up.SetDeadline(deadline)
		n, err := up.Read(buf)
		if n > 0 {
			c.SetDeadline(deadline)
			if _, err := c.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			if !errors.Is(err, io.EOF) {
				s.Logger.Debug("dns zone transfer", "name", q.name(), "error", err)
			}
			return
		}
	}
}

// reach sends the query to the first server that takes it.
func (s *Server) reach(q *query) (net.Conn, error) {
	servers, err := s.Servers()
	for _, to := range servers {
		ctx, cancel := context.WithTimeout(s.cut, tryTimeout)
		var c net.Conn
		c, err = s.Dial(ctx, "tcp", to)
		cancel()
		if err != nil {
			continue
		}
		if err = writeMessage(c, q.raw); err == nil {
			return c, nil
		}
		c.Close()
	}
	return nil, err
}
