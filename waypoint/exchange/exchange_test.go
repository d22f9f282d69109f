package exchange

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ambit-mesh/ambit/internal/certs/certstest"
	"github.com/ambit-mesh/ambit/internal/decision"
	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/internal/telemetry"
	"github.com/ambit-mesh/ambit/waypoint/backendtest"
)

func TestARequestReachesTheServiceWithoutRoutes(t *testing.T) {
	both(t, func(t *testing.T, two bool) {
		r := newRig(t)
		r.service("web", mesh.AppUnknown, r.pod("web-1", backendtest.Named("web-1")))
		resp, body := r.do(two, "GET /path?a=b", "")
		if resp.StatusCode != 200 || body != "web-1" || resp.Header.Get("X-Asked") != "GET web/path?a=b" {
			t.Errorf("%s %q %v", resp.Status, body, resp.Header)
		}
		if want := map[bool]string{false: "HTTP/1.1", true: "HTTP/2.0"}[two]; resp.Header.Get("X-Proto") != want {
			t.Errorf("the backend was spoken to in %s, want the client's %s", resp.Header.Get("X-Proto"), want)
		}
		e := r.last()
		if e.Status != 200 || e.Service.Name != "web" || e.Destination.Name != "web-1" || e.SourceID != certstest.ID("shop", "client") ||
			e.ResponseBytes != 5 || e.Generation != 7 || e.Flag != telemetry.ExchangeOK || len(e.Attempts) != 1 || e.DestinationID != certstest.ID("shop", "web-1") {
			t.Errorf("record %+v", e)
		}
		if s := r.ring.Find(e.ID); len(s) != 1 || s[0].Outcome.Status != 200 {
			t.Errorf("stories %+v", s)
		}
	})
}

func TestTheBackendsProtocolIsTheOneItsPortDeclares(t *testing.T) {
	for app, want := range map[mesh.AppProtocol]string{mesh.AppHTTP11: "HTTP/1.1", mesh.AppHTTP2: "HTTP/2.0", mesh.AppGRPC: "HTTP/2.0"} {
		r := newRig(t)
		r.service("web", app, r.pod("web-1", backendtest.Named("web-1")))
		for _, two := range []bool{false, true} {
			if resp, _ := r.do(two, "GET /", ""); resp.Header.Get("X-Proto") != want {
				t.Errorf("a port of kind %d was spoken to in %q, want %s", app, resp.Header.Get("X-Proto"), want)
			}
		}
	}
}

func TestAQueryOfHTTP2DoesNotEndTheRequestLine(t *testing.T) {
	r := newRig(t)
	r.service("web", mesh.AppHTTP11, r.pod("web-1", backendtest.Named("web-1")))
	if resp, _ := r.do(true, "GET /path?a=b HTTP/1.1", ""); resp.Header.Get("X-Asked") != "GET web/path?a=b%20HTTP/1.1" {
		t.Errorf("%s, the backend was asked %q", resp.Status, resp.Header.Get("X-Asked"))
	}
}

