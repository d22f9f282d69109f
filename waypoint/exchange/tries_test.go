package exchange

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ambit-mesh/ambit/internal/certs/certstest"
	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/internal/telemetry"
	"github.com/ambit-mesh/ambit/waypoint/backendtest"
)

// flaky answers the statuses in turn, then 200 with the body it was sent.
func flaky(asked *atomic.Int64, statuses ...int) func(net.Listener) {
	return backendtest.HTTP(func(w http.ResponseWriter, q *http.Request) {
		b, _ := io.ReadAll(q.Body)
		if n := int(asked.Add(1)); n <= len(statuses) {
			w.WriteHeader(statuses[n-1])
			fmt.Fprintf(w, "try %d", n)
			return
		}
		w.Write(b)
	})
}

func TestTriesAreRepeatedAsTheRuleSays(t *testing.T) {
	for _, c := range []struct {
		name     string
		statuses []int
		retry    *mesh.Retry
		body     string
		status   int
		asked    int64
	}{
		{"a listed status", []int{503}, &mesh.Retry{Attempts: 1, Codes: []int{503}}, "body", 200, 2},
		{"as often as allowed", []int{503, 503, 500}, &mesh.Retry{Attempts: 3, Codes: []int{500, 503}}, "body", 200, 4},
		{"and no more", []int{503, 503, 503}, &mesh.Retry{Attempts: 2, Codes: []int{503}}, "", 503, 3},
		{"not a status that is not listed", []int{500}, &mesh.Retry{Attempts: 3, Codes: []int{503}}, "", 500, 1},
		{"not without a word from the author", []int{503}, nil, "", 503, 1},
		{"not with 0 attempts", []int{503}, &mesh.Retry{Codes: []int{503}}, "", 503, 1},
		{"not a body that is too long to keep", []int{503}, &mesh.Retry{Attempts: 3, Codes: []int{503}}, strings.Repeat("x", 65<<10), 503, 1},
		{"a body that just fits", []int{503}, &mesh.Retry{Attempts: 3, Codes: []int{503}}, strings.Repeat("x", 64<<10), 200, 2},
	} {
		for _, two := range []bool{false, true} {
			r := newRig(t)
			var asked atomic.Int64
			r.service("web", mesh.AppUnknown, r.pod("web", flaky(&asked, c.statuses...)))
			r.rules(mesh.RouteRule{Backends: []mesh.Backend{to("web", 1)}, Retry: c.retry})
			resp, body := r.do(two, "POST /", c.body)
			if resp.StatusCode != c.status || asked.Load() != c.asked {
				t.Errorf("%s: %d after %d tries, want %d after %d", c.name, resp.StatusCode, asked.Load(), c.status, c.asked)
			}
			if c.status == 200 && body != c.body {
				t.Errorf("%s: the last try had %d bytes of the body's %d", c.name, len(body), len(c.body))
			}
			if e := r.last(); len(e.Attempts) != int(c.asked) || e.Attempts[0].Status != append(c.statuses, 200)[0] {
				t.Errorf("%s: recorded tries %+v", c.name, e.Attempts)
			}
		}
	}
}

func TestAnEndpointThatCannotBeReachedIsReplaced(t *testing.T) {
	r := newRig(t)
	thief := r.mesh.Pod("thief", certstest.ID("shop", "somebody"), backendtest.Named("thief"))
	r.service("web", mesh.AppUnknown, r.pod("web", backendtest.Named("web")), thief)
	for range 20 {
		if resp, body := r.do(false, "POST /", "x"); resp.StatusCode != 200 || body != "web" {
			t.Errorf("%s %q", resp.Status, body)
		}
	}
	if thief.Tunnelled.Load() > 0 {
		t.Error("a backend of another identity was asked")
	}
}

func TestABackendOfAnotherIdentityIsNeverAsked(t *testing.T) {
	r := newRig(t)
	thief := r.mesh.Pod("thief", certstest.ID("shop", "somebody"), backendtest.Named("thief"))
	r.service("web", mesh.AppUnknown, thief)
	resp, _ := r.do(false, "GET /", "")
	e := r.last()
	if resp.StatusCode != 503 || e.Flag != telemetry.ExchangeRetriesSpent || !strings.Contains(fmt.Sprint(e.Err), "not accepted") || thief.Tunnelled.Load() != 0 {
		t.Errorf("%s, record %+v", resp.Status, e)
	}
}

