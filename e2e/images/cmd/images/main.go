// Command images builds the container images of the mesh and of its tests, and
// with -push sends them to a registry.
package main

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/ambit-mesh/ambit/e2e/images"
)

func main() {
	flag.Usage = func() {
		fmt.Fprintf(flag.CommandLine.Output(), "usage: images [flags] [IMAGE...]\nWithout names: all images.\n")
		flag.PrintDefaults()
	}
	checkout := flag.String("checkout", ".", "root of the source tree")
	out := flag.String("out", "", "directory of archives (default CHECKOUT/build/images)")
	bin := flag.String("bin", "", "directory of tools (default CHECKOUT/build/bin)")
	push := flag.String("push", "", "push below this prefix, such as registry.example/team; without names all but the images of the test cluster itself")
	tag := flag.String("tag", images.Tag, "tag of pushed images")
	version := flag.String("version", "", "what the product's programs call themselves (default dev)")
	flag.Parse()
	cfg := images.Config{
		Checkout: *checkout, Out: *out, Bin: *bin, Names: flag.Args(), Version: *version,
		Log: slog.New(slog.NewTextHandler(os.Stderr, nil)),
	}
	if err := run(cfg, *push, *tag); err != nil {
		fmt.Fprintln(os.Stderr, "images:", err)
		os.Exit(1)
	}
}

func run(cfg images.Config, prefix, tag string) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if prefix != "" && len(cfg.Names) == 0 {
		// The tests' own images go along, so that tests run on the cluster of KUBECONFIG.
		for _, img := range append(images.Product(), images.Test()...) {
			if img.Reference == "" { // else manifests of others name the image where its authors keep it
				cfg.Names = append(cfg.Names, img.Name)
			}
		}
	}
	archives, err := images.Build(ctx, cfg)
	if err != nil {
		return err
	}
	for _, a := range archives {
		fmt.Println(a)
	}
	if prefix == "" {
		return nil
	}
	return images.Push(ctx, cfg, prefix, tag)
}
