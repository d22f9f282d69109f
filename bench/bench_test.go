package bench

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestMain lets the test's program be its own children.
func TestMain(m *testing.M) {
	if is, err := Child(os.Args[1:]); is {
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func TestARowIsTheMedianOfItsRounds(t *testing.T) {
	r := measured("x", "MB/s", []float64{10, 30, 20}, []float64{10, 10, 40}, "base", Higher, 1.5)
	want := Row{Name: "x", Unit: "MB/s", Value: 20, Baseline: "base", BaselineValue: 10, Ratio: 1, RatioMin: 0.5, RatioMax: 3, Rounds: 3, Better: Higher, Goal: 1.5}
	if r != want {
		t.Errorf("%+v, want %+v", r, want)
	}
}

func TestGoals(t *testing.T) {
	for _, tt := range []struct {
		row    Row
		missed bool
	}{
		{Row{Ratio: 0.8, Baseline: "b", Better: Higher, Goal: 0.9}, true},
		{Row{Ratio: 0.9, Baseline: "b", Better: Higher, Goal: 0.9}, false},
		{Row{Ratio: 1.6, Baseline: "b", Better: Lower, Goal: 1.5}, true},
		{Row{Ratio: 1.4, Baseline: "b", Better: Lower, Goal: 1.5}, false},
		{Row{Value: 20, Better: Lower, Goal: 12}, true},
		{Row{Ratio: 9, Baseline: "b", Better: Lower}, false},
	} {
		if got := tt.row.Missed(); got != tt.missed {
			t.Errorf("%+v: missed %v", tt.row, got)
		}
	}
}

func TestTheSlopeOfALine(t *testing.T) {
	if got := slope([]float64{1, 2, 3, 4}, []float64{105, 110, 115, 120}); got < 4.999 || got > 5.001 {
		t.Errorf("slope %v, want 5", got)
	}
}

func TestEveryPathCarriesBytes(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to make network namespaces")
	}
	var out bytes.Buffer
	file := filepath.Join(t.TempDir(), "results.json")
	err := Run(t.Context(), Config{
		Out: &out, Results: file, Only: "l4.", Rounds: 1, Bytes: 4 << 20, Pings: 20, Connections: 20, Idle: 40,
	})
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var rows []Row
	if err := json.Unmarshal(b, &rows); err != nil {
		t.Fatal(err)
	}
	for i, name := range []string{"l4.throughput", "l4.ping.p50", "l4.ping.p99", "l4.connect.rate", "l4.idle.bytes"} {
		if len(rows) <= i || rows[i].Name != name || rows[i].BaselineValue == 0 {
			t.Fatalf("rows %+v\n%s", rows, &out)
		}
	}
}

func TestSmallThingsAndHTTP3AreMeasured(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to make network namespaces")
	}
	for only, names := range map[string][]string{"h": {"h2.small.rps", "h2.small.p99", "h2.ping.beside_bulk.p99", "h3.bulk.1"}, "udp.pps": {"udp.pps"}} {
		file := filepath.Join(t.TempDir(), "results.json")
		if err := Run(t.Context(), Config{Results: file, Only: only, Rounds: 1, Bytes: 4 << 20, Seconds: 0.1}); err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var rows []Row
		if err := json.Unmarshal(b, &rows); err != nil {
			t.Fatal(err)
		}
		for i, name := range names {
			if len(rows) <= i || rows[i].Name != name || rows[i].Value == 0 || rows[i].BaselineValue == 0 {
				t.Fatalf("%s: rows %+v", name, rows)
			}
		}
	}
}

func TestEveryKindOfRequestGetsThrough(t *testing.T) {
	cfg := Config{Seconds: 0.05, Rounds: 1}
	cfg.fill()
	c, err := newContest(&cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	for _, k := range kinds {
		if l, err := c.load(k.name, local(k.port(c.ports)), 0); err != nil || l.Requests == 0 {
			t.Errorf("%s: %+v, %v", k.name, l, err)
		}
	}
	if l, err := c.load("hbone", tunnelAddress(), 200); err != nil || l.Requests == 0 {
		t.Errorf("hbone: %+v, %v", l, err)
	}
	h, err := startPinned(restCore, "http-hold", local(c.ports.HTTP), "10")
	if err != nil {
		t.Fatal(err)
	}
	h.stop()
}

func TestAChangedRouteIsServedByTheWaypoint(t *testing.T) {
	var out bytes.Buffer
	if err := Run(t.Context(), Config{Out: &out, Only: "route.change", Rounds: 1}); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out.String(), " 0 found no route") {
		t.Errorf("requests were disturbed:\n%s", &out)
	}
}
