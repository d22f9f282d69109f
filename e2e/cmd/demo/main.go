// The demo command shows the mesh at work on a cluster of its own, or on the
// one that KUBECONFIG names, and ends with a table of checks.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/ambit-mesh/ambit/e2e/demo"
	"github.com/ambit-mesh/ambit/e2e/stage"
)

func main() {
	name := flag.String("name", "demo", "name of the cluster to bring up")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *name); err != nil {
		fmt.Fprintln(os.Stderr, "\ndemo:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, name string) error {
	cfg := stage.Config{
		Name: name, Progress: os.Stdout,
		Kubeconfig: os.Getenv("KUBECONFIG"), ImageRepo: os.Getenv("IMAGE_REPO"), ImageTag: os.Getenv("IMAGE_TAG"),
	}
	s, err := stage.Set(ctx, cfg)
	if err != nil {
		return err
	}
	err = demo.Play(ctx, s, os.Stdout)
	if s.Cluster != nil {
		fmt.Printf("\nThe cluster stays up until `make down`:\n  export KUBECONFIG=%s PATH=$PATH:%s/build/bin\n", s.Cluster.Kubeconfig(), s.Checkout)
	}
	if err == nil {
		fmt.Print(next)
	}
	return err
}

const next = `
Try next:
  ambit check
  ambit status                                                  # who has the newest configuration
  ambit waypoint circuits -n shop --all
  ambit can shop/client GET http://reviews.shop/                # and the reasons, without a request
  ambit ztunnel workloads -n shop
  ambit ztunnel certificates
  ambit ztunnel connections
  kubectl -n shop exec front -- /echo get http://db.shop/      # denied by the policy
  kubectl -n shop delete authorizationpolicy db-admits-reviews # and admitted again
  kubectl label namespace shop istio.io/dataplane-mode-        # out of the mesh, live
`
