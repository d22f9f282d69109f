// Command fuzz runs every fuzz target of the checkout for a while each, and says
// at the end how many there were and whether all held. What a target finds is
// kept by go test in the package's testdata, to be committed with its fix.
package main

import (
	"bufio"
	"bytes"
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

func main() {
	each := flag.Duration("time", time.Minute, "how long each target runs")
	only := flag.String("only", "", "run only the targets whose package and name contain this")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, *each, *only); err != nil {
		fmt.Fprintln(os.Stderr, "fuzz:", err)
		os.Exit(1)
	}
}

// target is one fuzz function.
type target struct{ dir, name string }

func (t target) String() string { return t.dir + " " + t.name }

func run(ctx context.Context, each time.Duration, only string) error {
	all, err := targets(only)
	if err != nil {
		return err
	}
	if len(all) == 0 {
		return fmt.Errorf("no target contains %q", only)
	}
	fmt.Printf("%d targets, %v each: about %v\n", len(all), each, (time.Duration(len(all)) * (each + 5*time.Second)).Round(time.Minute))
	began := time.Now()
	var failed []target
	for i, t := range all {
		fmt.Printf("[%d/%d] %s … ", i+1, len(all), t)
		said, err := fuzz(ctx, t, each)
		if ctx.Err() != nil {
			return fmt.Errorf("interrupted after %d targets", i)
		}
		if err != nil && !overtime(said) {
			failed = append(failed, t)
			fmt.Printf("FAIL\n%s\n", said)
			continue
		}
		fmt.Println("ok,", summary(said))
	}
	took := time.Since(began).Round(time.Second)
	if len(failed) > 0 {
		for _, t := range failed {
			fmt.Printf("FAIL %s; again: go test -run %s ./%s\n", t, t.name, t.dir)
		}
		return fmt.Errorf("%d of %d targets failed, in %v", len(failed), len(all), took)
	}
	fmt.Printf("PASS: %d targets, %v each, in %v\n", len(all), each, took)
	return nil
}

var declared = regexp.MustCompile(`(?m)^func (Fuzz[A-Z]\w*)\(\w+ \*testing\.F\)`)

// targets are those in the files that git knows or that are new.
func targets(only string) (all []target, err error) {
	out, err := exec.Command("git", "ls-files", "-co", "--exclude-standard", "--", "*_test.go").Output()
	if err != nil {
		return nil, fmt.Errorf("listing tests: %w", err)
	}
	for _, file := range strings.Fields(string(out)) {
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		for _, m := range declared.FindAllSubmatch(text, -1) {
			if t := (target{filepath.Dir(file), string(m[1])}); strings.Contains(t.String(), only) {
				all = append(all, t)
			}
		}
	}
	return all, nil
}

// fuzz runs one target and gives what go test said.
func fuzz(ctx context.Context, t target, each time.Duration) (string, error) {
	cmd := exec.CommandContext(ctx, "go", "test", "-run", "^$", "-fuzz", "^"+t.name+"$", "-fuzztime", each.String(), "./"+t.dir)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) } // go test ends its workers
	cmd.WaitDelay = 10 * time.Second
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	return out.String(), err
}

// overtime is a run that go test takes for a failure because an input was being
// tried when the time was over; what really fails has an input.
func overtime(said string) bool {
	return strings.Contains(said, "    context deadline exceeded\n") && !strings.Contains(said, "Failing input written")
}

// summary is the last figures that go test gave.
func summary(said string) (last string) {
	for s := bufio.NewScanner(strings.NewReader(said)); s.Scan(); {
		if _, figures, ok := strings.Cut(s.Text(), "execs: "); ok {
			last = "executions " + figures
		}
	}
	return last
}
