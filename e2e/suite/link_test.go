//go:build e2e

package suite

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"
)

// TestALinkThatIsCutAndHealed: two nodes do not see each other for a while. What
// is sent meanwhile does not go in clear, and afterwards all is well again.
func TestALinkThatIsCutAndHealed(t *testing.T) {
	c := onOurNodes(t)
	cut := Lasts(8*time.Second, time.Minute)
	HoldFor(t, mesh, cut, func(ctx context.Context, sc *Scene) error {
		hosts, err := sc.inMesh(ctx, true)
		if err != nil {
			return err
		}
		node, err := sc.Node(ctx, 2)
		if err != nil {
			return err
		}
		marker := "CUT-" + sc.NS
		stop, err := sc.Listen(ctx, "", marker)
		if err != nil {
			return err
		}
		load := sc.Begin(ctx, "client", "load", "--rate", "20", "--timeout", "2s", "--duration", (cut + 12*time.Second).String(), url(hosts[0], httpPort)+marker)
		sc.Cuts()
		if err := c.LinkCut(node); err != nil {
			return err
		}
		sc.Undo(func(context.Context) error { return c.LinkHeal(node) })
		select {
		case <-time.After(cut):
		case <-ctx.Done():
			return ctx.Err()
		}
		if err := c.LinkHeal(node); err != nil {
			return err
		}
		healed := Soon(ctx, func(ctx context.Context) error {
			return sc.Works(ctx, "client", "get", "--count", "10", "--timeout", "2s", url(hosts[0], httpPort)+marker)
		})
		s, err := load.End()
		wire, stopErr := stop()
		if err := errors.Join(healed, err, stopErr); err != nil {
			return err
		}
		if s.Failed == 0 {
			return fmt.Errorf("none of %d requests failed: the link was not cut", s.Attempts)
		}
		if wire.Marked > 0 {
			return fmt.Errorf("%d of %d frames showed the marker in clear", wire.Marked, wire.Frames)
		}
		sc.Figure("link cut", "%s, %d of %d requests failed meanwhile, 0 of %d frames in clear", cut, s.Failed, s.Attempts, wire.Frames)
		return sc.encryptedBetween(ctx, "client", "server")
	})
}
