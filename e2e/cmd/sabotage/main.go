// The sabotage command breaks the product in every way it knows and prints who
// noticed. It fails when a break goes unnoticed or no longer applies.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/ambit-mesh/ambit/e2e/cluster/supply"
	"github.com/ambit-mesh/ambit/e2e/sabotage"
)

func main() {
	only := flag.String("only", "", "commit only the sabotages whose name contains this")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *only); err != nil {
		fmt.Fprintln(os.Stderr, "sabotage:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, only string) error {
	checkout, err := supply.FindCheckout(".")
	if err != nil {
		return err
	}
	var list []sabotage.Sabotage
	for _, s := range sabotage.Table() {
		if !strings.Contains(s.Name, only) {
			continue
		}
		if s.Root && os.Geteuid() != 0 {
			return fmt.Errorf("%q needs root: its tests make network namespaces", s.Name)
		}
		list = append(list, s)
	}
	fmt.Println("first without any sabotage: the tests must be green")
	began := time.Now()
	if err := sabotage.Baseline(ctx, checkout, list, func(pkg string, number, of int) {
		fmt.Printf("%2d/%d %s (%.0f s so far)\n", number, of, pkg, time.Since(began).Seconds())
	}); err != nil {
		return err
	}
	var verdicts []sabotage.Verdict
	for i, s := range list {
		began := time.Now()
		v := sabotage.Run(ctx, checkout, s)
		verdicts = append(verdicts, v)
		fmt.Printf("%2d/%d %-60s %s (%.1fs)\n", i+1, len(list), s.Name, word(v), time.Since(began).Seconds())
	}
	return table(verdicts)
}

func word(v sabotage.Verdict) string {
	switch {
	case v.Err != nil:
		return "NO VERDICT"
	case v.Noticed():
		return "noticed"
	}
	return "UNNOTICED"
}

func more(n int) string {
	if n <= 0 {
		return ""
	}
	return fmt.Sprintf(" and %d more", n)
}

// table prints the verdicts and says whether all is well.
func table(verdicts []sabotage.Verdict) error {
	fmt.Println()
	w := tabwriter.NewWriter(os.Stdout, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "VERDICT\tSABOTAGE\tTURNED RED")
	bad := 0
	for _, v := range verdicts {
		if !v.Noticed() {
			bad++
		}
		var red []string
		for _, t := range v.Red {
			red = append(red, t.String())
		}
		fmt.Fprintf(w, "%s\t%s\t%s\n", word(v), v.Sabotage.Name, strings.Join(red, ", "))
		if n := len(v.Said); n > 0 {
			fmt.Fprintf(w, "\t\t%s\n", strings.Join(v.Said[:min(n, 3)], ", ")+more(n-3))
		}
		for _, t := range v.Green {
			fmt.Fprintf(w, "\t\tslept through it: %s\n", t)
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for _, v := range verdicts {
		if v.Err != nil {
			fmt.Printf("\n%s: %v\n", v.Sabotage.Name, v.Err)
		}
	}
	if bad > 0 {
		return fmt.Errorf("%d of %d sabotages were not noticed as they should be", bad, len(verdicts))
	}
	fmt.Printf("\nall %d sabotages were noticed\n", len(verdicts))
	return nil
}
