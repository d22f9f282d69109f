package admin

import (
	"context"
	"log/slog"
	"net/http"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/ambit-mesh/ambit/internal/admin/admintest"
)

// beside are servers on free ports.
func beside(t *testing.T) Servers {
	return Servers{
		Admin:   Config{Name: "ztunnel", Dump: func() any { return "everything" }, Quit: func() {}},
		Metrics: prometheus.NewRegistry(), Readiness: &Readiness{}, Logger: slog.New(slog.DiscardHandler),
		AdminPort: admintest.FreePort(t), MetricsPort: admintest.FreePort(t), ReadyPort: admintest.FreePort(t),
	}
}

func TestTheServersBesideAProxyAnswerUntilItEnds(t *testing.T) {
	s := beside(t)
	ctx, cancel := context.WithCancel(t.Context())
	group, ctx := errgroup.WithContext(ctx)
	if err := s.Start(ctx, group); err != nil {
		t.Fatal(err)
	}
	admintest.Until(t, s.AdminPort, "/config_dump", http.StatusOK, "everything")
	admintest.Until(t, s.MetricsPort, "/metrics", http.StatusOK, "")
	admintest.Until(t, s.ReadyPort, "/healthz/ready", http.StatusOK, "ready")
	cancel()
	if err := group.Wait(); err != nil {
		t.Errorf("ended with %v", err)
	}
	nobodyAnswers(t, s)
}

func TestAPortThatIsTakenIsToldAndTheOthersAreFreed(t *testing.T) {
	taken := admintest.TakenPort(t)
	for name, spoil := range map[string]func(*Servers){
		"administration": func(s *Servers) { s.AdminPort = taken },
		"metrics":        func(s *Servers) { s.MetricsPort = taken },
		"readiness":      func(s *Servers) { s.ReadyPort = taken },
	} {
		s, group := beside(t), new(errgroup.Group)
		spoil(&s)
		if err := s.Start(t.Context(), group); err == nil || !strings.Contains(err.Error(), name) || !strings.Contains(err.Error(), "address already in use") {
			t.Errorf("%s: %v", name, err)
		}
		for _, port := range []*uint16{&s.AdminPort, &s.MetricsPort, &s.ReadyPort} {
			if *port == taken {
				*port = admintest.FreePort(t)
			}
		}
		nobodyAnswers(t, s)
	}
}

func nobodyAnswers(t *testing.T, s Servers) {
	t.Helper()
	for _, port := range []uint16{s.AdminPort, s.MetricsPort, s.ReadyPort} {
		if _, _, err := admintest.Get(port, "/"); err == nil {
			t.Errorf("port %d still answers", port)
		}
	}
}
