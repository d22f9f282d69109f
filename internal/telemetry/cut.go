package telemetry

import (
	"context"
	"errors"
	"log/slog"
	"time"
)

// Cut is why a proxy ended a connection that its two ends would have kept.
type Cut uint8

// The reasons. The zero value is none.
const (
	CutNone   Cut = iota
	CutPolicy     // it is no longer allowed
	CutDrain      // the proxy ended, and so did its time to drain
	CutGone       // the pod ended
	CutCrash      // the proxy ended without draining, as the next one found
	cutCount
)

// String is the word of metrics and the log.
func (c Cut) String() string {
	return [cutCount]string{"", "policy", "drain", "pod", "crash"}[c]
}

// Journal remembers open connections beyond the end of the process.
type Journal interface {
	// Begin gives the number under which End forgets it.
	Begin(f *Flow, start time.Time) int
	End(entry int)
}

// Remember writes connections down in j from now on. It is called before the
// first.
func (r *Recorder) Remember(j Journal) { r.journal = j }

var errCrash = errors.New("cut: the proxy that carried it ended without draining")

// Lost records a connection that ended with an earlier process.
func (r *Recorder) Lost(f Flow) {
	r.traffic.cut(f.Direction, CutCrash)
	attrs := append(flowAttrs(&f, make([]slog.Attr, 0, 16)), slog.String(KeyCut, CutCrash.String()), slog.String(KeyError, errCrash.Error()))
	r.log.LogAttrs(context.Background(), slog.LevelWarn, "connection complete", attrs...)
}

// Cuts is how many connections ended for that reason.
func (r *Recorder) Cuts(why Cut) (n uint64) {
	r.traffic.mu.Lock()
	defer r.traffic.mu.Unlock()
	for d := range directionCount {
		n += r.traffic.cuts[d][why]
	}
	return n
}
