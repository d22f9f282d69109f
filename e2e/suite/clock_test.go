//go:build e2e

package suite

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/ambit-mesh/ambit/ambit/doctor"
	"github.com/ambit-mesh/ambit/e2e/images"
	"github.com/ambit-mesh/ambit/manifests"
)

// TestNodesWhoseClocksAreTenMinutesOff: one node's is behind, another's ahead, so
// that they differ by twenty minutes. Their proxies start so, get certificates and
// take each other's: no request fails, none goes in clear (the vigil listens), a
// new pod joins, and `ambit check` names both clocks.
func TestNodesWhoseClocksAreTenMinutesOff(t *testing.T) {
	c := onOurNodes(t)
	archives, err := images.Build(t.Context(), images.Config{Checkout: mesh.Checkout, Names: []string{images.Shifted}})
	if err == nil {
		err = c.Load(t.Context(), archives...)
	}
	if err != nil {
		t.Fatal(err)
	}
	const lasts = 2 * time.Minute // at most
	HoldFor(t, mesh, lasts, func(ctx context.Context, sc *Scene) error {
		hosts, err := sc.inMesh(ctx, true)
		if err != nil {
			return err
		}
		behind, err1 := sc.Node(ctx, 1)
		ahead, err2 := sc.Node(ctx, 2)
		if err := errors.Join(err1, err2); err != nil {
			return err
		}
		load := sc.Begin(ctx, "client", "load", "--rate", "100", "--timeout", "10s", "--duration", lasts.String(), url(hosts[0], httpPort))
		was, err := sc.wrongClocks(ctx, sc.Image(images.Shifted), fmt.Sprintf("%s=-600,%s=600", behind, ahead))
		sc.Undo(func(ctx context.Context) error {
			_, err := sc.wrongClocks(ctx, was, "")
			return err
		})
		if err != nil {
			return err
		}
		if err := sc.clocksFound(ctx, map[string]string{behind: "10m0s behind", ahead: "10m0s ahead"}); err != nil {
			return err
		}
		if err := sc.Start(ctx, Pod{Name: "late", Node: 1}); err != nil {
			return err
		}
		if err := errors.Join(sc.encryptedBetween(ctx, "late", "server"), sc.encryptedBetween(ctx, "server", "client", "late")); err != nil {
			return err
		}
		if err := sc.steady(ctx, []*running{load}, 5*time.Second); err != nil {
			return err
		}
		if err := sc.stop(ctx, "client"); err != nil {
			return err
		}
		return sc.allEnded([]*running{load})
	})
}

// wrongClocks replaces the node proxies by those of an image, with a clock that is
// off as shift says, and gives the image that they had.
func (sc *Scene) wrongClocks(ctx context.Context, image, shift string) (was string, err error) {
	pods, err := sc.Pods(ctx, manifests.Namespace, "app=ztunnel")
	if err != nil {
		return "", err
	}
	old := map[types.UID]bool{}
	for _, p := range pods {
		old[p.UID], was = true, p.Spec.Containers[0].Image
	}
	env := fmt.Sprintf(`{"name":%q,"value":%q}`, images.ShiftEnv, shift)
	if shift == "" {
		env = fmt.Sprintf(`{"$patch":"delete","name":%q}`, images.ShiftEnv)
	}
	patch := fmt.Sprintf(`{"spec":{"template":{"spec":{"containers":[{"name":"istio-proxy","image":%q,"env":[%s]}]}}}}`, image, env)
	if _, err := sc.Reach.Client.AppsV1().DaemonSets(manifests.Namespace).Patch(ctx, "ztunnel", types.StrategicMergePatchType, []byte(patch), metav1.PatchOptions{}); err != nil {
		return was, err
	}
	return was, sc.ztunnelsReady(ctx, old)
}

// clocksFound looks that `ambit check` names the clocks of nodes, and no other.
func (sc *Scene) clocksFound(ctx context.Context, want map[string]string) error {
	return Soon(ctx, func(ctx context.Context) error {
		all, err := sc.findings(ctx)
		if err != nil {
			return err
		}
		found := 0
		for _, f := range all {
			node, ok := strings.CutPrefix(f.Check, "clock of ")
			if !ok {
				continue
			}
			found++
			if f.Level != doctor.Fail || want[node] == "" || !strings.Contains(f.Detail, want[node]) {
				return fmt.Errorf("of the clock of %s it says %q", node, f.Detail)
			}
		}
		if found != len(want) {
			return fmt.Errorf("%d clocks are named, want %d: %s", found, len(want), sc.lastFindings)
		}
		return nil
	})
}
