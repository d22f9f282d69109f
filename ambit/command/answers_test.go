package command

import (
	"bytes"
	"errors"
	"io"
	"os"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"

	"github.com/ambit-mesh/ambit/ambit/ask"
	"github.com/ambit-mesh/ambit/internal/decision"
)

// golden compares what writers print with a txtar file.
func golden(t *testing.T, path string, printed *txtar.Archive) {
	t.Helper()
	got := txtar.Format(printed)
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s (-golden +printed):\n%s", path, diff)
	}
}

func TestAnswersForPeople(t *testing.T) {
	now := time.Date(2026, 11, 26, 5, 0, 0, 0, time.UTC)
	report := &ask.Report{
		ControlPlanes: []ask.ControlPlane{{Name: "istio-system/istiod-6b-x", Generation: 42, At: now.Add(-90 * time.Second)}, {Name: "istio-system/istiod-6b-y", Generation: 7, At: now}},
		Proxies: []ask.Row{
			{Proxy: "shop/waypoint-5f-z", Kind: "waypoint", Node: "n1", ControlPlane: "istio-system/istiod-6b-x", Generation: 41, Serves: 40, Lag: 1, Says: "refused HTTPRoute/shop/web: bad expression"},
			{Proxy: "istio-system/ztunnel-a", Kind: "ztunnel", Node: "n1", ControlPlane: "istio-system/istiod-6b-y", Generation: 7},
			{Proxy: "istio-system/ztunnel-b", Kind: "ztunnel", Serves: 5, Age: 3 * time.Minute, Says: "not connected to the control plane"},
		},
	}
	object := ask.Version{APIVersion: "gateway.networking.k8s.io/v1", Kind: "HTTPRoute", Namespace: "shop", Name: "web"}
	good := ask.Condition{Type: "Accepted", Status: true, Reason: "Accepted"}
	bad := ask.Condition{Type: "ResolvedRefs", Reason: "BackendNotFound", Message: "service shop/web-v3 is not there", Parent: "Service shop/web"}
	served := func(state string, conditions ...ask.Condition) *ask.Service {
		return &ask.Service{Objects: []ask.Held{{Version: object, State: state, Conditions: conditions}}}
	}
	stories := []decision.Story{
		{ID: "k7q2m4xa", Kind: decision.Connection, Proxy: "ztunnel n1", At: now, Asked: "10.96.0.9:80", Outcome: decision.Outcome{Flag: "-"}},
		{ID: "k7q2m4xa", Kind: decision.Connection, Proxy: "ztunnel n2", At: now, Asked: "10.1.0.7:8080", Outcome: decision.Outcome{Flag: "DENY", Reason: "denied by DENY policy shop/db rule 0"}},
	}
	archive := &txtar.Archive{Comment: []byte("What answers look like. Rewrite with: go test ./ambit/command -update\n")}
	forecast := &decision.Forecast{Says: "it would be answered 403: denied by DENY policy shop/no-deletes rule 0", Story: decision.Story{
		Kind: decision.Request, Proxy: "waypoint shop/waypoint-5f-z", Generation: 42, Source: decision.End{Identity: "spiffe://cluster.local/ns/shop/sa/client"},
		Asked: "DELETE web/cart HTTP/1.1", Service: "shop/web.shop.svc.cluster.local:80", Ruling: "denied by DENY policy shop/no-deletes rule 0",
		Policies: []decision.Verdict{{Policy: "shop/no-deletes", Action: "DENY", Decided: true, Says: "rule 0 matches"}},
	}}
	for _, tt := range []struct {
		name  string
		write func(io.Writer) error
		want  error
	}{
		{"status", func(w io.Writer) error { return writeStatus(w, report, now) }, nil},
		{"apply --wait", func(w io.Writer) error {
			return writeServed(w, served("held", good), "every proxy serves them", 123*time.Millisecond)
		}, nil},
		{"apply --wait, of what is served otherwise", func(w io.Writer) error {
			return writeServed(w, served("held", good, bad), "every proxy serves them", time.Second)
		}, errUnhealthy},
		{"apply --wait, of what the mesh does not read", func(w io.Writer) error {
			return writeServed(w, served("unread"), "every proxy serves them", time.Second)
		}, nil},
		{"can", func(w io.Writer) error { return writeForecast(w, forecast) }, nil},
		{"can, where the waypoint does not run", func(w io.Writer) error {
			return writeForecast(w, &decision.Forecast{Says: "its waypoint shop/wp.shop.svc.cluster.local does not run: connections wait for it, and then fail"})
		}, nil},
		{"why", func(w io.Writer) error { return writeStories(w, stories) }, nil},
	} {
		var out bytes.Buffer
		if err := tt.write(&out); !errors.Is(err, tt.want) {
			t.Errorf("%s: error %v, want %v", tt.name, err, tt.want)
		}
		archive.Files = append(archive.Files, txtar.File{Name: tt.name, Data: out.Bytes()})
	}
	golden(t, "testdata/answers.txtar", archive)
}
