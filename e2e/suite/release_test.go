//go:build e2e

package suite

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/ambit-mesh/ambit/e2e/echo"
	"github.com/ambit-mesh/ambit/e2e/stage"
)

// leastNotice is how long peers are given to hear of a pod that leaves
// (docs/security.md).
const leastNotice = 5 * time.Second

// TestReleaseUnderSTRICTRefusesNobodyInBetween: first the namespace of a STRICT
// server leaves: no request fails. Then, the server being back, the client's
// leaves: every request succeeds until the client is out, and none afterwards,
// when it speaks in clear. A connection from before lives through each.
func TestReleaseUnderSTRICTRefusesNobodyInBetween(t *testing.T) {
	t.Parallel()
	onOurNodes(t)
	Hold(t, mesh, func(ctx context.Context, sc *Scene) error {
		r, err := sc.releasing(ctx)
		if err != nil {
			return err
		}
		servers, err := r.serverLeaves(ctx)
		if err != nil {
			return fmt.Errorf("the server's namespace leaves: %w", err)
		}
		if err := errors.Join(sc.Label(ctx, r.servers, modeLabel, "ambient"), sc.PodsBecome(ctx, r.servers, "captured", stage.Enrolled), r.strict(ctx)); err != nil {
			return fmt.Errorf("the server's namespace is back: %w", err)
		}
		clients, err := r.clientLeaves(ctx)
		if err != nil {
			return fmt.Errorf("the client's namespace leaves: %w", err)
		}
		sc.Figure("server released under STRICT", "0 of %d requests failed", servers.OK)
		sc.Figure("client released under STRICT", "0 of %d requests failed before it was out, 0 of %d got through afterwards", clients.OK, clients.Failed)
		return nil
	})
}

// release is a client and a STRICT server in namespaces of their own, and
// somebody outside.
type release struct {
	*Scene
	servers, plain, host, target string
	clientPID, serverPID         int
}

func (sc *Scene) releasing(ctx context.Context) (*release, error) {
	r := &release{Scene: sc}
	err := sc.Namespace(ctx, true)
	if err != nil {
		return nil, err
	}
	if r.servers, err = sc.Another(ctx, "servers", true); err != nil {
		return nil, err
	}
	outside, err := sc.Another(ctx, "out", false)
	if err != nil {
		return nil, err
	}
	r.plain = outside + "/plain"
	if err := errors.Join(sc.Apply(ctx, strict(r.servers)),
		sc.Start(ctx, Pod{Name: "client", Node: 1}, Pod{Name: "server", Namespace: r.servers, Node: 2}, Pod{Name: "plain", Namespace: outside, Node: 1})); err != nil {
		return nil, err
	}
	client, err1 := sc.Stage.Pod(ctx, sc.NS, "client")
	server, err2 := sc.Stage.Pod(ctx, r.servers, "server")
	if err := errors.Join(err1, err2); err != nil {
		return nil, err
	}
	r.host = server.Status.PodIP
	r.target = url(r.host, httpPort)
	if r.clientPID, err = netnsWith(ctx, sc.Stage, client.Status.PodIP); err != nil {
		return nil, err
	}
	if r.serverPID, err = netnsWith(ctx, sc.Stage, r.host); err != nil {
		return nil, err
	}
	return r, r.strict(ctx)
}

// strict waits until the client reaches the server, and nobody in clear does.
func (r *release) strict(ctx context.Context) error {
	return Soon(ctx, func(ctx context.Context) error {
		return errors.Join(r.Works(ctx, "client", "get", r.target), r.Fails(ctx, r.plain, "get", "--timeout", "3s", r.target))
	})
}

// out waits until nothing of the mesh is left in the kernel for a pod, which is
// after the last connection that it carried.
func (r *release) out(ctx context.Context, pid int) error {
	return stage.Within(ctx, time.Minute, func(ctx context.Context) error {
		found, err := traces(ctx, pid)
		if err == nil && found != "" {
			err = fmt.Errorf("the pod still has %s", found)
		}
		return err
	})
}

// leaves takes a namespace out of the mesh under load that goes on for longer
// than a connection from before, and gives when it was told to and what became of
// the requests.
func (r *release) leaves(ctx context.Context, namespace string, pid int) (told time.Time, s echo.Summary, err error) {
	load := r.Begin(ctx, "client", "load", "--rate", "50", "--timeout", "10s", "--duration", "24s", r.target)
	held := r.Begin(ctx, "client", "hold", "--duration", "12s", address(r.host, tcpPort))
	if err := Soon(ctx, func(ctx context.Context) error { return r.areOpen(ctx, 1, address(r.host, tcpPort)) }); err != nil {
		return told, s, err
	}
	if err := r.steady(ctx, []*running{load, held}, time.Second); err != nil {
		return told, s, err
	}
	told = time.Now()
	if err := r.Label(ctx, namespace, modeLabel, ""); err != nil {
		return told, s, err
	}
	before, err := held.End()
	if err := errors.Join(err, wrap("the connection from before", AllOK(before)), r.out(ctx, pid)); err != nil {
		return told, s, err
	}
	r.Figure("longest silence of a connection from before, while "+namespace+" left", "%s", before.LongestGap)
	if err := r.steady(ctx, []*running{load}, time.Second); err != nil {
		return told, s, fmt.Errorf("the load ended before it showed anything: %w", err)
	}
	s, err = load.End()
	return told, s, err
}

func (r *release) clientLeaves(ctx context.Context) (echo.Summary, error) {
	told, s, err := r.leaves(ctx, r.NS, r.clientPID)
	if err != nil {
		return s, err
	}
	switch {
	case s.OK == 0 || s.Failed == 0:
		return s, fmt.Errorf("%d requests succeeded and %d failed, want some before and some after the client was out", s.OK, s.Failed)
	case s.FirstFailed.Before(told.Add(leastNotice)):
		return s, fmt.Errorf("a request failed %s after the namespace was taken out, while it was still carried: %v", s.FirstFailed.Sub(told), s.Failures)
	case s.LastOK.After(s.FirstFailureKnown):
		return s, fmt.Errorf("requests that began until %s after the first was refused succeeded", s.LastOK.Sub(s.FirstFailureKnown))
	}
	if err := r.Fails(ctx, "client", "get", "--count", "5", "--timeout", "3s", r.target); err != nil {
		return s, fmt.Errorf("out of the mesh, in clear to a STRICT server: %w", err)
	}
	_, err = r.AccessUntil(ctx, told, "of plaintext that STRICT refuses", func(a stage.Access) bool {
		return a.Direction == "inbound" && a.Source == "client" && a.SourceIdentity == "" && a.Destination == "server" && a.Policy == "istio-system/istio_converted_static_strict"
	})
	return s, err
}

func (r *release) serverLeaves(ctx context.Context) (echo.Summary, error) {
	_, s, err := r.leaves(ctx, r.servers, r.serverPID)
	if err == nil {
		err = AllOK(s)
	}
	if err != nil {
		return s, err
	}
	// Who is out of the mesh has nobody who would refuse anything.
	if err := errors.Join(r.Works(ctx, r.plain, "get", "--count", "5", r.target), r.Works(ctx, "client", "get", "--count", "5", r.target)); err != nil {
		return s, fmt.Errorf("with the server out of the mesh: %w", err)
	}
	return s, nil
}
