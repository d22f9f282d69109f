package forward

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ambit-mesh/ambit/internal/certs/certstest"
	"github.com/ambit-mesh/ambit/internal/hbone"
	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/internal/spiffe"
	"github.com/ambit-mesh/ambit/internal/view"
	"github.com/ambit-mesh/ambit/waypoint/backendtest"
)

// rig is a Forwarder of the waypoint "wp".
type rig struct {
	*Forwarder
	mesh   *backendtest.Mesh
	self   *mesh.Workload
	dialed atomic.Int64
}

func newRig(t *testing.T) *rig {
	r := &rig{mesh: backendtest.New(t)}
	r.self = r.mesh.Workload("wp")
	r.Forwarder = New(Config{
		Credentials: r.mesh.Certs, Self: func() *mesh.Workload { return r.self },
		Connect: func(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
			r.dialed.Add(1)
			return new(net.Dialer).DialContext(ctx, "tcp", to.String())
		},
	})
	t.Cleanup(func() { r.Close() })
	return r
}

func endpoint(p *backendtest.Pod) *Endpoint {
	return &Endpoint{Workload: p.Workload, Address: p.Address}
}

// get asks for a path and gives the body.
func (r *rig) get(t *testing.T, to *Endpoint, two bool) (*http.Response, string, error) {
	t.Helper()
	req, err := http.NewRequestWithContext(backendtest.Within(t), "GET", "http://x/path?q", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Host = "reviews"
	resp, err := r.RoundTrip(req, to, two)
	if err != nil {
		return nil, "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return resp, string(b), err
}

func TestRequestsReachTheirBackend(t *testing.T) {
	r := newRig(t)
	inside := r.mesh.Pod("inside", spiffe.ID{}, backendtest.Named("inside"))
	outside := r.mesh.Plain("outside", backendtest.Named("outside"))
	for _, c := range []struct {
		name  string
		pod   *backendtest.Pod
		two   bool
		proto string
	}{
		{"by a tunnel in HTTP/1.1", inside, false, "HTTP/1.1"},
		{"by a tunnel in HTTP/2", inside, true, "HTTP/2.0"},
		{"plainly in HTTP/1.1", outside, false, "HTTP/1.1"},
		{"plainly in HTTP/2", outside, true, "HTTP/2.0"},
	} {
		resp, body, err := r.get(t, endpoint(c.pod), c.two)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if body != c.pod.Name || resp.Header.Get("X-Proto") != c.proto || resp.Header.Get("X-Asked") != "GET reviews/path?q" {
			t.Errorf("%s: %q, %v", c.name, body, resp.Header)
		}
	}
	if n := inside.Tunnelled.Load(); n != 2 {
		t.Errorf("%d connections came by a tunnel, want 2", n)
	}
	if n := r.Handshakes(); n != 1 {
		t.Errorf("%d tunnels were made, want 1", n)
	}
}

func TestAThousandRequestsCostAtMostTwoHandshakes(t *testing.T) {
	r := newRig(t)
	pod := r.mesh.Pod("pod", spiffe.ID{}, backendtest.Named("pod"))
	var clients sync.WaitGroup
	for range 10 {
		clients.Go(func() {
			for range 100 {
				if _, _, err := r.get(t, endpoint(pod), false); err != nil {
					t.Error(err)
				}
			}
		})
	}
	clients.Wait()
	if n := r.Handshakes(); n > 2 {
		t.Errorf("1000 requests cost %d handshakes, want at most 2", n)
	}
	if n := pod.Tunnelled.Load(); n > 20 {
		t.Errorf("1000 requests of 10 clients cost %d connections", n)
	}
}

func TestTheDestinationIsToldWhoSpeaks(t *testing.T) {
	r := newRig(t)
	pod := r.mesh.Pod("pod", spiffe.ID{}, backendtest.TCP(func(c *net.TCPConn) { defer c.Close(); io.Copy(c, c) }))
	to := endpoint(pod)
	to.Service = &mesh.Service{Name: "svc", Namespace: "shop", Hostname: "svc.shop.svc.cluster.local"}
	c, err := r.Dial(backendtest.Within(t), to, Origin{Client: netip.MustParseAddrPort("10.1.0.5:4000"), TraceParent: "00-1-2-00"})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if c.Peer != pod.Identity() {
		t.Errorf("peer %s", c.Peer)
	}
	io.WriteString(c, "both halves")
	c.CloseWrite()
	if got, err := io.ReadAll(c); err != nil || string(got) != "both halves" {
		t.Errorf("echo %q, %v", got, err)
	}
	got := pod.Requests()[0]
	want := map[string]string{
		hbone.HeaderForwarded:   `for="10.1.0.5:4000";host=svc.shop.svc.cluster.local`,
		hbone.HeaderTraceparent: "00-1-2-00",
		hbone.HeaderBaggage:     "k8s.cluster.name=k,k8s.namespace.name=shop,k8s.deployment.name=wp,service.name=wp",
	}
	if got.Authority != pod.Address.String() {
		t.Errorf("authority %s, want %s", got.Authority, pod.Address)
	}
	for k, v := range want {
		if got.Header[k] != v {
			t.Errorf("%s is %q, want %q", k, got.Header[k], v)
		}
	}
}

func TestABackendMustBeWhoItIsTakenFor(t *testing.T) {
	r := newRig(t)
	thief := r.mesh.Pod("pod", certstest.ID("shop", "thief"), backendtest.Named("thief"))
	_, _, err := r.get(t, endpoint(thief), false)
	if _, ok := errors.AsType[*hbone.PeerError](err); !ok {
		t.Errorf("error %v, want a peer that is not accepted", err)
	}
	if _, ok := errors.AsType[*ConnectError](err); !ok {
		t.Errorf("error %v does not say that nothing was asked", err)
	}
	// The service's own names are accepted too, and only for that service.
	to := endpoint(thief)
	to.Service = &mesh.Service{Namespace: "shop", Hostname: "svc", SubjectAltNames: []spiffe.ID{certstest.ID("shop", "thief")}}
	if _, body, err := r.get(t, to, false); err != nil || body != "thief" {
		t.Errorf("%q, %v; want the answer of an identity that the service names", body, err)
	}
	if _, _, err := r.get(t, endpoint(thief), false); err == nil {
		t.Error("a connection made for a service that allows more served one that does not")
	}
}

func TestNothingIsForwarded(t *testing.T) {
	for name, spoil := range map[string]func(*rig, *Endpoint){
		"before the waypoint knows itself": func(r *rig, _ *Endpoint) { r.self = nil },
		"to another network":               func(_ *rig, e *Endpoint) { e.Workload.Network = "far" },
		"to a tunnel that is not there":    func(r *rig, e *Endpoint) { e.Workload.Tunnel = mesh.TunnelHBONE },
		"after the end":                    func(r *rig, _ *Endpoint) { r.Close() },
	} {
		r := newRig(t)
		pod := r.mesh.Plain("pod", backendtest.Named("pod"))
		to := endpoint(pod)
		spoil(r, to)
		if _, _, err := r.get(t, to, false); err == nil {
			t.Errorf("forwarded %s", name)
		} else if _, ok := errors.AsType[*ConnectError](err); !ok {
			t.Errorf("%s: %T %v, want a ConnectError", name, err, err)
		}
	}
}

func TestAPodWhoseZtunnelHasDiedGetsNoPlaintext(t *testing.T) {
	r := newRig(t)
	pod := r.mesh.Pod("pod", spiffe.ID{}, backendtest.Named("pod"))
	if _, _, err := r.get(t, endpoint(pod), false); err != nil {
		t.Fatal(err)
	}
	pod.Kill()
	if _, _, err := r.get(t, endpoint(pod), false); err == nil {
		t.Error("a pod without a ztunnel answered")
	}
}

func TestConnectionsEndWithWhatTheyWereMadeFor(t *testing.T) {
	for name, change := range map[string]func(r *rig, pod *mesh.Workload) (*mesh.Workload, map[spiffe.ID]bool){
		"the workload is gone": func(*rig, *mesh.Workload) (*mesh.Workload, map[spiffe.ID]bool) { return nil, nil },
		"its identity has changed": func(_ *rig, w *mesh.Workload) (*mesh.Workload, map[spiffe.ID]bool) {
			w.ServiceAccount = "other"
			return w, nil
		},
		"its address has changed": func(_ *rig, w *mesh.Workload) (*mesh.Workload, map[spiffe.ID]bool) {
			w.Addresses = []netip.Addr{netip.MustParseAddr("10.0.0.1")}
			return w, nil
		},
		"it does not speak HBONE any more": func(_ *rig, w *mesh.Workload) (*mesh.Workload, map[spiffe.ID]bool) {
			w.Tunnel = mesh.TunnelNone
			return w, nil
		},
	} {
		r := newRig(t)
		pod := r.mesh.Pod("pod", spiffe.ID{}, backendtest.Named("pod"))
		if _, _, err := r.get(t, endpoint(pod), false); err != nil {
			t.Fatal(err)
		}
		r.Follow(viewOf(pod.Workload), nil)
		if len(r.clients) != 1 {
			t.Errorf("%s: connections were let go before", name)
		}
		fresh := *pod.Workload
		w, renewed := change(r, &fresh)
		r.Follow(viewOf(w), renewed)
		if len(r.clients) != 0 {
			t.Errorf("%s: connections are kept", name)
		}
	}
}

func TestTunnelsOfARenewedCertificateAreReplaced(t *testing.T) {
	r := newRig(t)
	pod := r.mesh.Pod("pod", spiffe.ID{}, backendtest.Named("pod"))
	r.get(t, endpoint(pod), false)
	r.Follow(viewOf(pod.Workload), map[spiffe.ID]bool{r.self.Identity(): true})
	if n := len(r.Tunnels()); n != 0 {
		t.Errorf("%d tunnels are still offered", n)
	}
}

func viewOf(w *mesh.Workload) *view.View {
	s := view.NewStore()
	m := mesh.Model{Workloads: map[string]*mesh.Workload{}}
	if w != nil {
		m.Workloads[w.UID] = w
	}
	s.Replace(m)
	return s.View()
}

func TestAnAnswerMayComeBeforeTheRequestHasEnded(t *testing.T) {
	r := newRig(t)
	pod := r.mesh.Pod("pod", spiffe.ID{}, backendtest.HTTP(func(w http.ResponseWriter, q *http.Request) {
		http.NewResponseController(w).EnableFullDuplex()
		w.WriteHeader(200)
		http.NewResponseController(w).Flush()
		io.Copy(w, q.Body)
	}))
	for _, two := range []bool{false, true} {
		body, send := io.Pipe()
		req, _ := http.NewRequestWithContext(backendtest.Within(t), "POST", "http://x/", body)
		resp, err := r.RoundTrip(req, endpoint(pod), two)
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(send, "late")
		send.Close()
		if got, err := io.ReadAll(resp.Body); err != nil || !bytes.Equal(got, []byte("late")) {
			t.Errorf("HTTP/2 %v: %q, %v", two, got, err)
		}
		resp.Body.Close()
	}
}

func TestSettingsBoundAConnection(t *testing.T) {
	r := newRig(t)
	pod := r.mesh.Plain("pod", backendtest.Named("pod"))
	to := endpoint(pod)
	to.Settings.IdleTimeout = time.Millisecond
	for range 2 {
		if _, _, err := r.get(t, to, false); err != nil {
			t.Fatal(err)
		}
		for end := time.Now().Add(5 * time.Second); time.Now().Before(end) && r.dialed.Load() < 2; time.Sleep(5 * time.Millisecond) {
			if _, _, err := r.get(t, to, false); err != nil {
				t.Fatal(err)
			}
		}
	}
	if r.dialed.Load() < 2 {
		t.Error("an idle connection was kept beyond its time")
	}
	if !strings.Contains((&ConnectError{to.Address, context.Canceled}).Error(), pod.Address.String()) {
		t.Error("the error does not say where")
	}
}
