package bench

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"text/tabwriter"
)

// Row is one result, as build/bench/results.json has it.
type Row struct {
	Name          string  `json:"name"`
	Unit          string  `json:"unit"`
	Value         float64 `json:"value"`
	Baseline      string  `json:"baseline"`
	BaselineValue float64 `json:"baseline_value"`
	// Ratio is value/baseline, the median over the rounds of the ratio in each.
	Ratio float64 `json:"ratio"`
	// RatioMin and RatioMax are the spread over the rounds.
	RatioMin float64 `json:"ratio_min"`
	RatioMax float64 `json:"ratio_max"`
	Rounds   int     `json:"rounds"`
	// Better says in which direction.
	Better string `json:"better"`
	// Goal is what the ratio, or without a baseline the value, should reach; 0
	// is none.
	Goal float64 `json:"goal,omitempty"`
	// Note says what else belongs to the figure.
	Note string `json:"note,omitempty"`
}

// Directions of a row.
const (
	Higher = "higher"
	Lower  = "lower"
)

// measured makes a row of what the rounds gave.
func measured(name, unit string, value, base []float64, baseline, better string, goal float64) Row {
	r := Row{
		Name: name, Unit: unit, Value: median(value), Baseline: baseline, BaselineValue: median(base),
		Rounds: len(value), Better: better, Goal: goal,
	}
	if len(base) == 0 {
		return r
	}
	ratios := make([]float64, len(value))
	for i := range value {
		ratios[i] = value[i] / base[i]
	}
	r.Ratio, r.RatioMin, r.RatioMax = median(ratios), slices.Min(ratios), slices.Max(ratios)
	return r
}

// Missed reports whether there is a goal that was not reached.
func (r *Row) Missed() bool {
	v := r.Ratio
	if r.Baseline == "" {
		v = r.Value
	}
	switch {
	case r.Goal == 0:
		return false
	case r.Better == Higher:
		return v < r.Goal
	}
	return v > r.Goal
}

func median(v []float64) float64 {
	if len(v) == 0 {
		return 0
	}
	v = slices.Clone(v)
	slices.Sort(v)
	if n := len(v); n%2 == 0 {
		return (v[n/2-1] + v[n/2]) / 2
	}
	return v[len(v)/2]
}

// percentile of sorted values.
func percentile[T cmp.Ordered](sorted []T, p float64) T {
	return sorted[min(len(sorted)-1, int(p*float64(len(sorted))))]
}

// print writes the table.
func printRows(w io.Writer, rows []Row) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "row\tvalue\tunit\tbaseline\tvalue\tratio\t(min..max)\tbetter\tgoal\t")
	for _, r := range rows {
		fmt.Fprintf(t, "%s\t%s\t%s\t", r.Name, figure(r.Value), r.Unit)
		if r.Baseline != "" {
			fmt.Fprintf(t, "%s\t%s\t%.2f\t(%.2f..%.2f)\t", r.Baseline, figure(r.BaselineValue), r.Ratio, r.RatioMin, r.RatioMax)
		} else {
			fmt.Fprint(t, "\t\t\t\t")
		}
		fmt.Fprintf(t, "%s\t%s\t%s\n", r.Better, goal(&r), r.Note)
	}
	t.Flush()
}

func goal(r *Row) string {
	switch {
	case r.Goal == 0:
		return "-"
	case r.Missed():
		return figure(r.Goal) + " MISSED"
	}
	return figure(r.Goal) + " ok"
}

func figure(v float64) string {
	if v < 100 {
		return fmt.Sprintf("%.2f", v)
	}
	return fmt.Sprintf("%.0f", v)
}

// save writes the rows as JSON.
func save(path string, rows []Row) error {
	b, err := json.MarshalIndent(rows, "", "  ")
	if err != nil {
		return fmt.Errorf("encoding results: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("saving results: %w", err)
	}
	if err := os.WriteFile(path, append(b, '\n'), 0o644); err != nil {
		return fmt.Errorf("saving results: %w", err)
	}
	return nil
}
