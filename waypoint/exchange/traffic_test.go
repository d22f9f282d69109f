package exchange

import (
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/internal/telemetry"
	"github.com/ambit-mesh/ambit/waypoint/backendtest"
	"github.com/ambit-mesh/ambit/waypoint/circuit"
)

// settings are what users say of web's endpoints.
func (r *rig) settings(s mesh.Settings) {
	r.state.model.Traffic[key("web")] = &mesh.Traffic{Service: key("web"), Settings: s}
	r.publish()
}

func TestAKeyStaysWithItsEndpoint(t *testing.T) {
	r := newRig(t)
	r.service("web", mesh.AppUnknown, r.pod("a", backendtest.Named("a")), r.pod("b", backendtest.Named("b")), r.pod("c", backendtest.Named("c")))
	hash := func(k mesh.HashKey) {
		r.settings(mesh.Settings{Balancer: mesh.Balancer{Kind: mesh.BalanceHash, Hash: k}})
	}
	stays := func(what, line string, header ...string) {
		t.Helper()
		_, first := r.do(false, line, "", header...)
		for range 10 {
			if _, now := r.do(false, line, "", header...); now != first {
				t.Fatalf("%s: %s answered, and %s before", what, now, first)
			}
		}
	}
	hash(mesh.HashKey{Header: "User"})
	stays("by header", "GET /", "User: ann")
	hash(mesh.HashKey{Query: "user"})
	stays("by query", "GET /?user=ann")
	hash(mesh.HashKey{SourceIP: true})
	stays("by address", "GET /")
	hash(mesh.HashKey{Cookie: "user"})
	stays("by cookie", "GET /", "Cookie: user=ann")
	if resp, _ := r.do(false, "GET /", ""); resp.Header.Get("Set-Cookie") != "" {
		t.Error("a cookie without a time to live is given")
	}
	hash(mesh.HashKey{Cookie: "user", CookiePath: "/", CookieTTL: time.Hour})
	resp, _ := r.do(false, "GET /", "")
	set := resp.Header.Get("Set-Cookie")
	if !strings.HasPrefix(set, "user=") || !strings.Contains(set, "; Path=/; Max-Age=3600; HttpOnly") {
		t.Fatalf("a client without the cookie is given %q", set)
	}
	stays("by a cookie that was given", "GET /", "Cookie: "+strings.Split(set, ";")[0])
}

func TestAConnectionPoolOfOne(t *testing.T) {
	r := newRig(t)
	asked, answer := make(chan bool, 3), make(chan bool)
	r.service("web", mesh.AppHTTP11, r.pod("web", backendtest.HTTP(func(http.ResponseWriter, *http.Request) {
		asked <- true
		<-answer
	})))
	r.settings(mesh.Settings{Connections: mesh.Connections{MaxConnections: 1, MaxPending: 1}})
	var running sync.WaitGroup
	status := make(chan int, 2)
	for range 2 {
		running.Go(func() {
			resp, _ := r.do(false, "GET /", "")
			status <- resp.StatusCode
		})
	}
	<-asked
	for r.x.config.Balancer.Waiting(key("web"), 80) == 0 {
		time.Sleep(time.Millisecond)
	}
	if resp, body := r.do(false, "GET /", ""); resp.StatusCode != http.StatusServiceUnavailable || body != "upstream overflow" {
		t.Errorf("a third request is answered %d %q", resp.StatusCode, body)
	}
	if e := r.last(); e.Flag != telemetry.ExchangeOverflow {
		t.Errorf("and recorded with flag %s", e.Flag)
	}
	close(answer)
	running.Wait()
	if a, b := <-status, <-status; a != http.StatusOK || b != http.StatusOK {
		t.Errorf("the one with the connection and the one who waits are answered %d and %d", a, b)
	}
}

func TestClientsDoNotSeeAProbeFail(t *testing.T) {
	r := newRig(t)
	sick := r.pod("sick", backendtest.HTTP(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) }))
	r.service("web", mesh.AppUnknown, sick, r.pod("well", backendtest.Named("well")))
	r.settings(mesh.Settings{Outlier: mesh.Outlier{BaseEjection: 50 * time.Millisecond}})
	r.rules(mesh.RouteRule{Backends: []mesh.Backend{to("web", 1)}, Retry: &mesh.Retry{Attempts: 1, Codes: []int{503}, Backoff: time.Millisecond}})
	for end := time.Now().Add(10 * time.Second); ; {
		resp, body := r.do(false, "GET /", "")
		if resp.StatusCode != http.StatusOK || body != "well" {
			t.Fatalf("a client was answered %d %q", resp.StatusCode, body)
		}
		for _, s := range r.x.config.Balancer.Circuits() {
			if s.Workload == sick.Workload.UID && s.Ejections >= 3 && s.Reason == circuit.ReasonProbe {
				return
			}
		}
		if time.Now().After(end) {
			t.Fatalf("no probes: %+v", r.x.config.Balancer.Circuits())
		}
	}
}

func TestEndpointsAreJudgedByTheStatusOfGRPC(t *testing.T) {
	says := func(code string) func(net.Listener) {
		return backendtest.HTTP(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/grpc")
			w.Header().Set("Grpc-Status", code)
		})
	}
	for code, want := range map[string]circuit.Reason{
		"14": circuit.ReasonGatewayErrors, // UNAVAILABLE
		"13": circuit.ReasonServerErrors,  // INTERNAL
		"5":  "",                          // NOT_FOUND is the caller's
	} {
		r := newRig(t)
		pod := r.pod("other", says(code))
		r.service("web", mesh.AppGRPC, pod, r.pod("well", says("0")))
		r.settings(mesh.Settings{Balancer: mesh.Balancer{Kind: mesh.BalanceRoundRobin}, Outlier: mesh.Outlier{BaseEjection: time.Hour}})
		for range 12 {
			r.do(true, "POST /a.B/C", "", "Content-Type: application/grpc")
		}
		for _, s := range r.x.config.Balancer.Circuits() {
			if s.Workload == pod.Workload.UID && s.Reason != want {
				t.Errorf("status %s: the endpoint was ejected for %q, want %q", code, s.Reason, want)
			}
		}
	}
}
