//go:build e2e

package suite

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"
)

// inMesh starts a client on node 1 and a server on node 2, in the mesh, and
// gives the server's addresses.
func (sc *Scene) inMesh(ctx context.Context, inMesh bool) (hosts []string, err error) {
	if err := sc.Namespace(ctx, inMesh); err != nil {
		return nil, err
	}
	if err := sc.Start(ctx, Pod{Name: "client", Node: 1}, Pod{Name: "server", Node: 2}); err != nil {
		return nil, err
	}
	if inMesh {
		if err := sc.encryptedBetween(ctx, "client", "server"); err != nil {
			return nil, err
		}
	}
	v4, v6, err := sc.IPs(ctx, "server")
	for _, h := range []string{v4, v6} {
		if h != "" {
			hosts = append(hosts, h)
		}
	}
	return hosts, err
}

func TestAServerMaySpeakFirst(t *testing.T) {
	t.Parallel()
	Hold(t, mesh, func(ctx context.Context, sc *Scene) error {
		hosts, err := sc.inMesh(ctx, true)
		for _, h := range hosts {
			err = errors.Join(err, sc.Works(ctx, "client", "tcp", "--first", "--count", "5", address(h, firstPort)))
		}
		return err
	})
}

func TestHalfClosesPassInBothDirections(t *testing.T) {
	t.Parallel()
	Hold(t, mesh, func(ctx context.Context, sc *Scene) error {
		hosts, err := sc.inMesh(ctx, true)
		for _, h := range hosts {
			err = errors.Join(err, sc.Works(ctx, "client", "halfclose", address(h, bulkPort)))
		}
		return err
	})
}

// TestAGibibyteArrivesWhole in each direction, with its checksum.
func TestAGibibyteArrivesWhole(t *testing.T) {
	t.Parallel()
	Hold(t, mesh, func(ctx context.Context, sc *Scene) error {
		hosts, err := sc.inMesh(ctx, true)
		if err != nil {
			return err
		}
		for _, direction := range []string{"up", "down"} {
			s, err := sc.Echo(ctx, "client", "bulk", "--bytes", fmt.Sprint(1<<30), "--direction", direction, "--timeout", "4m", address(hosts[0], bulkPort))
			if err == nil {
				err = AllOK(s)
			}
			if err != nil {
				return fmt.Errorf("%s: %w", direction, err)
			}
			if s.Bytes != 1<<30 {
				return fmt.Errorf("%s: %d bytes arrived", direction, s.Bytes)
			}
			sc.t.Logf("%s: %.0f MB/s", direction, s.MBPerSecond)
		}
		return nil
	})
}

// TestAClosedPortFailsQuickly: an application sees that nobody listens,
// in the mesh as outside.
func TestAClosedPortFailsQuickly(t *testing.T) {
	t.Parallel()
	Hold(t, mesh, func(ctx context.Context, sc *Scene) error {
		hosts, err := sc.inMesh(ctx, true)
		if err != nil {
			return err
		}
		began := time.Now()
		if err := sc.Fails(ctx, "client", "tcp", "--timeout", "10s", address(hosts[0], 7)); err != nil {
			return err
		}
		if took := time.Since(began); took > 9*time.Second {
			return fmt.Errorf("it took %s, as if nobody had answered", took)
		}
		return nil
	})
}