func TestRulesTakeRequests(t *testing.T) {
	r := newRig(t)
	for _, name := range []string{"web", "v1", "v2"} {
		r.service(name, mesh.AppUnknown, r.pod(name, backendtest.Named(name)))
	}
	header := func(n, v string) []mesh.ValueMatch { return []mesh.ValueMatch{{Name: n, Value: v}} }
	edit := func(name, value string) *mesh.HeaderEdit {
		return &mesh.HeaderEdit{Set: []mesh.Header{{Name: name, Value: value}}}
	}
	r.rules(
		mesh.RouteRule{Matches: []mesh.RequestMatch{{Headers: header("end-user", "jason")}}, Backends: []mesh.Backend{to("v2", 1)}},
		mesh.RouteRule{Matches: []mesh.RequestMatch{{Path: mesh.PathMatch{Op: mesh.PathPrefix, Value: "/v1"}}}, Backends: []mesh.Backend{to("v1", 1)}},
		mesh.RouteRule{
			Matches: []mesh.RequestMatch{{Path: mesh.PathMatch{Op: mesh.PathPrefix, Value: "/old"}}},
			Filters: mesh.Filters{Redirect: &mesh.Redirect{Host: "new.example", Status: 301, Path: &mesh.PathEdit{Op: mesh.PathReplacePrefix, Value: "/new"}}},
		},
		mesh.RouteRule{
			Matches: []mesh.RequestMatch{{Path: mesh.PathMatch{Op: mesh.PathPrefix, Value: "/api"}}},
			Filters: mesh.Filters{
				Rewrite:  &mesh.Rewrite{Host: "inner", Path: &mesh.PathEdit{Op: mesh.PathReplacePrefix, Value: "/"}},
				Response: edit("X-Edited", "yes"),
			},
			Backends: []mesh.Backend{to("v1", 1)},
		},
		mesh.RouteRule{Matches: []mesh.RequestMatch{{Path: mesh.PathMatch{Op: mesh.PathExact, Value: "/none"}}}},
		mesh.RouteRule{
			Matches:  []mesh.RequestMatch{{Path: mesh.PathMatch{Op: mesh.PathExact, Value: "/invalid"}}},
			Backends: []mesh.Backend{{Service: key("gone"), Port: 80, Weight: 1, Invalid: "no such service"}},
		},
		mesh.RouteRule{
			Matches:  []mesh.RequestMatch{{Path: mesh.PathMatch{Op: mesh.PathExact, Value: "/empty"}}},
			Backends: []mesh.Backend{to("empty", 1)},
		},
		mesh.RouteRule{
			Matches: []mesh.RequestMatch{{Path: mesh.PathMatch{Op: mesh.PathExact, Value: "/cors"}}},
			Filters: mesh.Filters{CORS: &mesh.CORS{AllowOrigins: []string{"http://a.example"}, AllowMethods: []string{"PUT"}}}, Backends: []mesh.Backend{to("v1", 1)},
		},
	)
	r.service("empty", mesh.AppUnknown)
	for _, c := range []struct {
		line, header string
		status       int
		body, asked  string
		answer       string
		flag         telemetry.ExchangeFlag
	}{
		{line: "GET /", header: "End-User: jason", status: 200, body: "v2", asked: "GET web/", flag: "-"},
		{line: "GET /v1/x?q", status: 200, body: "v1", asked: "GET web/v1/x?q", flag: "-"},
		{line: "GET /a/../v1/%78", status: 200, body: "v1", asked: "GET web/v1/x", flag: "-"},
		{line: "GET /old/x?q", status: 301, answer: "Location: http://new.example/new/x?q", flag: "-"},
		{line: "GET /api/x", status: 200, body: "v1", asked: "GET inner/x", answer: "X-Edited: yes", flag: "-"},
		{line: "GET /none", status: 500, body: "no valid backend", flag: "NC"},
		{line: "GET /invalid", status: 500, body: "no valid backend", flag: "NC"},
		{line: "GET /empty", status: 503, body: "no healthy upstream", flag: "UH"},
		{line: "GET /elsewhere", status: 404, body: "no route", flag: "NR"},
		{line: "OPTIONS /cors", header: "Origin: http://a.example\nAccess-Control-Request-Method: PUT", status: 204, answer: "Access-Control-Allow-Origin: http://a.example", flag: "-"},
		{line: "GET /cors", header: "Origin: http://a.example", status: 200, body: "v1", answer: "Access-Control-Allow-Origin: http://a.example", flag: "-"},
	} {
		for _, two := range []bool{false, true} {
			var header []string
			if c.header != "" {
				header = strings.Split(c.header, "\n")
			}
			resp, body := r.do(two, c.line, "", header...)
			if resp.StatusCode != c.status || body != c.body {
				t.Errorf("%s: %d %q, want %d %q", c.line, resp.StatusCode, body, c.status, c.body)
			}
			if c.asked != "" && resp.Header.Get("X-Asked") != c.asked {
				t.Errorf("%s: the backend was asked %q, want %q", c.line, resp.Header.Get("X-Asked"), c.asked)
			}
			if k, v, ok := strings.Cut(c.answer, ": "); ok && resp.Header.Get(k) != v {
				t.Errorf("%s: %s is %q, want %q", c.line, k, resp.Header.Get(k), v)
			}
			if e := r.last(); e.Flag != c.flag || e.Status != c.status {
				t.Errorf("%s: recorded %d with %s, want %s", c.line, e.Status, e.Flag, c.flag)
			}
		}
	}
}

