package admin

import (
	"encoding/json"
	"fmt"
	"html"
	"log/slog"
	"maps"
	"net/http"
	"net/http/pprof"
	"slices"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Config says what the administration handler reaches.
type Config struct {
	// Name is the component's, for the index.
	Name string
	// Dump gives /config_dump as a value that encoding/json understands.
	Dump func() any
	// Levels is what /logging reads and changes.
	Levels *Levels
	// Quit begins a graceful shutdown.
	Quit func()
	// More are further pages, by pattern of http.ServeMux.
	More map[string]http.Handler
}

// Handler serves the administration of c.
func Handler(c Config) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		fmt.Fprintf(w, index, c.Name, morePages(c.More))
	})
	mux.HandleFunc("GET /config_dump", func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, c.Dump()) })
	mux.HandleFunc("POST /logging", func(w http.ResponseWriter, r *http.Request) { logging(w, r, c.Levels) })
	mux.HandleFunc("POST /quitquitquit", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintln(w, "shutting down")
		c.Quit()
	})
	for pattern, h := range c.More {
		mux.Handle(pattern, h)
	}
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	return mux
}

const index = `<!doctype html><title>%[1]s</title><h1>%[1]s</h1>
<ul>
<li><a href="/config_dump">/config_dump</a> the state as JSON
<li>POST /logging?level=info,access=debug the log levels; ?reset; without a query shows them
<li>POST /quitquitquit graceful shutdown
<li><a href="/debug/pprof/">/debug/pprof/</a> profiles
%[2]s</ul>
`

// morePages are the lines of the index for a component's own pages.
func morePages(more map[string]http.Handler) string {
	var b strings.Builder
	for _, pattern := range slices.Sorted(maps.Keys(more)) {
		fmt.Fprintf(&b, "<li>%s\n", html.EscapeString(pattern))
	}
	return b.String()
}

// JSON is a page that shows a value, asked for anew each time.
func JSON(value func() any) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, value()) })
}

func writeJSON(w http.ResponseWriter, v any) {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Write(append(b, '\n'))
}

func logging(w http.ResponseWriter, r *http.Request, l *Levels) {
	q := r.URL.Query()
	switch {
	case q.Has("reset"):
		l.Reset()
	case q.Has("level"):
		if err := l.Set(q.Get("level")); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
	}
	fmt.Fprintf(w, "current log level is %s\n", l)
}

// MetricsHandler serves /metrics and /stats/prometheus.
func MetricsHandler(r *prometheus.Registry, log *slog.Logger) http.Handler {
	h := promhttp.HandlerFor(r, promhttp.HandlerOpts{
		EnableOpenMetrics: true,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelWarn),
		ErrorHandling:     promhttp.ContinueOnError,
	})
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", h)
	mux.Handle("GET /stats/prometheus", h)
	return mux
}
