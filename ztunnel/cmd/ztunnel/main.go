// Command ztunnel is the node proxy. It is configured by the environment, with
// upstream's names, so that upstream's manifests can run it; see config.go for
// the list. Arguments such as "proxy ztunnel" are accepted and mean nothing.
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
	"github.com/ambit-mesh/ambit/ztunnel"
)

// version is set when the binary is linked.
var version = "dev"

func main() {
	if len(os.Args) > 1 && strings.TrimLeft(os.Args[1], "-") == "version" {
		fmt.Println("ztunnel", version)
		return
	}
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "ztunnel:", err)
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
	return ztunnel.Run(ctx, config)
}
