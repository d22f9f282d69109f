package circuit

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ambit-mesh/ambit/internal/mesh"
)

var start = time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)

// play runs a script of words against a circuit and gives every state it went
// through: answers (good, 500, 503, lost) by the number of times, "+" pauses,
// "probe" sends one, "!" answers it. What trips is ejected.
func play(t *testing.T, r *Rules, script string) (*Circuit, string) {
	t.Helper()
	c, now := &Circuit{}, start
	outcomes := map[string]Outcome{"good": Good, "500": ServerError, "503": GatewayError, "lost": LocalFailure, "nothing": Unknown}
	path, last := []string{c.State().String()}, c.State().String()
	note := func() {
		s := c.State().String()
		if c.State() == Ramping {
			s = fmt.Sprint(c.Share() / 10)
		}
		if last != s {
			path, last = append(path, s), s
		}
	}
	for _, word := range strings.Fields(script) {
		n := 1
		if left, right, ok := strings.Cut(word, "x"); ok {
			fmt.Sscan(left, &n)
			word = right
		}
		for range n {
			what, probe := strings.CutPrefix(word, "!")
			switch pause, ok := strings.CutPrefix(word, "+"); {
			case ok:
				d, err := time.ParseDuration(pause)
				if err != nil {
					t.Fatal(err)
				}
				now = now.Add(d)
			case word == "probe":
				if !c.Probe(now) {
					path = append(path, "no probe")
				}
			default:
				in := Report{Outcome: outcomes[what], Era: c.Era(), Probe: probe, Detail: func() string { return what }}
				if c.Report(now, r, in) == Trips {
					c.Eject(now, r)
				}
			}
			note()
		}
	}
	return c, strings.Join(path, " ")
}

func TestStates(t *testing.T) {
	const sick, cured = "3x503 +5s ", "probe !good +250ms probe !good +250ms probe !good "
	for _, tt := range []struct{ sentence, script, want string }{
		{"three gateway errors in a row trip", "100xgood 2x503 good 3x503", "closed open"},
		{"two do not, nor three with a good answer between", "2x503 good 503 good 503 good", "closed"},
		{"five server errors in a row trip", "100xgood 4x500 good 5x500", "closed open"},
		{"three failures to connect trip", "3xlost", "closed open"},
		{"half of ten within two seconds trip", "good 500 good 500 good 500 good 500 good 500", "closed open"},
		{"half of nine do not", "good 500 good 500 good 500 good 500 500", "closed"},
		{"nor ten in a longer time", "good 500 good 500 good 500 +2s good 500 good 500", "closed"},
		{"answers that say nothing do nothing", "2x503 100xnothing 503", "closed open"},
		{"an open circuit is not probed before its time", "3x503 +4999ms probe", "closed open no probe"},
		{"then it is", sick + "probe", "closed open half-open"},
		{"one at a time", sick + "2xprobe", "closed open half-open no probe"},
		{"or after ten seconds without an answer", sick + "probe +10s probe", "closed open half-open"},
		{"with a pause between", sick + "probe !good probe", "closed open half-open no probe"},
		{"a probe that fails opens it again", sick + "probe !503", "closed open half-open open"},
		{"three good probes begin the ramp", sick + cured, "closed open half-open 5"},
		{"what is no probe says nothing meanwhile", sick + "probe 10xgood 10x503", "closed open half-open"},
		{"good answers alone do not hurry the ramp", sick + cured + "100xgood", "closed open half-open 5"},
		{"nor does time alone", sick + cured + "+9s 2xgood", "closed open half-open 5"},
		{"both do", sick + cured + "3x+1s 3xgood 3x+1s 3xgood +1s 3xgood +1s 3xgood", "closed open half-open 5 15 35 60 closed"},
		{"where there is little traffic one good answer in ten seconds does", sick + cured + "+10s good +10s good", "closed open half-open 5 15 35"},
		{"the first failure starts the step again", sick + cured + "+1s 2xgood 500 2xgood", "closed open half-open 5"},
		{"and three good answers go on", sick + cured + "+1s 2xgood 500 3xgood", "closed open half-open 5 15"},
		{"the second failure in a step ejects", sick + cured + "+1s 3xgood 500 good 500", "closed open half-open 5 15 open"},
	} {
		r := RulesOf(mesh.Outlier{})
		c, got := play(t, &r, tt.script)
		if got != tt.want {
			t.Errorf("%s: %s\ngot  %s\nwant %s", tt.sentence, tt.script, got, tt.want)
		}
		if open := c.Ejections() > 0; open != (c.Cause() != "") || open != (c.Reason() != "") {
			t.Errorf("%s: %d ejections, cause %q, reason %q", tt.sentence, c.Ejections(), c.Cause(), c.Reason())
		}
	}
}