func TestTimeouts(t *testing.T) {
	for _, c := range []struct {
		name    string
		rule    mesh.RouteRule
		slow    []time.Duration // of the tries
		status  int
		asked   int64
		atLeast time.Duration
	}{
		{"of the whole", mesh.RouteRule{RequestTimeout: 200 * time.Millisecond}, []time.Duration{time.Hour}, 504, 1, 200 * time.Millisecond},
		{"of one try", mesh.RouteRule{BackendTimeout: 200 * time.Millisecond}, []time.Duration{time.Hour}, 504, 1, 200 * time.Millisecond},
		{"of tries that are repeated", mesh.RouteRule{BackendTimeout: 200 * time.Millisecond, Retry: &mesh.Retry{Attempts: 2, Codes: []int{504}}},
			[]time.Duration{time.Hour, time.Hour}, 200, 3, 400 * time.Millisecond},
		{"of the whole with all tries", mesh.RouteRule{RequestTimeout: 500 * time.Millisecond, BackendTimeout: 200 * time.Millisecond, Retry: &mesh.Retry{Attempts: 9, Codes: []int{504}}},
			[]time.Duration{time.Hour, time.Hour, time.Hour, time.Hour}, 504, -1, 500 * time.Millisecond},
		{"that is not reached", mesh.RouteRule{RequestTimeout: time.Hour}, nil, 200, 1, 0},
	} {
		for _, two := range []bool{false, true} {
			r := newRig(t)
			var asked atomic.Int64
			r.service("web", mesh.AppUnknown, r.pod("web", backendtest.HTTP(func(w http.ResponseWriter, q *http.Request) {
				if q.URL.Path == "/warm" {
					return
				}
				if n := int(asked.Add(1)); n <= len(c.slow) {
					select {
					case <-time.After(c.slow[n-1]):
					case <-q.Context().Done():
					}
				}
			})))
			r.do(two, "GET /warm", "") // the time of a handshake is not the point
			c.rule.Backends = []mesh.Backend{to("web", 1)}
			r.rules(c.rule)
			start := time.Now()
			resp, _ := r.do(two, "GET /", "")
			took := time.Since(start)
			if resp.StatusCode != c.status || c.asked > 0 && asked.Load() != c.asked || took < c.atLeast || took > c.atLeast+5*time.Second {
				t.Errorf("%s: %d after %v and %d tries", c.name, resp.StatusCode, took, asked.Load())
			}
			if e := r.last(); c.status == 504 && e.Flag != telemetry.ExchangeTimeout {
				t.Errorf("%s: recorded with %s: %v", c.name, e.Flag, e.Err)
			}
		}
	}
}

func TestATimeoutEndsAnAnswerThatHasBegun(t *testing.T) {
	both(t, func(t *testing.T, two bool) {
		r := newRig(t)
		r.service("web", mesh.AppUnknown, r.pod("web", backendtest.HTTP(func(w http.ResponseWriter, q *http.Request) {
			io.WriteString(w, "begun")
			if q.URL.Path != "/warm" {
				http.NewResponseController(w).Flush()
				<-q.Context().Done()
			}
		})))
		r.do(two, "GET /warm", "")
		r.rules(mesh.RouteRule{Backends: []mesh.Backend{to("web", 1)}, RequestTimeout: 200 * time.Millisecond})
		resp, err := r.client(two).Get("http://web/")
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if b, err := io.ReadAll(resp.Body); err == nil || string(b) != "begun" {
			t.Errorf("%q, %v; want an answer that is visibly not whole", b, err)
		}
		if e := r.last(); e.Flag != telemetry.ExchangeTimeout {
			t.Errorf("recorded with %s", e.Flag)
		}
	})
}

func TestAnAnswerThatBreaksIsVisiblyNotWhole(t *testing.T) {
	both(t, func(t *testing.T, two bool) {
		r := newRig(t)
		r.service("web", mesh.AppHTTP11, r.pod("web", backendtest.TCP(func(c *net.TCPConn) {
			defer c.Close()
			io.ReadAtLeast(c, make([]byte, 4096), 1)
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nbegun")
		})))
		resp, err := r.client(two).Get("http://web/")
		if err == nil {
			defer resp.Body.Close()
			_, err = io.ReadAll(resp.Body)
		}
		if err == nil {
			t.Error("the client takes it for whole")
		}
		if e := r.last(); e.Flag != telemetry.ExchangeBackendEnded {
			t.Errorf("recorded with %s", e.Flag)
		}
	})
}

