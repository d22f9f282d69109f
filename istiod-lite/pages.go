package istiodlite

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/pprof"
	"time"

	"github.com/ambit-mesh/ambit/internal/admin"
	"github.com/ambit-mesh/ambit/internal/health"
	"github.com/ambit-mesh/ambit/internal/heard"
	"github.com/ambit-mesh/ambit/internal/mesh"
)

// pages are readiness and what node agents ask for everybody, and the rest for whoever is let into the
// pod: they tell all about the mesh.
func (p *plane) pages() http.Handler {
	m := http.NewServeMux()
	m.HandleFunc("GET /ready", func(w http.ResponseWriter, _ *http.Request) {
		if !p.ready.Load() {
			http.Error(w, "the mesh has not been read yet", http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ready")
	})
	m.HandleFunc("POST "+heard.Path, p.heard)
	debug := http.NewServeMux()
	debug.HandleFunc("GET /debug/syncz", p.page(func() any { return p.pusher.Status() }))
	debug.HandleFunc("GET /debug/ambientz", p.page(func() any { return dump(p.model.Load()) }))
	debug.HandleFunc("GET /debug/conditions", p.page(func() any { return p.model.Load().conditions }))
	debug.HandleFunc("GET /debug/generation", p.page(func() any { return p.standing() }))
	debug.HandleFunc("GET "+health.Path, p.page(func() any { return p.health() }))
	debug.HandleFunc("GET /debug/ca", p.page(func() any { return p.conductor.Report() }))
	debug.HandleFunc("POST /debug/held", p.held)
	debug.HandleFunc("GET /debug/pprof/", pprof.Index)
	debug.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	debug.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	m.Handle("/debug/", admin.Local(debug))
	return m
}

// page writes a value as JSON once there is a mesh to tell about.
func (p *plane) page(value func() any) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		if !p.ready.Load() {
			http.Error(w, "the mesh has not been read yet", http.StatusServiceUnavailable)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		if err := e.Encode(value()); err != nil {
			p.log.Warn("writing a debug page", "reason", err)
		}
	}
}

// dump is the model in a form that JSON can hold.
func dump(m *published) any {
	services, policies := map[string]any{}, map[string]any{}
	for k, s := range m.model.Services {
		services[k.String()] = s
	}
	for k, p := range m.model.Policies {
		policies[k.String()] = p
	}
	workloads := map[string]any{}
	for uid, w := range m.model.Workloads {
		ports := map[string][]mesh.Port{}
		for k, p := range w.Services {
			ports[k.String()] = p
		}
		workloads[uid] = struct {
			*mesh.Workload
			Services map[string][]mesh.Port
		}{w, ports}
	}
	return map[string]any{
		"generation": m.generation, "at": m.at, "mesh": m.mesh,
		"workloads": workloads, "services": services, "policies": policies,
	}
}

// serveHTTP serves until ctx ends; a nil listener is not served.
func (p *plane) serveHTTP(ctx context.Context, l net.Listener, h http.Handler) error {
	if l == nil {
		return nil
	}
	s := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: time.Minute}
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	select {
	case err := <-served:
		return fmt.Errorf("serving %s: %w", l.Addr(), err)
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopGrace)
	defer cancel()
	if err := s.Shutdown(grace); errors.Is(err, context.DeadlineExceeded) {
		s.Close()
	}
	<-served
	return nil
}