func TestWeightsShareRequests(t *testing.T) {
	r := newRig(t)
	for _, name := range []string{"web", "v1", "v2"} {
		r.service(name, mesh.AppUnknown, r.pod(name, backendtest.Named(name)))
	}
	r.rules(mesh.RouteRule{Backends: []mesh.Backend{to("v1", 90), to("v2", 10)}})
	client, count := r.client(false), map[string]int{}
	for range 1000 {
		resp, err := client.Get("http://web/")
		if err != nil {
			t.Fatal(err)
		}
		b, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		count[string(b)]++
	}
	if n := count["v2"]; n < 60 || n > 150 || count["v1"]+n != 1000 {
		t.Errorf("shares %v, want about 900 to 100", count)
	}
	if n := r.forward.Handshakes(); n > 4 {
		t.Errorf("1000 requests to two backends cost %d handshakes", n)
	}
}

func TestADeniedRequestReachesNobody(t *testing.T) {
	both(t, func(t *testing.T, two bool) {
		r := newRig(t)
		var asked atomic.Int64
		r.service("web", mesh.AppUnknown, r.pod("web", backendtest.HTTP(func(w http.ResponseWriter, _ *http.Request) { asked.Add(1) })))
		k := mesh.PolicyKey{Namespace: "shop", Name: "no-deletes"}
		r.state.model.Policies[k] = &mesh.Policy{Key: k, Action: mesh.ActionDeny, Rules: []mesh.Rule{{Clauses: []mesh.Clause{{Matches: []mesh.Match{{
			HTTP: &mesh.HTTPMatch{Methods: []mesh.StringMatch{{Value: "DELETE"}}},
		}}}}}}}
		r.publish()
		resp, body := r.do(two, "DELETE /x", "")
		e := r.last()
		if resp.StatusCode != 403 || body != "RBAC: access denied" || resp.Header.Get(decision.Header) != e.ID {
			t.Errorf("%s %q %v, decision %s", resp.Status, body, resp.Header, e.ID)
		}
		if e.Flag != telemetry.ExchangeDenied || e.Policy != k || asked.Load() != 0 {
			t.Errorf("record %+v; asked %d", e, asked.Load())
		}
		if resp, _ := r.do(two, "GET /x", ""); resp.StatusCode != 200 || asked.Load() != 1 {
			t.Errorf("%s, asked %d", resp.Status, asked.Load())
		}
		resp, _ = r.do(true, "DELETE /a.B/C", "", "Content-Type: application/grpc")
		if resp.StatusCode != 200 || resp.Header.Get("Grpc-Status") != "7" || resp.Header.Get("Content-Type") != "application/grpc" {
			t.Errorf("gRPC: %s %v", resp.Status, resp.Header)
		}
	})
}

