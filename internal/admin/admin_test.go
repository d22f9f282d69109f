package admin

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

func parsed(t *testing.T, text string) *Levels {
	t.Helper()
	l, err := ParseLevels(text)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func call(h http.Handler, method, path string) (int, string) {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(method, path, nil))
	return w.Code, w.Body.String()
}

func TestAdministration(t *testing.T) {
	quit := 0
	h := Handler(Config{
		Name: "ztunnel", Dump: func() any { return map[string]int{"workloads": 3} },
		Levels: parsed(t, "info"), Quit: func() { quit++ },
		More: map[string]http.Handler{"GET /own/{x}": http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "own "+r.PathValue("x")) })},
	})
	for _, c := range []struct {
		name, method, path string
		status             int
		contains           string
	}{
		{"the index names what there is", "GET", "/", 200, "/config_dump"},
		{"the index names a component's own pages", "GET", "/", 200, "<li>GET /own/{x}"},
		{"a component's own page", "GET", "/own/thing", 200, "own thing"},
		{"the dump is JSON", "GET", "/config_dump", 200, `"workloads": 3`},
		{"levels are shown", "POST", "/logging", 200, "current log level is info"},
		{"levels are changed", "POST", "/logging?level=warn,access=debug", 200, "warn,access=debug"},
		{"a level that is none is refused", "POST", "/logging?level=loud", 400, "loud"},
		{"the refused one changed nothing", "POST", "/logging", 200, "warn,access=debug"},
		{"levels are reset", "POST", "/logging?reset", 200, "current log level is info"},
		{"reading cannot change levels", "GET", "/logging?level=debug", 405, ""},
		{"reading cannot quit", "GET", "/quitquitquit", 405, ""},
		{"posting quits", "POST", "/quitquitquit", 200, "shutting down"},
		{"profiles are there", "GET", "/debug/pprof/goroutine?debug=1", 200, "goroutine profile"},
		{"nothing else is", "GET", "/etc/passwd", 404, ""},
	} {
		status, body := call(h, c.method, c.path)
		if status != c.status || !strings.Contains(body, c.contains) {
			t.Errorf("%s: %d %q, want %d with %q", c.name, status, body, c.status, c.contains)
		}
	}
	if quit != 1 {
		t.Errorf("quit %d times, want once", quit)
	}
}

func TestReadinessWaitsForEveryTask(t *testing.T) {
	var r Readiness
	h := ReadyHandler(&r)
	expect := func(status int, body string) {
		t.Helper()
		if s, b := call(h, "GET", "/healthz/ready"); s != status || b != body {
			t.Errorf("%d %q, want %d %q", s, b, status, body)
		}
	}
	expect(200, "ready\n")
	state, pods := r.Task("state manager"), r.Task("pods")
	expect(500, "not ready, pending: pods, state manager\n")
	state.Set(true)
	state.Set(true)
	expect(500, "not ready, pending: pods\n")
	pods.Set(true)
	expect(200, "ready\n")
	pods.Set(false)
	expect(500, "not ready, pending: pods\n")
	if s, _ := call(h, "GET", "/other"); s != 404 {
		t.Errorf("another path: %d", s)
	}
}

func TestLevelsHoldByComponent(t *testing.T) {
	var out bytes.Buffer
	l := parsed(t, "warn,access=debug,xds=off")
	log := slog.New(l.Handler(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.Level(-100)})))
	say := func(component, text string, level slog.Level) {
		log.With("component", component).Log(t.Context(), level, text)
	}
	say("access", "kept1", slog.LevelDebug)
	say("other", "dropped1", slog.LevelInfo)
	say("other", "kept2", slog.LevelWarn)
	say("xds", "dropped2", slog.LevelError)
	if err := l.Set("debug"); err != nil {
		t.Fatal(err)
	}
	say("xds", "kept3", slog.LevelDebug)
	l.Reset()
	say("other", "dropped3", slog.LevelInfo)
	for _, kept := range []string{"kept1", "kept2", "kept3"} {
		if !strings.Contains(out.String(), kept) {
			t.Errorf("%s is missing", kept)
		}
	}
	if strings.Contains(out.String(), "dropped") {
		t.Errorf("too much was said:\n%s", out.String())
	}
}

func TestALoggerWritesInTheFormatAskedFor(t *testing.T) {
	for format, want := range map[string]string{"json": `"msg":"kept"`, "": "msg=kept", "plain": "msg=kept"} {
		var out bytes.Buffer
		log := parsed(t, "debug").Logger(&out, format)
		log.Debug("kept")
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q: %s", format, out.String())
		}
	}
	var out bytes.Buffer
	if parsed(t, "warn").Logger(&out, "json").Info("dropped"); out.Len() > 0 {
		t.Errorf("the levels do not hold: %s", out.String())
	}
}

func TestMetricsAreServedOnBothPaths(t *testing.T) {
	r := prometheus.NewRegistry()
	c := prometheus.NewCounter(prometheus.CounterOpts{Name: "things_total", Help: "things"})
	c.Inc()
	r.MustRegister(c)
	h := MetricsHandler(r, slog.New(slog.DiscardHandler))
	for _, path := range []string{"/metrics", "/stats/prometheus"} {
		if status, body := call(h, "GET", path); status != 200 || !strings.Contains(body, "things_total 1") {
			t.Errorf("%s: %d %q", path, status, body)
		}
	}
}

func TestServeEndsWithItsContext(t *testing.T) {
	listeners, err := ListenLoopback(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- Serve(ctx, ReadyHandler(&Readiness{}), slog.New(slog.DiscardHandler), listeners...) }()
	for _, l := range listeners {
		resp, err := http.Get("http://" + l.Addr().String() + "/healthz/ready")
		if err != nil {
			t.Fatal(err)
		}
		io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("ended with %v", err)
	}
	if c, err := net.Dial("tcp", listeners[0].Addr().String()); err == nil {
		c.Close()
		t.Error("still listening")
	}
}
