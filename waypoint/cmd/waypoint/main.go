// Command waypoint is the L7 proxy of a namespace. It is configured by the
// environment, as istiod-lite/provision writes it; see config.go for the list.
// Arguments such as "proxy waypoint" are accepted and mean nothing.
package main

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/ambit-mesh/ambit/internal/admin"
	"github.com/ambit-mesh/ambit/waypoint"
)

// version is set when the binary is linked.
var version = "dev"

func main() {
	if len(os.Args) > 1 && strings.TrimLeft(os.Args[1], "-") == "version" {
		fmt.Println("waypoint", version)
		return
	}
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "waypoint:", err)
		os.Exit(1)
	}
}

func run() error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	env := environment(os.Getenv)
	config, err := env.config()
	if err != nil {
		return err
	}
	config.Version = version
	if config.Levels, err = admin.ParseLevels(cmp.Or(env("LOG_LEVEL"), env("RUST_LOG"))); err != nil {
		return err
	}
	config.Logger = config.Levels.Logger(os.Stdout, env("LOG_FORMAT"))
	waypoint.SpareCollections()
	return waypoint.Run(ctx, config)
}
