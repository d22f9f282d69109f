package demo

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"time"

	"github.com/ambit-mesh/ambit/e2e/stage"
	"github.com/ambit-mesh/ambit/internal/mesh"
)

// datagramPort is where the shop's programs send datagrams back.
const datagramPort = 9000

// datagrams gives the shop's UDP to the mesh. It was in clear until then, also for
// front, which may not talk to db.
func (p *play) datagrams(ctx context.Context) error {
	const (
		before = "before its own label UDP can be read there, and the policy is not asked"
		after  = "after it UDP cannot be read, and is between two SPIFFE identities"
		denied = "the policy denies the UDP of front"
	)
	db, err := p.stage.Pod(ctx, namespace, "db")
	if err != nil {
		return err
	}
	to := net.JoinHostPort(db.Status.PodIP, strconv.Itoa(datagramPort))
	p.stage.Step("front sends datagrams to db")
	wire, err := p.heardOfUDP(ctx, "front", to)
	switch {
	case errors.Is(err, stage.ErrNoWire):
		p.skipped(before, err.Error())
	case err == nil && wire.Marked == 0:
		p.check(before, fmt.Errorf("not seen in %d frames", wire.Frames))
	case err != nil:
		p.check(before, err)
	default:
		p.passed(before, "%d of %d frames show it", wire.Marked, wire.Frames)
	}
	p.stage.Step("kubectl label namespace %s %s=%s", namespace, mesh.DatagramsLabel, mesh.DatagramsInMesh)
	labelled := time.Now()
	if err := p.stage.Label(ctx, namespace, mesh.DatagramsLabel, mesh.DatagramsInMesh); err != nil {
		return err
	}
	who, err := p.flowOf(ctx, "reviews-v1", to)
	if err != nil {
		p.check(after, err)
		return nil
	}
	took := time.Since(labelled)
	wire, err = p.heardOfUDP(ctx, "reviews-v1", to)
	switch {
	case err != nil && !errors.Is(err, stage.ErrNoWire):
		p.check(after, err)
	case wire.Marked > 0:
		p.check(after, fmt.Errorf("%d of %d frames still show it", wire.Marked, wire.Frames))
	default:
		p.passed(after, "%s → %s, %.1f s after the label", who, identity("db"), took.Seconds())
	}
	if p.sends(ctx, "front", to) == nil {
		p.check(denied, errors.New("front still gets answers"))
		return nil
	}
	a, err := p.stage.AccessUntil(ctx, labelled, "of UDP that names "+policyName, func(a stage.Access) bool {
		return a.Direction == "inbound" && a.Source == "front" && a.SourceIdentity == identity("front") && a.Error != ""
	})
	if err != nil {
		p.check(denied, err)
		return nil
	}
	p.passed(denied, "%s → %s: %s", a.Source, a.Destination, a.Reason)
	return nil
}

// sends has a pod send a datagram with the marker, and get it back.
func (p *play) sends(ctx context.Context, from, to string) error {
	_, err := p.stage.Exec(ctx, namespace, from, "/echo", "udp", "--timeout", "2s", "--data", marker, to)
	if err != nil {
		return fmt.Errorf("%s sends to %s: %w", from, to, err)
	}
	return nil
}

// heardOfUDP listens to the link between the nodes meanwhile.
func (p *play) heardOfUDP(ctx context.Context, from, to string) (stage.Wire, error) {
	stop, err := p.stage.Listen(ctx, p.far, marker)
	if errors.Is(err, stage.ErrNoWire) {
		return stage.Wire{}, errors.Join(p.sends(ctx, from, to), err)
	}
	if err != nil {
		return stage.Wire{}, err
	}
	sendErr := p.sends(ctx, from, to)
	wire, err := stop()
	return wire, errors.Join(sendErr, err)
}

// flowOf sends until a proxy shows the flow in a tunnel, and gives the identity at
// its other end.
func (p *play) flowOf(ctx context.Context, from, to string) (who string, err error) {
	err = stage.Within(ctx, 20*time.Second, func(ctx context.Context) error {
		if err := p.sends(ctx, from, to); err != nil {
			return err
		}
		dumps, err := p.stage.Dumps(ctx)
		if err != nil {
			return err
		}
		for _, d := range dumps {
			for _, pod := range d.WorkloadState {
				for _, c := range pod.Connections.Inbound {
					if c.ActualDst == to && c.Protocol == "HBONE-UDP" {
						who = c.Peer
						return nil
					}
				}
			}
		}
		return fmt.Errorf("no proxy shows a flow of UDP to %s in a tunnel", to)
	})
	return who, err
}
