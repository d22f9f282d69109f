package controlplane

import (
	"context"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/ambit-mesh/ambit/internal/settings"
	"github.com/ambit-mesh/ambit/internal/xds"
)

func TestWhereAServerIsIsReadByUpstreamsNames(t *testing.T) {
	t.Chdir(t.TempDir()) // no token of the machine that runs the test
	for _, c := range []struct {
		name string
		env  map[string]string
		want Endpoint
		err  string
	}{
		{"nothing is said", nil, Endpoint{Address: "near:1", RootFile: defaultRoot}, ""},
		{"all is said", map[string]string{"CA_ADDRESS": "https://ca:2", "ALT_CA_HOSTNAME": "other", "CA_ROOT_CA": "/root.pem", "AUTH_TOKEN": "/token"},
			Endpoint{Address: "ca:2", ServerName: "other", RootFile: "/root.pem", TokenFile: "/token"}, ""},
		{"another server is spoken of", map[string]string{"XDS_ADDRESS": "xds:3"}, Endpoint{Address: "near:1", RootFile: defaultRoot}, ""},
		{"an address without a port", map[string]string{"CA_ADDRESS": "ca"}, Endpoint{Address: "ca", RootFile: defaultRoot}, "CA_ADDRESS"},
	} {
		r := &settings.Reader{Lookup: func(name string) string { return c.env[name] }}
		if d := cmp.Diff(c.want, ReadEndpoint(r, "CA", "near:1")); d != "" {
			t.Errorf("%s (-want +got):\n%s", c.name, d)
		}
		if err := r.Err(); (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%s: %v, want %q", c.name, err, c.err)
		}
	}
}

func TestTheClientTellsHowItFares(t *testing.T) {
	r := prometheus.NewRegistry()
	client := Endpoint{Address: "istiod:15012"}.Client(xds.Config{Node: xds.Node{ID: "me"}, Receiver: nothing{}}, r)
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, f := range families {
		names = append(names, f.GetName())
	}
	if d := cmp.Diff([]string{"ambit_xds_connected", "ambit_xds_connections_total", "ambit_xds_rejected_total"}, names); d != "" {
		t.Errorf("metrics (-want +got):\n%s", d)
	}
	// It has the address, and lacks the roots.
	if err := client.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "trusted roots") {
		t.Errorf("without roots it ends with %v", err)
	}
}

// nothing takes what comes.
type nothing struct{}

func (nothing) Receive(context.Context, xds.Update) []xds.Rejection { return nil }

func TestAnAuthorityNeedsAnAddress(t *testing.T) {
	if _, err := (Endpoint{RootFile: "/root.pem"}).Authority("Kubernetes", true); err == nil || !strings.Contains(err.Error(), "no certificate authority is configured") {
		t.Errorf("error %v", err)
	}
	if ca, err := (Endpoint{Address: "ca:1"}).Authority("Kubernetes", true); ca == nil || err != nil {
		t.Errorf("authority %v, %v", ca, err)
	}
}
