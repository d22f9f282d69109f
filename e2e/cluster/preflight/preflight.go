// Package preflight says, before anything is built or started, what a machine
// lacks for a test cluster, and what to do about it. It installs missing Debian
// packages when it is asked to; it changes nothing else.
//
// It owns the list of checks. It refuses to guess: what it cannot find out it
// reports as a warning. cmd/cluster calls it.
package preflight

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
)

// Config says what to look at.
type Config struct {
	// Dir is where things will be built. Required.
	Dir string
	// Install allows missing Debian packages to be installed, when run as root.
	Install bool
	// Log receives what is being installed. Nil means slog.Default.
	Log *slog.Logger
}

// Level says how bad a finding is.
type Level int

// The levels.
const (
	OK   Level = iota
	Warn       // a part of the work will suffer, or it could not be found out
	Fail       // it will not work
)

func (l Level) String() string {
	switch l {
	case OK:
		return "ok"
	case Warn:
		return "WARN"
	case Fail:
		return "FAIL"
	}
	return fmt.Sprintf("Level(%d)", int(l))
}

// Finding is the result of one check.
type Finding struct {
	What  string // what was looked at
	Level Level
	Found string // what was found, and if it is not fine what to do
}

// Report is all findings.
type Report []Finding

// OK says whether nothing failed.
func (r Report) OK() bool {
	for _, f := range r {
		if f.Level == Fail {
			return false
		}
	}
	return true
}

// Table prints one line per finding.
func (r Report) Table() string {
	var b strings.Builder
	for _, f := range r {
		fmt.Fprintf(&b, "%-4s  %-22s %s\n", f.Level, f.What, f.Found)
	}
	return b.String()
}

// Check looks at everything.
func Check(ctx context.Context, cfg Config) Report {
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	cfg.Log = cfg.Log.With("component", "preflight")
	r := Report{root(), goVersion(ctx), packages(ctx, cfg), compiler(), disk(ctx, cfg), openFiles(), inotify()}
	return append(r, cgroups(), namespaces(), kernel(), bridgeFilter(), ipv6())
}

func ok(what, format string, args ...any) Finding {
	return Finding{What: what, Level: OK, Found: fmt.Sprintf(format, args...)}
}

func warn(what, format string, args ...any) Finding {
	return Finding{What: what, Level: Warn, Found: fmt.Sprintf(format, args...)}
}

func fail(what, format string, args ...any) Finding {
	return Finding{What: what, Level: Fail, Found: fmt.Sprintf(format, args...)}
}
