// Package soak runs the tests of e2e/suite that have a long form, each lane on
// a cluster of its own, and gathers their verdicts and figures into a report.
// It owns which tests those are; it refuses to know what they do. Called by the
// soak command.
package soak

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Form is the environment variable that says which form the tests take.
const Form = "SOAK"

// Long is its value for the long form; anything else is the short one.
const Long = "long"

// Config says what to run.
type Config struct {
	// Checkout is the root of the source tree.
	Checkout string
	// Long asks for the long form, which takes hours.
	Long bool
	// Only are parts of the names of the tests to run; empty means all.
	Only []string
	// Progress gets every line of the tests' output, marked with its lane.
	Progress io.Writer
}

// Result is what became of one story.
type Result struct {
	Story   Story         `json:"story"`
	Passed  bool          `json:"passed"`
	Took    time.Duration `json:"took_ns"`
	Figures []Figure      `json:"figures"`
	// Run says of which run it is: its form, version, date and machine.
	Run string `json:"run"`
}

// Renew puts newer results in the place of older ones of the same stories; the
// others stay. Stories that the table has no more are left out.
func Renew(older, newer []Result) []Result {
	var all []Result
	for _, s := range everything() {
		of := func(r Result) bool { return r.Story.Test == s.Test && r.Story.Lane == s.Lane }
		for _, results := range [][]Result{newer, older} {
			if i := slices.IndexFunc(results, of); i >= 0 {
				r := results[i]
				r.Story = s
				all = append(all, r)
				break
			}
		}
	}
	return all
}

// Run runs every story that was asked for, the lanes side by side. An error is
// a lane that came to no verdict; its stories count as not passed.
func Run(ctx context.Context, cfg Config) ([]Result, error) {
	var (
		all  []Result
		errs []error
		mu   sync.Mutex
		wg   sync.WaitGroup
	)
	for lane := range lanes {
		stories := chosen(cfg.Only, lane)
		if len(stories) == 0 {
			continue
		}
		wg.Go(func() {
			results, err := runLane(ctx, cfg, lane, stories, &mu)
			mu.Lock()
			defer mu.Unlock()
			all, errs = append(all, results...), append(errs, err)
		})
	}
	wg.Wait()
	if len(all) == 0 {
		return nil, fmt.Errorf("no story is named like %s", strings.Join(cfg.Only, " or "))
	}
	order := everything()
	slices.SortFunc(all, func(a, b Result) int { return slices.Index(order, a.Story) - slices.Index(order, b.Story) })
	return all, errors.Join(errs...)
}

func chosen(only []string, lane int) []Story {
	var list []Story
	for _, s := range Table() {
		wanted := len(only) == 0 || slices.ContainsFunc(only, func(part string) bool { return strings.Contains(s.Test, part) })
		if wanted && s.Lane == lane {
			list = append(list, s)
		}
	}
	return list
}

// runLane runs the stories of one lane in one go test, that is on one cluster.
func runLane(ctx context.Context, cfg Config, lane int, stories []Story, mu *sync.Mutex) ([]Result, error) {
	var names []string
	for _, s := range stories {
		names = append(names, s.Test)
	}
	cmd := exec.CommandContext(ctx, "go", "test", "-tags", "e2e", "-count=1", "-timeout", "5h", "-v", "./e2e/suite", "-run", "^("+strings.Join(names, "|")+")$")
	cmd.Dir = cfg.Checkout
	cmd.Env = append(os.Environ(), fmt.Sprintf("E2E_CLUSTER=soak%d", lane))
	if cfg.Long {
		cmd.Env = append(cmd.Env, Form+"="+Long)
	}
	// The tests take their cluster down when they are interrupted.
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGINT) }
	cmd.WaitDelay = time.Minute
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	cmd.Stderr = cmd.Stdout
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	results, broken := gather(out, append(stories, vigilOf(lane)), func(line string) {
		mu.Lock()
		defer mu.Unlock()
		fmt.Fprintf(cfg.Progress, "[%d] %s\n", lane, line)
	})
	if err := cmd.Wait(); err != nil && !slices.ContainsFunc(results, func(r Result) bool { return !r.Passed }) {
		return results, fmt.Errorf("lane %d: %w", lane, err)
	}
	return results, broken
}

var verdictLine = regexp.MustCompile(`^--- (PASS|FAIL|SKIP): (\S+) \(([0-9.]+)s\)`)

// gather reads the output of go test -v. A story without a verdict, or one that
// was skipped, has not passed.
func gather(out io.Reader, stories []Story, tell func(string)) ([]Result, error) {
	results := make([]Result, len(stories))
	for i, s := range stories {
		results[i].Story = s
	}
	of := func(test string) *Result {
		if i := slices.IndexFunc(stories, func(s Story) bool { return s.Test == test }); i >= 0 {
			return &results[i]
		}
		return nil
	}
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		line := lines.Text()
		tell(line)
		if m := verdictLine.FindStringSubmatch(line); m != nil {
			if r := of(m[2]); r != nil {
				r.Passed = m[1] == "PASS"
				r.Took, _ = time.ParseDuration(m[3] + "s") // the expression admits only numbers
			}
		}
		if f, ok := parseFigure(line); ok {
			if r := of(f.Test); r != nil {
				r.Figures = append(r.Figures, f)
			}
		}
	}
	return results, lines.Err()
}