func TestWhatWasSentBeforeSaysNothing(t *testing.T) {
	r := RulesOf(mesh.Outlier{})
	c := &Circuit{}
	old := c.Era()
	for range 3 {
		if c.Report(start, &r, Report{Outcome: GatewayError, Era: old, Detail: func() string { return "" }}) == Trips {
			c.Eject(start, &r)
		}
	}
	now := start.Add(DefaultEjection)
	for range probesWanted {
		now = now.Add(probePause)
		c.Probe(now)
		c.Report(now, &r, Report{Outcome: Good, Era: c.Era(), Probe: true})
	}
	if c.State() != Ramping {
		t.Fatalf("the circuit is %s", c.State())
	}
	for range 10 {
		if got := c.Report(now, &r, Report{Outcome: GatewayError, Era: old, Detail: func() string { return "" }}); got != None {
			t.Fatalf("a failure of what was sent before the ejection does %d", got)
		}
	}
}

func TestRelapsesEjectLongerAndAreForgiven(t *testing.T) {
	r := RulesOf(mesh.Outlier{})
	c, now := &Circuit{}, start
	var lasted []time.Duration
	eject := func() {
		c.Eject(now, &r)
		lasted = append(lasted, c.Until().Sub(now))
	}
	for range 9 {
		eject()
		now = c.Until()
	}
	c.Reset(now)
	now = now.Add(3 * MaxEjection) // three ejections' worth of health
	eject()
	c.Reset(now)
	now = now.Add(24 * time.Hour)
	eject()
	want := []time.Duration{
		5 * time.Second, 10 * time.Second, 20 * time.Second, 40 * time.Second, 80 * time.Second, 160 * time.Second, 5 * time.Minute, 5 * time.Minute, 5 * time.Minute,
		5 * time.Minute, 5 * time.Second,
	}
	if d := cmp.Diff(want, lasted); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
}

func TestRules(t *testing.T) {
	base := Rules{Window: DefaultWindow, Base: DefaultEjection}
	with := func(change func(*Rules)) Rules {
		r := base
		change(&r)
		return r
	}
	for _, tt := range []struct {
		sentence string
		in       mesh.Outlier
		want     Rules
	}{
		{"nothing said", mesh.Outlier{}, with(func(r *Rules) { r.ServerErrors, r.GatewayErrors, r.LocalFailures, r.Rate = 5, 3, 3, true })},
		{"off", mesh.Outlier{Off: true, Consecutive5xx: 1}, Rules{}},
		{"a threshold of the user's leaves out what is ours", mesh.Outlier{Consecutive5xx: 7}, with(func(r *Rules) { r.ServerErrors = 7 })},
		{"another comes with upstream's default", mesh.Outlier{ConsecutiveGateway: 2}, with(func(r *Rules) { r.ServerErrors, r.GatewayErrors = 5, 2 })},
		{"all switched off", mesh.Outlier{Consecutive5xx: -1, ConsecutiveGateway: -1, ConsecutiveLocal: -1}, base},
		{"split", mesh.Outlier{Consecutive5xx: -1, SplitLocalFromRemote: true}, with(func(r *Rules) { r.LocalFailures, r.Split = 5, true })},
		{"times", mesh.Outlier{Interval: time.Minute, BaseEjection: time.Hour}, with(func(r *Rules) {
			r.ServerErrors, r.GatewayErrors, r.LocalFailures, r.Rate = 5, 3, 3, true
			r.Window, r.Base = time.Minute, time.Hour
		})},
	} {
		if d := cmp.Diff(tt.want, RulesOf(tt.in)); d != "" {
			t.Errorf("%s (-want +got):\n%s", tt.sentence, d)
		}
	}
}

func TestSplitKeepsLocalFailuresApart(t *testing.T) {
	r := Rules{ServerErrors: 2, LocalFailures: 3, Split: true, Base: time.Second}
	for _, tt := range []struct{ script, want string }{
		{"500 lost lost 500", "closed open"},
		{"500 lost good lost lost", "closed"},
		{"lost 500 lost lost", "closed"},
		{"3xlost", "closed open"},
	} {
		if _, got := play(t, &r, tt.script); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.script, got, tt.want)
		}
	}
}
