package admin

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
)

// Servers are the three beside a proxy.
type Servers struct {
	// Admin is what administration reaches. Levels nil is a set that nothing
	// listens to.
	Admin Config
	// Metrics are shown, and what Readiness waits for.
	Metrics   *prometheus.Registry
	Readiness *Readiness
	// AdminPort, MetricsPort and ReadyPort are 15000, 15020 and 15021 if zero.
	AdminPort, MetricsPort, ReadyPort uint16
	Logger                            *slog.Logger
}

// Start binds all ports, so that a conflict is told at once, and has group
// serve them until ctx is done. After an error none is bound.
func (s Servers) Start(ctx context.Context, group *errgroup.Group) error {
	if s.Admin.Levels == nil {
		s.Admin.Levels, _ = ParseLevels("")
	}
	local, err := ListenLoopback(ctx, cmp.Or(s.AdminPort, 15000))
	if err != nil {
		return err
	}
	open := local
	for _, port := range []uint16{cmp.Or(s.MetricsPort, 15020), cmp.Or(s.ReadyPort, 15021)} {
		l, err := new(net.ListenConfig).Listen(ctx, "tcp", fmt.Sprintf(":%d", port))
		if err != nil {
			for _, l := range open {
				l.Close()
			}
			return fmt.Errorf("listening for metrics and readiness: %w", err)
		}
		open = append(open, l)
	}
	metrics, ready := open[len(local)], open[len(local)+1]
	serve := func(h http.Handler, at ...net.Listener) {
		group.Go(func() error { return Serve(ctx, h, s.Logger, at...) })
	}
	serve(Handler(s.Admin), local...)
	serve(MetricsHandler(s.Metrics, s.Logger), metrics)
	serve(ReadyHandler(s.Readiness), ready)
	return nil
}
