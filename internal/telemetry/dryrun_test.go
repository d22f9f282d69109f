package telemetry

import (
	"bytes"
	"log/slog"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/internal/policy"
)

func TestADryRunHasARecordAndASeriesOfItsOwn(t *testing.T) {
	var log bytes.Buffer
	d := NewDryRuns(slog.New(slog.NewTextHandler(&log, nil)))
	f := &Flow{ID: "abc", Source: client, SourceID: clientID, Destination: server}
	v := policy.Verdict{Allow: true, DryRun: []policy.Rehearsal{
		{Policy: mesh.PolicyKey{Namespace: "shop", Name: "strange"}, Action: mesh.ActionDeny, Rule: 1},
		{Policy: mesh.PolicyKey{Namespace: "shop", Name: "same"}, Action: mesh.ActionAllow, Allow: true},
	}}
	d.Note(f, v)
	d.Note(f, v)
	for _, want := range []string{
		"component=policy", `msg="dry run"`, "policy=shop/strange", "action=DENY", "verdict=allow", "would_be=deny", "id=abc", "src.identity=" + clientID.String(), "dst.workload=web-1",
	} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("no %s in %s", want, log.String())
		}
	}
	if strings.Contains(log.String(), "shop/same") {
		t.Errorf("a policy that would change nothing is logged: %s", log.String())
	}
	want := map[string]float64{
		"ambit_policy_dry_run_total{DENY,strange,allow,deny}": 2,
		"ambit_policy_dry_run_total{ALLOW,same,allow,allow}":  2,
	}
	if diff := cmp.Diff(want, gather(t, d, "action", "policy_name", "verdict", "would_be")); diff != "" {
		t.Errorf("metrics (-want +got):\n%s", diff)
	}
	var nobody *DryRuns
	nobody.Note(f, v)
}

func TestSeriesOfDryRunsThatAreGoneExpire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := NewDryRuns(slog.New(slog.DiscardHandler))
		d.Note(&Flow{}, policy.Verdict{DryRun: []policy.Rehearsal{{Policy: mesh.PolicyKey{Namespace: "shop", Name: "p"}}}})
		time.Sleep(rehearsalExpiry + time.Second)
		if got := gather(t, d, "policy_name"); len(got) != 0 {
			t.Errorf("after an hour there is %v", got)
		}
		for i := range 2 * maxRehearsals {
			d.count(rehearsed{policy: mesh.PolicyKey{Namespace: "shop", Name: strconv.Itoa(i)}})
		}
		if len(d.series) > maxRehearsals {
			t.Errorf("%d series, want at most %d", len(d.series), maxRehearsals)
		}
	})
}
