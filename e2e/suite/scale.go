package suite

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ambit-mesh/ambit/e2e/soak"
	"github.com/ambit-mesh/ambit/e2e/stage"
)

// long reports whether `make soak` asked for the long form of the tests that
// have two.
func long() bool { return os.Getenv(soak.Form) == soak.Long }

// Lasts is how long something goes on in the short form, which `make test`
// runs, and in the long one.
func Lasts(short, inSoak time.Duration) time.Duration {
	if long() {
		return inSoak
	}
	return short
}

// Times is how often something is done in the short form and in the long one.
func Times(short, inSoak int) int {
	if long() {
		return inSoak
	}
	return short
}

// HoldFor is Hold for a promise that takes a known time beside the usual. In
// the long form there is no second attempt: what holds only sometimes over
// hours does not hold.
func HoldFor(t *testing.T, s *stage.Stage, lasts time.Duration, promise func(context.Context, *Scene) error) {
	t.Helper()
	if !long() {
		hold(t, s, promiseLimit+lasts, promise)
		return
	}
	if err := attempt(t, s, 1, promiseLimit+2*lasts, promise); err != nil {
		t.Fatal(err)
	}
}

var (
	figuresMu sync.Mutex
	figures   []string
)

// Figure tells something that was counted or measured: at once in the test's
// log, and again at the end of the run, where e2e/soak finds it.
func (sc *Scene) Figure(name, format string, args ...any) {
	sc.t.Helper()
	text := strings.ReplaceAll(fmt.Sprintf(format, args...), "\n", " ")
	sc.t.Logf("%s: %s", name, text)
	note(soak.Figure{Test: sc.t.Name(), Name: name, Text: text})
}

func note(f soak.Figure) {
	figuresMu.Lock()
	defer figuresMu.Unlock()
	figures = append(figures, f.Line())
}

// PrintFigures tells at the end of a run what the tests counted.
func PrintFigures() {
	figuresMu.Lock()
	defer figuresMu.Unlock()
	for _, f := range figures {
		fmt.Println(f)
	}
}