func TestHeadersOfAConnectionGoNoFurther(t *testing.T) {
	r := newRig(t)
	var got atomic.Pointer[http.Header]
	var host atomic.Value
	r.service("web", mesh.AppUnknown, r.pod("web", backendtest.HTTP(func(w http.ResponseWriter, q *http.Request) {
		h := q.Header.Clone()
		got.Store(&h)
		host.Store(q.Host)
		w.Header().Set("Connection", "X-Secret")
		w.Header().Set("X-Secret", "s")
		w.Header().Set("Keep-Alive", "timeout=5")
		w.Header().Set("X-Kept", "k")
	})))
	resp, _ := r.do(false, "GET /", "", "Connection: X-Hop, keep-alive", "X-Hop: 1", "Keep-Alive: 5", "Proxy-Authorization: basic", "Te: gzip", "Upgrade: h2c",
		"Http2-Settings: AAMAAABkAAQAAP__", "X-Forwarded-For: 1.2.3.4", "X-Forwarded-Client-Cert: By=me", "X-Kept: yes", "X-Forwarded-Proto: https")
	h := *got.Load()
	for _, name := range []string{"Connection", "X-Hop", "Keep-Alive", "Proxy-Authorization", "Te", "Upgrade", "Http2-Settings", "X-Forwarded-Client-Cert", "User-Agent"} {
		if name == "User-Agent" {
			continue // Go's client names itself
		}
		if v, ok := h[name]; ok {
			t.Errorf("the backend got %s: %q", name, v)
		}
	}
	for name, want := range map[string]string{"X-Forwarded-For": "1.2.3.4, 10.1.0.5", "X-Forwarded-Proto": "https", "X-Kept": "yes"} {
		if h.Get(name) != want {
			t.Errorf("the backend got %s: %q, want %q", name, h.Get(name), want)
		}
	}
	if len(h.Get("X-Request-Id")) != 36 || host.Load() != "web" {
		t.Errorf("request id %q, host %q", h.Get("X-Request-Id"), host.Load())
	}
	if resp.Header.Get("X-Secret") != "" || resp.Header.Get("Keep-Alive") != "" || resp.Header.Get("X-Kept") != "k" {
		t.Errorf("the client got %v", resp.Header)
	}
}

func TestNothingIsAddedToWhatABackendSays(t *testing.T) {
	r := newRig(t)
	r.service("web", mesh.AppUnknown, r.pod("web", backendtest.TCP(func(c *net.TCPConn) {
		defer c.Close()
		io.ReadAtLeast(c, make([]byte, 4096), 1)
		io.WriteString(c, "HTTP/1.1 200 OK\r\nDate: then\r\nContent-Length: 6\r\n\r\n<html>")
		io.Copy(io.Discard, c)
	})))
	resp, body := r.do(false, "GET /", "")
	if body != "<html>" || len(resp.Header) != 2 || resp.Header.Get("Date") != "then" {
		t.Errorf("%q %v", body, resp.Header)
	}
}

func TestTrailersPassBothWays(t *testing.T) {
	both(t, func(t *testing.T, two bool) {
		r := newRig(t)
		r.service("web", mesh.AppUnknown, r.pod("web", backendtest.HTTP(func(w http.ResponseWriter, q *http.Request) {
			w.Header().Set("Trailer", "X-Announced")
			b, _ := io.ReadAll(q.Body)
			w.Write(b)
			w.Header().Set("X-Announced", q.Trailer.Get("X-Client"))
			w.Header().Set(http.TrailerPrefix+"X-Late", "late")
		})))
		req, _ := http.NewRequestWithContext(backendtest.Within(t), "POST", "http://web/", io.NopCloser(strings.NewReader("body")))
		req.Trailer = http.Header{"X-Client": {"from the client"}}
		resp, err := r.client(two).Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, _ := io.ReadAll(resp.Body)
		if string(body) != "body" || resp.Trailer.Get("X-Announced") != "from the client" || resp.Trailer.Get("X-Late") != "late" {
			t.Errorf("%q, trailers %v", body, resp.Trailer)
		}
	})
}

