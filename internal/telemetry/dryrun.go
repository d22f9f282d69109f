package telemetry

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/internal/policy"
)

// Keys of the records of dry-run policies.
const (
	KeyAction  = "action"
	KeyVerdict = "verdict"
	KeyWould   = "would_be"
)

// The bounds of the series of dry-run policies: those of policies that are gone
// expire.
const (
	rehearsalExpiry = time.Hour
	maxRehearsals   = 5000
)

// DryRuns counts and logs what dry-run policies would have made of verdicts. A nil
// one does nothing.
type DryRuns struct {
	log *slog.Logger

	mu     sync.Mutex
	series map[rehearsed]*rehearsals
}

// rehearsed is one label set.
type rehearsed struct {
	policy mesh.PolicyKey
	action mesh.Action
	// allowed is the verdict, would what it would have been.
	allowed, would bool
}

type rehearsals struct {
	n    uint64
	used time.Time
}

var dryRunDesc = prometheus.NewDesc("ambit_policy_dry_run_total",
	"The number of verdicts beside which a dry-run policy was tried: what they were, and what they would have been",
	[]string{"policy_namespace", "policy_name", "action", "verdict", "would_be"}, nil)

// NewDryRuns logs to log, whose component becomes "policy"; the caller registers
// the metric.
func NewDryRuns(log *slog.Logger) *DryRuns {
	return &DryRuns{log: log.With("component", "policy"), series: map[rehearsed]*rehearsals{}}
}

// Note counts what dry-run policies would have made of a verdict on a flow. What
// would have changed it is logged as well; what would not have, for debugging.
func (d *DryRuns) Note(f *Flow, v policy.Verdict) {
	if d == nil {
		return
	}
	for _, r := range v.DryRun {
		d.count(rehearsed{r.Policy, r.Action, v.Allow, r.Allow})
		level := slog.LevelDebug
		if r.Allow != v.Allow {
			level = slog.LevelInfo
		}
		ctx := context.Background()
		if !d.log.Enabled(ctx, level) {
			continue
		}
		attrs := []slog.Attr{
			slog.String(KeyPolicy, r.Policy.String()), slog.String(KeyAction, r.Action.String()),
			slog.String(KeyVerdict, answer(v.Allow)), slog.String(KeyWould, answer(r.Allow)),
		}
		d.log.LogAttrs(ctx, level, "dry run", flowAttrs(f, attrs)...)
	}
}

func answer(allow bool) string {
	if allow {
		return "allow"
	}
	return "deny"
}

func (d *DryRuns) count(k rehearsed) {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.series[k]
	if s == nil {
		if len(d.series) >= maxRehearsals {
			d.makeRoomLocked()
		}
		s = &rehearsals{}
		d.series[k] = s
	}
	s.n++
	s.used = time.Now()
}

// makeRoomLocked drops the tenth that was used longest ago.
func (d *DryRuns) makeRoomLocked() {
	keys := make([]rehearsed, 0, len(d.series))
	for k := range d.series {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, func(a, b rehearsed) int { return d.series[a].used.Compare(d.series[b].used) })
	for _, k := range keys[:maxRehearsals/10] {
		delete(d.series, k)
	}
}

// Describe implements prometheus.Collector.
func (d *DryRuns) Describe(out chan<- *prometheus.Desc) { out <- dryRunDesc }

// Collect drops what has expired and gives the rest.
func (d *DryRuns) Collect(out chan<- prometheus.Metric) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for k, s := range d.series {
		if time.Since(s.used) > rehearsalExpiry {
			delete(d.series, k)
			continue
		}
		out <- prometheus.MustNewConstMetric(dryRunDesc, prometheus.CounterValue, float64(s.n),
			k.policy.Namespace, k.policy.Name, k.action.String(), answer(k.allowed), answer(k.would))
	}
}
