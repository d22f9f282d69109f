//go:build e2e

package suite

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"testing"

	"github.com/ambit-mesh/ambit/e2e/cluster"
	"github.com/ambit-mesh/ambit/e2e/stage"
)

// mesh is the stage of every test.
var mesh *stage.Stage

// programs are the images that only some tests need.
var programs = []string{"nginx", "redis", "postgres", "echo-advanced"}

func TestMain(m *testing.M) {
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		code = 1
	}
	os.Exit(code)
}

// run brings up a cluster, runs the tests and takes the cluster down. With
// E2E_KEEP=1 it stays up, and a cluster that stands is used again. KUBECONFIG
// names somebody else's cluster; IMAGE_REPO and IMAGE_TAG the images on it.
func run(m *testing.M) (int, error) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	name := os.Getenv("E2E_CLUSTER")
	if name == "" {
		name = "test"
	}
	kubeconfig, keep := os.Getenv("KUBECONFIG"), os.Getenv("E2E_KEEP") != ""
	if !stage.Foreign(kubeconfig) && !keep {
		// What an earlier run left behind must not decide this one.
		left, err := cluster.Open(cluster.Config{Name: name})
		if err != nil {
			return 1, err
		}
		if err := left.Down(); err != nil {
			return 1, err
		}
	}
	s, err := stage.Set(ctx, stage.Config{
		Name: name, Family: cluster.Dual, Images: programs, Progress: os.Stderr,
		Kubeconfig: kubeconfig, ImageRepo: os.Getenv("IMAGE_REPO"), ImageTag: os.Getenv("IMAGE_TAG"),
	})
	if err != nil {
		return 1, err
	}
	mesh = s
	vigil.Begin(ctx, s)
	s.Step("running the tests")
	code := m.Run()
	if !vigil.End(keep) {
		code = max(code, 1)
	}
	PrintFlakes()
	PrintFigures()
	if keep {
		return code, nil
	}
	s.Step("taking the cluster down")
	return code, s.Strike()
}

// onOurNodes skips a test that looks into nodes or harms them on somebody
// else's cluster.
func onOurNodes(t *testing.T) *cluster.Cluster {
	t.Helper()
	if mesh.Cluster == nil {
		t.Skip("needs nodes of our own: KUBECONFIG names another cluster")
	}
	return mesh.Cluster
}
