package admin

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"
)

// ListenLoopback listens on IPv4's loopback and, where there is one, on
// IPv6's.
func ListenLoopback(ctx context.Context, port uint16) ([]net.Listener, error) {
	var config net.ListenConfig
	v4, err := config.Listen(ctx, "tcp4", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		return nil, fmt.Errorf("listening for administration: %w", err)
	}
	v6, err := config.Listen(ctx, "tcp6", fmt.Sprintf("[::1]:%d", port))
	if err != nil {
		return []net.Listener{v4}, nil // no IPv6 here; IPv4 is enough
	}
	return []net.Listener{v4, v6}, nil
}

// Serve answers by h on every listener until ctx is done, and then closes them.
// It returns when every request has ended; profiles and scrapes that take
// longer than a second are cut.
func Serve(ctx context.Context, h http.Handler, log *slog.Logger, listeners ...net.Listener) error {
	s := &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 2 * time.Second,
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    8 << 10,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	ended := make(chan error, len(listeners))
	for _, l := range listeners {
		go func() { ended <- s.Serve(l) }()
	}
	var err error
	running := len(listeners)
	select {
	case <-ctx.Done():
	case err = <-ended:
		running--
	}
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	if s.Shutdown(grace) != nil {
		s.Close()
	}
	for range running {
		<-ended
	}
	if errors.Is(err, http.ErrServerClosed) || err == nil {
		return nil
	}
	return fmt.Errorf("serving http: %w", err)
}
