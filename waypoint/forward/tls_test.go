package forward

import (
	"encoding/pem"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"

	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/waypoint/backendtest"
)

// outside is a TLS server that is not of the mesh, with a certificate of
// example.com.
func outside(t *testing.T) (*mesh.Workload, netip.AddrPort, string) {
	t.Helper()
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		io.WriteString(w, q.Proto+" "+q.TLS.ServerName)
	}))
	s.EnableHTTP2, s.Config.ErrorLog = true, log.New(io.Discard, "", 0)
	s.StartTLS()
	t.Cleanup(s.Close)
	at := netip.MustParseAddrPort(s.Listener.Addr().String())
	w := &mesh.Workload{UID: "out", Name: "out", Namespace: "shop", Addresses: []netip.Addr{at.Addr()}}
	return w, at, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}))
}

func TestTLSIsStartedTowardsTheOutside(t *testing.T) {
	w, at, ca := outside(t)
	for _, c := range []struct {
		name string
		tls  mesh.OriginateTLS
		want string
		err  string
	}{
		{"with a name and roots", mesh.OriginateTLS{On: true, SNI: "example.com", CA: ca}, "example.com", ""},
		{"with another name that may be", mesh.OriginateTLS{On: true, SNI: "other.example", CA: ca, SubjectAltNames: []string{"x.example", "example.com"}}, "other.example", ""},
		{"without any verification", mesh.OriginateTLS{On: true, SNI: "other.example", Insecure: true}, "other.example", ""},
		{"of a name that it has not", mesh.OriginateTLS{On: true, SNI: "other.example", CA: ca}, "", "not other.example"},
		{"of names that it has not", mesh.OriginateTLS{On: true, SNI: "example.com", CA: ca, SubjectAltNames: []string{"other.example"}}, "", "none of the names"},
		{"of roots that nobody trusts", mesh.OriginateTLS{On: true, SNI: "example.com"}, "", "unknown authority"},
		{"of other roots with a name that may be", mesh.OriginateTLS{On: true, SNI: "example.com", SubjectAltNames: []string{"example.com"}}, "", "unknown authority"},
		{"of roots that cannot be read", mesh.OriginateTLS{On: true, SNI: "example.com", CA: "nonsense"}, "", "cannot be read"},
		{"with half a certificate of our own", mesh.OriginateTLS{On: true, SNI: "example.com", CA: ca, CertPEM: "x"}, "", "own certificate"},
	} {
		for _, two := range []bool{false, true} {
			r := newRig(t)
			_, body, err := r.get(t, &Endpoint{Workload: w, Address: at, TLS: c.tls}, two)
			proto := map[bool]string{false: "HTTP/1.1 ", true: "HTTP/2.0 "}[two]
			switch {
			case c.err == "" && (err != nil || body != proto+c.want):
				t.Errorf("%s: %q, %v", c.name, body, err)
			case c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)):
				t.Errorf("%s: %q, %v; want %q", c.name, body, err, c.err)
			}
		}
	}
}

func TestConnectionsOfOtherSettingsAreNotUsed(t *testing.T) {
	w, at, ca := outside(t)
	r := newRig(t)
	to := Endpoint{Workload: w, Address: at, TLS: mesh.OriginateTLS{On: true, SNI: "example.com", CA: ca}}
	if _, _, err := r.get(t, &to, false); err != nil {
		t.Fatal(err)
	}
	strict := to
	strict.TLS.SubjectAltNames = []string{"other.example"}
	if _, _, err := r.get(t, &strict, false); err == nil {
		t.Error("a connection that was made for other settings was used")
	}
}

func TestABackendKnownByNameIsReachedByName(t *testing.T) {
	r := newRig(t)
	pod := r.mesh.Plain("pod", backendtest.Named("pod"))
	w := *pod.Workload
	w.Addresses, w.Hostname = nil, pod.Address.Addr().String() // a name that needs no resolver
	to := &Endpoint{Workload: &w, Address: netip.AddrPortFrom(netip.Addr{}, pod.Address.Port())}
	if _, body, err := r.get(t, to, false); err != nil || body != "pod" {
		t.Errorf("%q, %v", body, err)
	}
	r.Follow(viewOf(&w), nil)
	if len(r.clients) != 1 {
		t.Error("its connections were let go")
	}
	nameless := w
	nameless.UID, nameless.Hostname = "nameless", ""
	if _, _, err := r.get(t, &Endpoint{Workload: &nameless, Address: to.Address}, false); err == nil {
		t.Error("reached without a name")
	}
}
