//go:build e2e

package suite

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// TestANamespaceGoesOverToHTTP3UnderLoad: its label changes under load, and the
// node proxies are replaced while its tunnels are over HTTP/3. No request fails,
// megabytes arrive whole, and what goes between the nodes is encrypted as before.
func TestANamespaceGoesOverToHTTP3UnderLoad(t *testing.T) {
	onOurNodes(t)
	const lasts = 2 * time.Minute // at most
	HoldFor(t, mesh, lasts, func(ctx context.Context, sc *Scene) error {
		hosts, err := sc.inMesh(ctx, true)
		if err != nil {
			return err
		}
		made := func(ctx context.Context) (h2, h3 int, err error) {
			return h2, h3, sc.proxiesTell(ctx, map[string]*int{`ambit_tunnels_made_total{transport="h2"}`: &h2, `ambit_tunnels_made_total{transport="h3"}`: &h3})
		}
		load := sc.Begin(ctx, "client", "load", "--rate", "100", "--timeout", "10s", "--duration", lasts.String(), url(hosts[0], httpPort))
		over := func(ctx context.Context) error {
			return Soon(ctx, func(ctx context.Context) error {
				if _, h3, err := made(ctx); err != nil || h3 == 0 {
					return errors.Join(err, fmt.Errorf("%d tunnels were made over HTTP/3", h3))
				}
				return nil
			})
		}
		patch := []byte(`{"metadata":{"labels":{"ambit.io/tunnel-transport":"h3"}}}`)
		if _, err := sc.Reach.Client.CoreV1().Namespaces().Patch(ctx, sc.NS, types.MergePatchType, patch, metav1.PatchOptions{}); err != nil {
			return err
		}
		if err := over(ctx); err != nil {
			return err
		}
		if err := sc.encryptedBetween(ctx, "client", "server"); err != nil {
			return err
		}
		for _, direction := range []string{"up", "down"} { // with its checksum
			if err := sc.Works(ctx, "client", "bulk", "--bytes", fmt.Sprint(64<<20), "--direction", direction, "--timeout", "1m", address(hosts[0], bulkPort)); err != nil {
				return err
			}
		}
		if _, err := sc.replaceZtunnels(ctx); err != nil {
			return err
		}
		if err := sc.steady(ctx, []*running{load}, 2*time.Second); err != nil {
			return err
		}
		if err := sc.stop(ctx, "client"); err != nil {
			return err
		}
		h2, h3, err := made(ctx)
		sc.Figure("tunnels of the new proxies", "%d over HTTP/2, %d over HTTP/3", h2, h3)
		return errors.Join(err, sc.allEnded([]*running{load}))
	})
}
