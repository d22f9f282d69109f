// Command bench measures the product and writes the table of ratios; see
// package bench.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/ambit-mesh/ambit/bench"
)

func main() {
	if is, err := bench.Child(os.Args[1:]); is {
		exit(err)
	}
	cfg := bench.Config{Out: os.Stdout, Progress: os.Stderr}
	flag.StringVar(&cfg.Results, "o", "build/bench/results.json", "file of the results")
	flag.StringVar(&cfg.Only, "only", "", "only the rows whose name begins so")
	flag.IntVar(&cfg.Rounds, "rounds", 0, "rounds (default 7)")
	flag.IntVar(&cfg.Idle, "idle", 0, "most idle connections (default 4000)")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if strings.Contains(os.Getenv("PEERS"), "envoy") {
		var err error
		if cfg.Envoy, err = bench.FetchEnvoy(ctx, "build/bench/peers"); err != nil {
			exit(err)
		}
	}
	exit(bench.Run(ctx, cfg))
}

func exit(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
	os.Exit(0)
}
