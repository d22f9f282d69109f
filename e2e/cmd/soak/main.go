// Command soak runs the long forms of the end-to-end tests, on two clusters
// side by side, prints verdicts and figures, and keeps them in
// build/soak/results.json. FORM=short runs the short forms; ONLY names parts of
// the tests to run, beside whose results those of the others stay; REPORT is a
// file for a page of Markdown about all of them.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/ambit-mesh/ambit/e2e/cluster/supply"
	"github.com/ambit-mesh/ambit/e2e/soak"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "soak:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	form := os.Getenv("FORM")
	switch form {
	case "":
		form = soak.Long
	case soak.Long, "short":
	default:
		return fmt.Errorf("FORM is %q; it is long, which is the default, or short", form)
	}
	checkout, err := supply.FindCheckout(".")
	if err != nil {
		return err
	}
	began := time.Now()
	results, err := soak.Run(ctx, soak.Config{
		Checkout: checkout, Long: form == soak.Long, Only: strings.Fields(os.Getenv("ONLY")), Progress: os.Stdout,
	})
	if len(results) == 0 {
		return err
	}
	which := fmt.Sprintf("%s form of %s, %s, %d processors", form, version(checkout), began.UTC().Format(time.DateOnly), runtime.NumCPU())
	for i := range results {
		results[i].Run = which
	}
	fmt.Println()
	return errors.Join(err, soak.Report(os.Stdout, results), keep(checkout, results), verdict(results, form))
}

// version is the commit that is tested.
func version(checkout string) string {
	cmd := exec.Command("git", "describe", "--always", "--dirty")
	cmd.Dir = checkout
	out, err := cmd.Output()
	if err != nil {
		return "an unknown version"
	}
	return strings.TrimSpace(string(out))
}

// keep writes the results to build/soak, where those of stories that were not
// run this time stay, and all of them to the report that was asked for.
func keep(checkout string, results []soak.Result) error {
	dir := filepath.Join(checkout, "build", "soak")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	name := filepath.Join(dir, "results.json")
	var older []soak.Result
	if b, err := os.ReadFile(name); err == nil {
		if err := json.Unmarshal(b, &older); err != nil {
			return fmt.Errorf("%s cannot be read (delete it to begin anew): %w", name, err)
		}
	}
	all := soak.Renew(older, results)
	b, err := json.MarshalIndent(all, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(name, append(b, '\n'), 0o644); err != nil {
		return err
	}
	report := os.Getenv("REPORT")
	if report == "" {
		return nil
	}
	f, err := os.Create(report)
	if err != nil {
		return err
	}
	return errors.Join(soak.Report(f, all), f.Close())
}

func verdict(results []soak.Result, form string) error {
	var failed []string
	for _, r := range results {
		if !r.Passed {
			failed = append(failed, r.Story.Test)
		}
	}
	fmt.Println()
	if len(failed) > 0 {
		return fmt.Errorf("%d of %d stories in %s form did not hold: %s", len(failed), len(results), form, strings.Join(failed, ", "))
	}
	fmt.Printf("all %d stories held in their %s form\n", len(results), form)
	return nil
}
