package suite

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/ambit-mesh/ambit/e2e/echo"
	"github.com/ambit-mesh/ambit/e2e/stage"
)

// ledger is what is known of a run at its end: which tests ran when, and what
// became of the requests of the vigil.
type ledger struct {
	mu     sync.Mutex
	plays  []*play
	failed []burst // those with failures
	asked  int     // requests
	unable int     // bursts that were not made
}

// play is one attempt at one test.
type play struct {
	test         string
	began, ended time.Time // ended is zero while it goes on
	cut          time.Time // since when it cuts connections on purpose; zero is never
}

// burst is some requests of the vigil.
type burst struct {
	began, ended time.Time
	failed       int
	reasons      map[string]int
}

// recovery is how long what a test cut may take to come back after its end.
const recovery = 15 * time.Second

// plays of this run, in the order in which they began.
var plays ledger

// begin takes note of a test that begins.
func (l *ledger) begin(test string, now time.Time) *play {
	l.mu.Lock()
	defer l.mu.Unlock()
	p := &play{test: test, began: now}
	l.plays = append(l.plays, p)
	return p
}

// end takes note that a test has ended.
func (l *ledger) end(p *play, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	p.ended = now
}

// cuts takes note that a test cuts connections of others from now on.
func (l *ledger) cuts(p *play, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if p.cut.IsZero() {
		p.cut = now
	}
}

// burst takes note of what became of some requests; err is why they were not
// made.
func (l *ledger) burst(began, ended time.Time, s echo.Summary, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil {
		l.unable++
		return
	}
	l.asked += s.Attempts
	if s.Failed > 0 {
		l.failed = append(l.failed, burst{began: began, ended: ended, failed: s.Failed, reasons: s.Failures})
	}
}

// announcedLocked says whether a test cut connections on purpose at the time.
func (l *ledger) announcedLocked(b burst) bool {
	return slices.ContainsFunc(l.plays, func(p *play) bool {
		return !p.cut.IsZero() && b.ended.After(p.cut) && (p.ended.IsZero() || b.began.Before(p.ended.Add(recovery)))
	})
}

// duringLocked names the tests that ran in a time, or the last one before it.
func (l *ledger) duringLocked(from, to time.Time) string {
	var names []string
	var last *play
	for _, p := range l.plays {
		if p.began.After(to) {
			continue
		}
		if p.ended.IsZero() || !p.ended.Before(from) {
			names = append(names, p.test)
		} else if last == nil || p.ended.After(last.ended) {
			last = p
		}
	}
	switch {
	case len(names) > 0:
		slices.Sort(names)
		return "during " + strings.Join(slices.Compact(names), ", ")
	case last != nil:
		return fmt.Sprintf("%s after %s", from.Sub(last.ended).Round(time.Second), last.test)
	}
	return "before the first test"
}

// leastHeard is less than the bytes of a request and its answer in a tunnel.
const leastHeard = 300

// verdict is an error if anything was heard in clear, or if nothing was said
// that could have been.
func (l *ledger) verdict(w stage.Wire) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if w.Marked > 0 {
		var b strings.Builder
		fmt.Fprintf(&b, "%d of %d frames showed what pods of the mesh say to each other, the first of them:", w.Marked, w.Frames)
		for _, s := range w.Sightings {
			fmt.Fprintf(&b, "\n%s, %s: %s → %s", s.At.UTC().Format("15:04:05.000"), l.duringLocked(s.At, s.At), s.From, s.To)
		}
		return errors.New(b.String())
	}
	failed := 0
	for _, b := range l.failed {
		failed += b.failed
	}
	switch {
	case l.asked == 0:
		return fmt.Errorf("no request was made, and %d bursts of them were not possible: nothing is proven", l.unable)
	case failed == l.asked:
		return fmt.Errorf("none of %d requests was answered: nothing is proven", l.asked)
	case w.Tunnelled == 0:
		return fmt.Errorf("none of %d frames was of a tunnel: the eavesdropper listened in the wrong place", w.Frames)
	case w.Tunnelled < leastHeard*(l.asked-failed):
		return fmt.Errorf("only %d bytes of tunnels were heard of %d requests that were answered: the eavesdropper did not listen all the time", w.Tunnelled, l.asked-failed)
	}
	return nil
}

// requests tells how many requests failed, within cuts that were announced and
// outside of them, and when the latter were.
func (l *ledger) requests() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	within, outside := 0, 0
	where := map[string]map[string]int{}
	for _, b := range l.failed {
		if l.announcedLocked(b) {
			within += b.failed
			continue
		}
		outside += b.failed
		at := l.duringLocked(b.began, b.ended)
		if where[at] == nil {
			where[at] = map[string]int{}
		}
		for reason, n := range b.reasons {
			where[at][reason] += n
		}
	}
	text := fmt.Sprintf("%d of %d failed outside of announced cuts, %d within; %d times none could be made", outside, l.asked, within, l.unable)
	for _, at := range sorted(where) {
		for _, reason := range sorted(where[at]) {
			text += fmt.Sprintf("; %s: %d × %s", at, where[at][reason], reason)
		}
	}
	return text
}

func sorted[K cmp.Ordered, V any](m map[K]V) []K {
	keys := make([]K, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