func TestAClientThatGoesAwayEndsTheBackendsWork(t *testing.T) {
	both(t, func(t *testing.T, two bool) {
		r := newRig(t)
		asked, ended := make(chan bool, 1), make(chan bool, 1)
		r.service("web", mesh.AppUnknown, r.pod("web", backendtest.HTTP(func(_ http.ResponseWriter, q *http.Request) {
			asked <- true
			<-q.Context().Done()
			ended <- true
		})))
		c := r.client(two)
		c.Timeout = 200 * time.Millisecond
		if _, err := c.Get("http://web/"); err == nil {
			t.Error("an answer")
		}
		<-asked
		select {
		case <-ended:
		case <-time.After(10 * time.Second):
			t.Fatal("the backend works on")
		}
		if e := r.last(); e.Flag != telemetry.ExchangeClientEnded {
			t.Errorf("recorded with %s: %v", e.Flag, e.Err)
		}
	})
}

func TestMirrorsGetCopiesAndChangeNothing(t *testing.T) {
	both(t, func(t *testing.T, two bool) {
		r := newRig(t)
		var mu sync.Mutex
		got := map[string]int{}
		mirror := backendtest.HTTP(func(w http.ResponseWriter, q *http.Request) {
			b, _ := io.ReadAll(q.Body)
			mu.Lock()
			defer mu.Unlock()
			got[q.Method+" "+q.Host+q.URL.Path+" "+q.Header.Get("X-Rule")+q.Header.Get("X-Backend")+" "+string(b)]++
			w.WriteHeader(500)
		})
		r.service("web", mesh.AppUnknown, r.pod("web", backendtest.Named("web")))
		r.service("copy", mesh.AppUnknown, r.pod("copy", mirror))
		set := func(n string) *mesh.HeaderEdit { return &mesh.HeaderEdit{Set: []mesh.Header{{Name: n, Value: n}}} }
		chosen := to("web", 1)
		chosen.Filters.Request = set("X-Backend")
		r.rules(mesh.RouteRule{Backends: []mesh.Backend{chosen}, Filters: mesh.Filters{
			Request: set("X-Rule"),
			Mirrors: []mesh.Mirror{
				{Backend: to("copy", 1)}, {Backend: to("copy", 1), Numerator: 0, Denominator: 100},
				{Backend: mesh.Backend{Service: key("gone"), Port: 80, Weight: 1}},
			},
		}})
		for _, body := range []string{"", "body", strings.Repeat("x", 65<<10)} {
			if resp, b := r.do(two, "POST /p", body); resp.StatusCode != 200 || b != "web" {
				t.Errorf("%s %q", resp.Status, b)
			}
		}
		want := map[string]int{"POST web/p X-Rule ": 1, "POST web/p X-Rule body": 1}
		for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
			mu.Lock()
			n := len(got)
			mu.Unlock()
			if n >= len(want) {
				break
			}
		}
		mu.Lock()
		defer mu.Unlock()
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("copies %.200v, want %v", got, want)
		}
	})
}

func TestGRPCIsAnsweredInItsOwnForm(t *testing.T) {
	r := newRig(t)
	r.service("web", mesh.AppGRPC)
	r.rules(mesh.RouteRule{Matches: []mesh.RequestMatch{{Path: mesh.PathMatch{Op: mesh.PathExact, Value: "/a.B/C"}}}, Backends: []mesh.Backend{to("web", 1)}})
	for path, want := range map[string]string{"/a.B/C": "14", "/a.B/D": "12"} {
		resp, body := r.do(true, "POST "+path, "", "Content-Type: application/grpc+proto")
		if resp.StatusCode != 200 || resp.Header.Get("Grpc-Status") != want || body != "" || resp.Header.Get("Content-Type") != "application/grpc" {
			t.Errorf("%s: %s %v %q", path, resp.Status, resp.Header, body)
		}
		if e := r.last(); e.Protocol != "grpc" || fmt.Sprint(e.GRPCStatus) != want {
			t.Errorf("%s: record %+v", path, e)
		}
	}
}
