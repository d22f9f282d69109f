// Command machine-init is the first process of a machine of a test cluster.
// Package e2e/cluster/machine starts it; nobody else should.
package main

import (
	"fmt"
	"log/slog"
	"os"

	"github.com/ambit-mesh/ambit/e2e/cluster/machine"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: machine-init SPEC (started by the cluster tool, as PID 1 of a machine)")
		os.Exit(2)
	}
	if err := machine.Init(os.Args[1], slog.New(slog.NewTextHandler(os.Stderr, nil))); err != nil {
		fmt.Fprintln(os.Stderr, "machine-init:", err)
		os.Exit(1)
	}
}
