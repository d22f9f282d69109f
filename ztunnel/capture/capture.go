// Package capture accepts the connections that a pod's rules redirect to the
// proxy, one goroutine each, until it is drained.
//
// It owns accepting, its errors and its end; it refuses to look into a
// connection, which is its handler's, ztunnel/inbound's or ztunnel/outbound's.
package capture

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"
)

// Handler serves one connection and closes it. The end of ctx cuts it.
type Handler func(ctx context.Context, c *net.TCPConn)

// Server accepts on one listener.
type Server struct {
	listener *net.TCPListener
	handler  Handler
	places   chan struct{} // one for each connection
	log      *slog.Logger

	cut     context.Context
	cancel  context.CancelCauseFunc
	serving sync.WaitGroup
}

// Serve begins to accept on l, which it owns from here on. Of most connections at
// once, further ones wait in the listener's backlog: what a pod's programs or its
// clients do must not use up the node's descriptors.
func Serve(l *net.TCPListener, h Handler, most int, log *slog.Logger) *Server {
	s := &Server{listener: l, handler: h, places: make(chan struct{}, most), log: log}
	s.cut, s.cancel = context.WithCancelCause(context.Background())
	s.serving.Go(s.accept)
	return s
}

// The pause after an accept that failed, e.g. for want of descriptors.
const (
	firstPause = 5 * time.Millisecond
	maxPause   = time.Second
)

func (s *Server) accept() {
	pause := firstPause
	for {
		s.places <- struct{}{} // at the latest the end of a drain makes room
		c, err := s.listener.AcceptTCP()
		if err == nil {
			pause = firstPause
			s.serving.Go(func() {
				defer func() { <-s.places }()
				s.handler(s.cut, c)
			})
			continue
		}
		<-s.places
		if errors.Is(err, net.ErrClosed) {
			return
		}
		s.log.Warn("accepting a captured connection", "address", s.listener.Addr(), "error", err, "retry", pause)
		select {
		case <-time.After(pause):
		case <-s.cut.Done():
			return
		}
		pause = min(2*pause, maxPause)
	}
}

// StopAccepting closes the listener; what was accepted goes on.
func (s *Server) StopAccepting() error {
	if err := s.listener.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
		return fmt.Errorf("closing a listener: %w", err)
	}
	return nil
}

// Drain stops accepting, waits until every connection has ended, and cuts
// those that are left when ctx is done. It returns when all have ended.
func (s *Server) Drain(ctx context.Context) error {
	err := s.StopAccepting()
	stop := context.AfterFunc(ctx, func() { s.cancel(context.Cause(ctx)) })
	defer stop()
	s.serving.Wait()
	s.cancel(nil)
	return err
}
