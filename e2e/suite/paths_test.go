//go:build e2e

package suite

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/ambit-mesh/ambit/e2e/stage"
)

// paths are every way from a client to a server: pod address, virtual address,
// headless and named port, both families, same node and across.
func (sc *Scene) paths(ctx context.Context) (map[string]string, error) {
	targets := map[string]string{}
	for _, server := range []string{"near", "far"} {
		pod4, pod6, err1 := sc.IPs(ctx, server)
		vip4, vip6, err2 := sc.VIPs(ctx, server)
		if err := errors.Join(err1, err2); err != nil {
			return nil, err
		}
		for what, host := range map[string]string{"pod IPv4": pod4, "pod IPv6": pod6} {
			targets[server+" by "+what] = url(host, httpPort)
		}
		for what, host := range map[string]string{"service IPv4": vip4, "service IPv6": vip6, "service name": server + "." + sc.NS, "named port": server + "-named." + sc.NS} {
			targets[server+" by "+what] = url(host, 80)
		}
		targets[server+" by headless name"] = url(server+"-headless."+sc.NS, httpPort)
	}
	for what, target := range targets {
		if target == "http://:80/" || target == "http://:8080/" {
			delete(targets, what) // the cluster has one family
		}
	}
	return targets, nil
}

// TestEveryPathGivesTheSameAnswerInTheMeshAndOut: joining the mesh changes
// nothing that an application can see, the client's address included.
func TestEveryPathGivesTheSameAnswerInTheMeshAndOut(t *testing.T) {
	t.Parallel()
	Hold(t, mesh, func(ctx context.Context, sc *Scene) error {
		if err := sc.deployPaths(ctx); err != nil {
			return err
		}
		targets, err := sc.paths(ctx)
		if err != nil {
			return err
		}
		// Kubernetes itself takes a moment until services lead to new pods.
		var outside map[string]answer
		err = Soon(ctx, func(ctx context.Context) error { outside, err = sc.askAll(ctx, targets); return err })
		if err != nil {
			return fmt.Errorf("outside of the mesh: %w", err)
		}
		if err := sc.Join(ctx); err != nil {
			return err
		}
		inside, err := sc.askAll(ctx, targets)
		if err != nil {
			return fmt.Errorf("in the mesh: %w", err)
		}
		v4, v6, err := sc.IPs(ctx, "client")
		if err != nil {
			return err
		}
		for what, want := range outside {
			got := inside[what]
			if strings.Contains(targets[what], "."+sc.NS) {
				// A name leads to addresses of both families, of which the client
				// takes the one that connects first (RFC 8305).
				for _, a := range []*answer{&got, &want} {
					if a.Remote == v4 || a.Remote == v6 {
						a.Remote = "the client"
					}
				}
			}
			if got != want {
				err = errors.Join(err, fmt.Errorf("%s: in the mesh %+v, outside %+v", what, got, want))
			}
		}
		if err != nil {
			return err
		}
		return sc.encryptedBetween(ctx, "client", "near", "far")
	})
}

func (sc *Scene) deployPaths(ctx context.Context) error {
	if err := sc.Namespace(ctx, false); err != nil {
		return err
	}
	for _, server := range []string{"near", "far"} {
		err := errors.Join(sc.Service(ctx, server, server), sc.Service(ctx, server+"-headless", server, Headless), sc.Service(ctx, server+"-named", server, NamedPort))
		if err != nil {
			return err
		}
	}
	return sc.Start(ctx, Pod{Name: "client", Node: 1}, Pod{Name: "near", Node: 1}, Pod{Name: "far", Node: 2})
}

func (sc *Scene) askAll(ctx context.Context, targets map[string]string) (map[string]answer, error) {
	answers := map[string]answer{}
	for what, target := range targets {
		a, err := sc.ask(ctx, "client", target)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", what, err)
		}
		answers[what] = a
	}
	return answers, nil
}

// encryptedBetween waits until calls from a pod to others are recorded as
// mutually authenticated, with the right identities.
func (sc *Scene) encryptedBetween(ctx context.Context, from string, to ...string) error {
	for _, server := range to {
		v4, v6, err := sc.IPs(ctx, server)
		if err != nil {
			return err
		}
		host := v4
		if host == "" {
			host = v6
		}
		err = Soon(ctx, func(ctx context.Context) error {
			if err := sc.Works(ctx, from, "get", url(host, httpPort)); err != nil {
				return err
			}
			return sc.recorded(ctx, Identity(sc.NS, from), Identity(sc.NS, server))
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// recorded is an error unless both ends recorded a connection between two
// identities.
func (sc *Scene) recorded(ctx context.Context, source, destination string) error {
	records, err := sc.AccessLog(ctx, sc.Began)
	if err != nil {
		return err
	}
	seen := map[string]bool{}
	for _, r := range records {
		if r.SourceIdentity == source && r.DestinationIdentity == destination {
			seen[r.Direction] = true
		}
	}
	if !seen["inbound"] || !seen["outbound"] {
		return fmt.Errorf("%s → %s is recorded at %v, want at both ends", source, destination, seen)
	}
	return nil
}

// TestTheWireShowsOnlyHBONE: what pods say across nodes cannot be read on the
// link, in either family.
func TestTheWireShowsOnlyHBONE(t *testing.T) {
	t.Parallel()
	onOurNodes(t)
	Hold(t, mesh, func(ctx context.Context, sc *Scene) error {
		if err := sc.Namespace(ctx, false); err != nil {
			return err
		}
		if err := sc.Start(ctx, Pod{Name: "client", Node: 1}, Pod{Name: "far", Node: 2}); err != nil {
			return err
		}
		v4, v6, err := sc.IPs(ctx, "far")
		if err != nil {
			return err
		}
		marker := "MARK-" + sc.NS
		clear, err := sc.overheard(ctx, marker, v4, v6)
		if err != nil {
			return err
		}
		if clear.Marked == 0 {
			return fmt.Errorf("outside of the mesh the marker was not seen in %d frames: the capture proves nothing", clear.Frames)
		}
		if err := sc.Join(ctx); err != nil {
			return err
		}
		if err := sc.encryptedBetween(ctx, "client", "far"); err != nil {
			return err
		}
		hidden, err := sc.overheard(ctx, marker, v4, v6)
		if err != nil {
			return err
		}
		if hidden.Marked > 0 || hidden.Tunnelled == 0 {
			return fmt.Errorf("in the mesh %d of %d frames show the marker, %d bytes of HBONE", hidden.Marked, hidden.Frames, hidden.Tunnelled)
		}
		return nil
	})
}

// overheard makes marked requests to hosts while the link is listened to.
func (sc *Scene) overheard(ctx context.Context, marker string, hosts ...string) (stage.Wire, error) {
	node, err := sc.Node(ctx, 2)
	if err != nil {
		return stage.Wire{}, err
	}
	stop, err := sc.Listen(ctx, node, marker)
	if err != nil {
		return stage.Wire{}, err
	}
	var failed error
	for _, host := range hosts {
		if host != "" {
			failed = errors.Join(failed, sc.Works(ctx, "client", "get", "--count", "3", url(host, httpPort)+marker))
		}
	}
	wire, err := stop()
	return wire, errors.Join(failed, err)
}
