//go:build e2e

package suite

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"
)

// TestJoiningAndLeavingUnderLoadLosesNothing: 200 requests a second from one
// node to another, each on its own connection, others on kept connections, and
// long-lived connections from before the mesh and from within it, while the
// namespace joins the mesh, becomes STRICT, and leaves again, several times.
func TestJoiningAndLeavingUnderLoadLosesNothing(t *testing.T) {
	rounds := Times(2, 5)
	const lasts = 20 * time.Second
	all := time.Duration(rounds) * (lasts + 5*time.Second)
	HoldFor(t, mesh, all, func(ctx context.Context, sc *Scene) error {
		hosts, err := sc.inMesh(ctx, false)
		if err != nil {
			return err
		}
		if err := sc.Service(ctx, "server", "server"); err != nil {
			return err
		}
		long := []*running{sc.Begin(ctx, "client", "hold", "--duration", all.String(), address(hosts[0], tcpPort))}
		made, left := 0, time.Time{}
		for round := range rounds {
			inside, n, err := sc.joinAndLeave(ctx, hosts[0], lasts, all-time.Duration(round+1)*lasts)
			if err != nil {
				return fmt.Errorf("round %d: %w", round+1, err)
			}
			made, left, long = made+n, time.Now(), append(long, inside)
		}
		for _, c := range long {
			err = errors.Join(err, c.EndOK())
		}
		if err != nil {
			return err
		}
		sc.Figure("requests", "0 of %d failed while the namespace joined and left %d times", made, rounds)
		sc.Figure("long-lived connections", "0 of %d cut", len(long))
		return sc.wasReallyOut(ctx, left)
	})
}

// joinAndLeave does one round under load, and gives the connection that was
// made in the mesh, which goes on for as long as is said, and how many requests
// succeeded.
func (sc *Scene) joinAndLeave(ctx context.Context, host string, lasts, insideFor time.Duration) (inside *running, made int, err error) {
	clients := []*running{
		sc.Begin(ctx, "client", "load", "--rate", "200", "--duration", lasts.String(), url("server."+sc.NS, 80)),
		sc.Begin(ctx, "client", "load", "--rate", "20", "--keepalive", "--duration", lasts.String(), url(host, httpPort)),
	}
	began := time.Now()
	if err := sc.steady(ctx, clients, time.Second); err != nil {
		return nil, 0, err
	}
	if err := sc.Join(ctx); err != nil {
		return nil, 0, err
	}
	joined := time.Since(began)
	inside = sc.Begin(ctx, "client", "hold", "--duration", max(insideFor, lasts/2).String(), address(host, tcpPort))
	if err := sc.encryptedBetween(ctx, "client", "server"); err != nil {
		return nil, 0, err
	}
	if err := errors.Join(sc.applied(ctx, strict(sc.NS)), sc.steady(ctx, clients, time.Second)); err != nil {
		return nil, 0, err
	}
	if err := sc.Leave(ctx); err != nil {
		return nil, 0, err
	}
	left := time.Since(began)
	for _, c := range clients {
		s, e := c.End()
		made += s.OK
		err = errors.Join(err, e, AllOK(s))
	}
	err = errors.Join(err, sc.deleted(ctx, strict(sc.NS)))
	if err == nil && left > lasts-5*time.Second {
		err = fmt.Errorf("joining and leaving took %s: the load ended before it showed anything", left)
	}
	if err != nil {
		err = fmt.Errorf("joined after %s, left after %s: %w", joined, left, err)
	}
	return inside, made, err
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
