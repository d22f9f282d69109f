package echo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
)

// Answer is what the HTTP server says about a request.
type Answer struct {
	Hostname  string              `json:"hostname"`
	Version   string              `json:"version,omitempty"`
	Node      string              `json:"node,omitempty"` // environment NODE_NAME
	Remote    string              `json:"remote"`         // the client's address, as the connection has it
	Local     string              `json:"local"`
	Proto     string              `json:"proto"`
	Method    string              `json:"method"`
	Host      string              `json:"host"`
	Path      string              `json:"path"`
	Headers   map[string][]string `json:"headers"`
	BodyBytes int64               `json:"bodyBytes"`
	Upstreams []Upstream          `json:"upstreams,omitempty"`
}

// Upstream is the outcome of one call to an upstream.
type Upstream struct {
	URL    string          `json:"url"`
	Status int             `json:"status,omitempty"` // of HTTP
	Answer json.RawMessage `json:"answer,omitempty"`
	Error  string          `json:"error,omitempty"`
}

func (s *server) serveHTTP(ctx context.Context, l net.Listener) error {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	srv := &http.Server{Handler: http.HandlerFunc(s.handle), Protocols: protocols, ReadHeaderTimeout: 30 * time.Second}
	done := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(done)
		grace, cancel := context.WithTimeout(context.Background(), s.cfg.Grace)
		defer cancel()
		if srv.Shutdown(grace) != nil {
			srv.Close()
		}
	})
	err := srv.Serve(l)
	if !stop() {
		<-done
	}
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// fault answers /fault: a PUT with the query status=CODE makes every later
// request be answered so, a DELETE ends it. The kubelet's probes, at /ready,
// stay as they are: a sick program is often a ready one.
func (s *server) fault(w http.ResponseWriter, r *http.Request) {
	switch r.Method {
	case http.MethodPut:
		code, err := strconv.Atoi(r.URL.Query().Get("status"))
		if err != nil || code < 200 || code > 599 {
			http.Error(w, "want a status from 200 to 599", http.StatusBadRequest)
			return
		}
		s.faulty.Store(int32(code))
	case http.MethodDelete:
		s.faulty.Store(0)
	default:
		http.Error(w, "want PUT or DELETE", http.StatusMethodNotAllowed)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// handle serves the HTTP ports. It looks at paths as they came: a mux would
// clean them.
func (s *server) handle(w http.ResponseWriter, r *http.Request) {
	switch code := int(s.faulty.Load()); {
	case r.URL.Path == "/fault":
		s.fault(w, r)
	case r.URL.Path == "/ready":
		fmt.Fprintln(w, "ready")
	case code != 0:
		http.Error(w, s.name+" is told to fail", code)
	default:
		s.answer(w, r)
	}
}

// answer understands these queries: status=CODE, delay=DURATION, size=BYTES (of
// an answer that is not JSON). The path /call calls the upstreams first.
func (s *server) answer(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	if d, err := time.ParseDuration(q.Get("delay")); err == nil {
		select {
		case <-time.After(d):
		case <-r.Context().Done():
			return
		}
	}
	n, err := io.Copy(io.Discard, r.Body)
	if err != nil {
		http.Error(w, "read body: "+err.Error(), http.StatusBadRequest)
		return
	}
	status := http.StatusOK
	if code, err := strconv.Atoi(q.Get("status")); err == nil && code >= 200 && code < 600 {
		status = code
	}
	if size, err := strconv.ParseInt(q.Get("size"), 10, 64); err == nil && size >= 0 {
		w.Header().Set("Content-Type", "application/octet-stream")
		w.Header().Set("Content-Length", strconv.FormatInt(size, 10))
		w.WriteHeader(status)
		_, _ = io.Copy(w, pattern(size))
		return
	}
	a := s.describe(r, n)
	if r.URL.Path == "/call" {
		a.Upstreams = s.callAll(r.Context())
		for _, u := range a.Upstreams {
			if u.Error != "" {
				status = http.StatusBadGateway
			}
		}
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(a)
}

func (s *server) describe(r *http.Request, body int64) Answer {
	local, _ := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	return Answer{
		Hostname: s.name, Version: s.cfg.Version, Node: os.Getenv("NODE_NAME"),
		Remote: r.RemoteAddr, Local: fmt.Sprint(local), Proto: r.Proto, Method: r.Method,
		Host: r.Host, Path: r.URL.Path, Headers: r.Header, BodyBytes: body,
	}
}

// upstreamTimeout bounds one call to an upstream.
const upstreamTimeout = 5 * time.Second

// callAll calls every upstream, one after the other, each by a new connection.
func (s *server) callAll(ctx context.Context) []Upstream {
	var out []Upstream
	for _, url := range s.cfg.Upstreams {
		ctx, cancel := context.WithTimeout(ctx, upstreamTimeout)
		u := Upstream{URL: url}
		var err error
		if addr, ok := strings.CutPrefix(url, "tcp://"); ok {
			u.Answer, err = callTCP(ctx, addr, s.cfg.Marker)
		} else {
			u.Status, u.Answer, err = callHTTP(ctx, url, s.cfg.Marker)
		}
		if err != nil {
			u.Error = err.Error()
		}
		cancel()
		out = append(out, u)
	}
	return out
}

func callHTTP(ctx context.Context, url, marker string) (int, json.RawMessage, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, strings.NewReader(marker))
	if err != nil {
		return 0, nil, err
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	switch {
	case err != nil:
		return resp.StatusCode, nil, err
	case resp.StatusCode != http.StatusOK:
		return resp.StatusCode, nil, fmt.Errorf("status %s", resp.Status)
	case !json.Valid(data):
		return resp.StatusCode, nil, errors.New("the answer is no JSON")
	}
	return resp.StatusCode, data, nil
}

func callTCP(ctx context.Context, addr, marker string) (json.RawMessage, error) {
	back, err := exchange(ctx, addr, marker+"\n")
	if err != nil {
		return nil, err
	}
	return json.Marshal(map[string]string{"echo": strings.TrimSpace(back)})
}

// serveGRPC serves the health service alone, always healthy: what kubelet's
// grpc probe asks for.
func (s *server) serveGRPC(ctx context.Context, l net.Listener) error {
	srv := grpc.NewServer()
	healthpb.RegisterHealthServer(srv, health.NewServer())
	done := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(done)
		t := time.AfterFunc(s.cfg.Grace, srv.Stop)
		defer t.Stop()
		srv.GracefulStop()
	})
	err := srv.Serve(l)
	if !stop() {
		<-done
	}
	if errors.Is(err, grpc.ErrServerStopped) {
		return nil
	}
	return err
}
