package suite

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/ambit-mesh/ambit/e2e/echo"
	"github.com/ambit-mesh/ambit/e2e/stage"
)

// ledgerOf is a run of three tests: one from second 10 to 20, one from 15 to 30
// that cuts connections from second 25 on, and one from 60 on.
func ledgerOf(t *testing.T) (l *ledger, at func(second int) time.Time) {
	t.Helper()
	zero := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	at = func(second int) time.Time { return zero.Add(time.Duration(second) * time.Second) }
	l = &ledger{}
	quiet := l.begin("TestQuiet", at(10))
	cutting := l.begin("TestCutting", at(15))
	l.end(quiet, at(20))
	l.cuts(cutting, at(25))
	l.end(cutting, at(30))
	l.begin("TestLast", at(60))
	return l, at
}

func wellAsked(n int) echo.Summary { return echo.Summary{Attempts: n, OK: n} }

func illAsked(n, of int) echo.Summary {
	return echo.Summary{Attempts: of, OK: of - n, Failed: n, Failures: map[string]int{"timeout": n}}
}

func TestWhatIsHeardInClearFailsTheRunAndNamesTheTest(t *testing.T) {
	for _, tt := range []struct {
		second int
		want   string
	}{
		{5, "12:00:05.000, before the first test: 10.1.0.7:40000 → 10.2.0.9:8080"},
		{12, "12:00:12.000, during TestQuiet: "},
		{17, "12:00:17.000, during TestCutting, TestQuiet: "},
		{27, "12:00:27.000, during TestCutting: "},
		{45, "12:00:45.000, 15s after TestCutting: "},
		{300, "12:05:00.000, during TestLast: "},
	} {
		l, at := ledgerOf(t)
		l.burst(at(1), at(6), wellAsked(25), nil)
		err := l.verdict(stage.Wire{Frames: 9, Tunnelled: 100, Marked: 1, Sightings: []stage.Sighting{{
			At: at(tt.second), From: netip.MustParseAddrPort("10.1.0.7:40000"), To: netip.MustParseAddrPort("10.2.0.9:8080"),
		}}})
		if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), "1 of 9 frames") {
			t.Errorf("heard in second %d: %v; want %q", tt.second, err, tt.want)
		}
	}
}

func TestAVigilThatProvesNothingFailsTheRun(t *testing.T) {
	for _, tt := range []struct {
		what   string
		bursts []echo.Summary
		wire   stage.Wire
		want   string
	}{
		{"all is well", []echo.Summary{wellAsked(25), illAsked(3, 25)}, stage.Wire{Frames: 90, Tunnelled: 50_000}, ""},
		{"nothing was asked", nil, stage.Wire{Frames: 9, Tunnelled: 100}, "no request was made"},
		{"nothing was answered", []echo.Summary{illAsked(25, 25), illAsked(5, 5)}, stage.Wire{Frames: 9, Tunnelled: 100}, "none of 30 requests"},
		{"it did not pass where it is listened", []echo.Summary{wellAsked(25)}, stage.Wire{Frames: 9}, "the wrong place"},
		{"the eavesdropper fell asleep", []echo.Summary{wellAsked(25)}, stage.Wire{Frames: 9, Tunnelled: 700}, "did not listen all the time"},
	} {
		l, at := ledgerOf(t)
		for i, s := range tt.bursts {
			l.burst(at(5*i), at(5*i+5), s, nil)
		}
		err := l.verdict(tt.wire)
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", tt.what, err, tt.want)
		}
	}
}

func TestRequestsThatFailAreCountedByWhatWasAnnounced(t *testing.T) {
	for _, tt := range []struct {
		what        string
		began, ends int // seconds of a burst of which 4 requests fail
		want        string
	}{
		{"during a test that cuts nothing", 11, 14, "4 of 25 failed outside of announced cuts, 0 within; 0 times none could be made; during TestQuiet: 4 × timeout"},
		{"before the test began to cut", 20, 24, "4 of 25 failed outside of announced cuts, 0 within; 0 times none could be made; during TestCutting, TestQuiet: 4 × timeout"},
		{"over the beginning of the cut", 24, 26, "0 of 25 failed outside of announced cuts, 4 within; 0 times none could be made"},
		{"soon after it", 40, 44, "0 of 25 failed outside of announced cuts, 4 within; 0 times none could be made"},
		{"long after it", 50, 54, "4 of 25 failed outside of announced cuts, 0 within; 0 times none could be made; 20s after TestCutting: 4 × timeout"},
	} {
		l, at := ledgerOf(t)
		l.burst(at(tt.began), at(tt.ends), illAsked(4, 25), nil)
		if got := l.requests(); got != tt.want {
			t.Errorf("%s:\ngot  %s\nwant %s", tt.what, got, tt.want)
		}
	}
	l, at := ledgerOf(t)
	l.burst(at(1), at(2), echo.Summary{}, errors.New("no node"))
	if got, want := l.requests(), "0 of 0 failed outside of announced cuts, 0 within; 1 times none could be made"; got != want {
		t.Errorf("a burst that was not made:\ngot  %s\nwant %s", got, want)
	}
}
