//go:build e2e

package suite

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"
)

// TestJoiningAndLeavingUnderLoadLosesNothing: 100 requests a second, each on
// its own connection, as many on kept connections, and long-lived connections
// in both directions, while the namespace joins the mesh and leaves it again.
func TestJoiningAndLeavingUnderLoadLosesNothing(t *testing.T) {
	Hold(t, mesh, func(ctx context.Context, sc *Scene) error {
		hosts, err := sc.inMesh(ctx, false)
		if err != nil {
			return err
		}
		if err := sc.Service(ctx, "server", "server"); err != nil {
			return err
		}
		const lasts = "30s"
		clients := []*running{
			sc.Begin(ctx, "client", "load", "--rate", "100", "--duration", lasts, url("server."+sc.NS, 80)),
			sc.Begin(ctx, "client", "load", "--rate", "20", "--keepalive", "--duration", lasts, url(hosts[0], httpPort)),
			sc.Begin(ctx, "client", "hold", "--duration", lasts, address(hosts[0], tcpPort)),
		}
		began := time.Now()
		if err := sc.steady(ctx, clients, 3*time.Second); err != nil {
			return err
		}
		if err := sc.Join(ctx); err != nil {
			return err
		}
		joined := time.Now()
		// One that is made in the mesh must survive the release.
		inside := sc.Begin(ctx, "client", "hold", "--duration", "18s", address(hosts[0], tcpPort))
		if err := sc.encryptedBetween(ctx, "client", "server"); err != nil {
			return err
		}
		if err := sc.steady(ctx, clients, 2*time.Second); err != nil {
			return err
		}
		if err := sc.Leave(ctx); err != nil {
			return err
		}
		left := time.Now()
		for _, c := range append(clients, inside) {
			err = errors.Join(err, c.EndOK())
		}
		if err != nil {
			return fmt.Errorf("joined after %s, left after %s: %w", joined.Sub(began), left.Sub(began), err)
		}
		if took := left.Sub(began); took > 25*time.Second {
			return fmt.Errorf("joining and leaving took %s: the load ended before it showed anything", took)
		}
		return sc.wasReallyOut(ctx, left)
	})
}

// steady lets clients run for a while; one that ends meanwhile is an error.
func (sc *Scene) steady(ctx context.Context, clients []*running, d time.Duration) error {
	select {
	case <-time.After(d):
	case <-ctx.Done():
		return ctx.Err()
	}
	for _, c := range clients {
		if c.over() {
			_, err := c.End()
			return fmt.Errorf("%s ended early: %w", c.what, err)
		}
	}
	return nil
}

// wasReallyOut makes a call after the release and looks that no proxy saw it.
func (sc *Scene) wasReallyOut(ctx context.Context, since time.Time) error {
	v4, _, err := sc.IPs(ctx, "server")
	if err != nil {
		return err
	}
	return Soon(ctx, func(ctx context.Context) error {
		before, err := sc.countAccess(ctx, since)
		if err != nil {
			return err
		}
		if err := sc.Works(ctx, "client", "get", "--count", "20", url(v4, httpPort)); err != nil {
			return err
		}
		after, err := sc.countAccess(ctx, since)
		if err != nil {
			return err
		}
		if after-before >= 20 {
			return fmt.Errorf("the proxies still record calls of a released namespace")
		}
		return nil
	})
}

func (sc *Scene) countAccess(ctx context.Context, since time.Time) (int, error) {
	records, err := sc.AccessLog(ctx, since)
	n := 0
	for _, r := range records {
		if r.Source == "client" || r.Destination == "server" {
			n++
		}
	}
	return n, err
}

// TestOnePodJoinsAndLeavesByItsOwnLabel, whatever its namespace says.
func TestOnePodJoinsAndLeavesByItsOwnLabel(t *testing.T) {
	t.Parallel()
	Hold(t, mesh, func(ctx context.Context, sc *Scene) error {
		if _, err := sc.inMesh(ctx, false); err != nil {
			return err
		}
		becomes := func(pod string, enrolled bool) error {
			return Soon(ctx, func(ctx context.Context) error {
				p, err := sc.Stage.Pod(ctx, sc.NS, pod)
				if err == nil && (p.Annotations["ambient.istio.io/redirection"] == "enabled") != enrolled {
					err = fmt.Errorf("pod %s: enrolled is %v, want %v", pod, !enrolled, enrolled)
				}
				return err
			})
		}
		if err := errors.Join(sc.LabelPod(ctx, sc.NS, "client", modeLabel, "ambient"), becomes("client", true), becomes("server", false)); err != nil {
			return err
		}
		if err := errors.Join(sc.LabelPod(ctx, sc.NS, "client", modeLabel, ""), becomes("client", false)); err != nil {
			return err
		}
		if err := errors.Join(sc.LabelPod(ctx, sc.NS, "server", modeLabel, "none"), sc.Label(ctx, sc.NS, modeLabel, "ambient")); err != nil {
			return err
		}
		return errors.Join(becomes("client", true), becomes("server", false))
	})
}