func TestInterimAnswersPass(t *testing.T) {
	both(t, func(t *testing.T, two bool) {
		r := newRig(t)
		r.service("web", mesh.AppUnknown, r.pod("web", backendtest.HTTP(func(w http.ResponseWriter, q *http.Request) {
			w.Header().Set("Link", "</style.css>")
			w.WriteHeader(http.StatusEarlyHints)
			w.Header().Del("Link")
			if q.Header.Get("X-Refuse") != "" {
				w.WriteHeader(417)
				return
			}
			io.Copy(w, q.Body)
		})))
		var hints, continues atomic.Int64
		ctx := httptrace.WithClientTrace(backendtest.Within(t), &httptrace.ClientTrace{
			Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
				if code == 103 && h.Get("Link") != "" {
					hints.Add(1)
				}
				return nil
			},
			Got100Continue: func() { continues.Add(1) },
		})
		send := func(header string) (*http.Response, string, bool) {
			// In HTTP/2 it may still be read when the answer has come.
			var read atomic.Bool
			body := readerFunc(func(p []byte) (int, error) {
				if read.Swap(true) {
					return 0, io.EOF
				}
				return copy(p, "body"), nil
			})
			req, _ := http.NewRequestWithContext(ctx, "POST", "http://web/", body)
			req.ContentLength = 4
			req.Header.Set("Expect", "100-continue")
			if header != "" {
				req.Header.Set(header, "1")
			}
			resp, err := r.client(two).Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			b, _ := io.ReadAll(resp.Body)
			return resp, string(b), read.Load()
		}
		if resp, body, _ := send(""); resp.StatusCode != 200 || body != "body" || hints.Load() != 1 || continues.Load() != 1 || resp.Header.Get("Link") != "" {
			t.Errorf("%s %q, %d hints, %d continues", resp.Status, body, hints.Load(), continues.Load())
		}
		if resp, _, sent := send("X-Refuse"); resp.StatusCode != 417 || sent && !two {
			t.Errorf("%s; the body was sent: %v", resp.Status, sent)
		}
	})
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

func TestBothDirectionsStream(t *testing.T) {
	both(t, func(t *testing.T, two bool) {
		r := newRig(t)
		r.service("web", mesh.AppUnknown, r.pod("web", backendtest.HTTP(func(w http.ResponseWriter, q *http.Request) {
			rc := http.NewResponseController(w)
			rc.EnableFullDuplex()
			rc.Flush()
			b := make([]byte, 100)
			for {
				n, err := q.Body.Read(b)
				w.Write(bytes.ToUpper(b[:n]))
				rc.Flush()
				if err != nil {
					return
				}
			}
		})))
		body, send := io.Pipe()
		req, _ := http.NewRequestWithContext(backendtest.Within(t), "POST", "http://web/", body)
		resp, err := r.client(two).Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		for i := range 5 {
			text := fmt.Sprintf("message %d", i)
			io.WriteString(send, text)
			got := make([]byte, len(text))
			if _, err := io.ReadFull(resp.Body, got); err != nil || string(got) != strings.ToUpper(text) {
				t.Fatalf("%q, %v", got, err)
			}
		}
		send.Close()
		if b, err := io.ReadAll(resp.Body); err != nil || len(b) > 0 {
			t.Errorf("%q, %v", b, err)
		}
	})
}

func TestAGibibyteNeedsLittleMemory(t *testing.T) {
	if testing.Short() {
		t.Skip("moves two gibibytes")
	}
	both(t, func(t *testing.T, two bool) {
		r := newRig(t)
		r.service("web", mesh.AppUnknown, r.pod("web", backendtest.HTTP(func(w http.ResponseWriter, q *http.Request) {
			http.NewResponseController(w).EnableFullDuplex()
			io.Copy(w, q.Body)
		})))
		const size = 1 << 30
		var peak atomic.Uint64
		ctx, cancel := context.WithCancel(t.Context())
		var watch sync.WaitGroup
		watch.Go(func() {
			for ctx.Err() == nil {
				var m runtime.MemStats
				runtime.ReadMemStats(&m)
				peak.Store(max(peak.Load(), m.HeapInuse))
				time.Sleep(20 * time.Millisecond)
			}
		})
		req, _ := http.NewRequestWithContext(t.Context(), "POST", "http://web/", io.LimitReader(zeros{}, size))
		req.ContentLength = size
		resp, err := r.client(two).Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		n, err := io.Copy(io.Discard, resp.Body)
		cancel()
		watch.Wait()
		if n != size || err != nil {
			t.Errorf("%d bytes came back, %v", n, err)
		}
		t.Logf("heap in use at most %d MiB, both ends included", peak.Load()>>20)
		if peak.Load() > 200<<20 {
			t.Errorf("the heap grew to %d MiB", peak.Load()>>20)
		}
	})
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }
