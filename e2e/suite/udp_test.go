//go:build e2e

package suite

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/ambit-mesh/ambit/e2e/stage"
)

// udpPort is where `echo serve` sends datagrams back.
const udpPort = 9000

// TestUDPHasIdentities: a namespace of the mesh gives its UDP to the mesh, while its
// pods run. From then on none of it is in clear between the nodes, at any size; its
// services lead to pods; STRICT refuses what comes in clear, and a policy an
// identity; what both ends recorded names who they were.
func TestUDPHasIdentities(t *testing.T) {
	onOurNodes(t)
	Hold(t, mesh, func(ctx context.Context, sc *Scene) error {
		hosts, err := sc.inMesh(ctx, true)
		if err != nil {
			return err
		}
		outside, err := sc.Another(ctx, "out", false)
		if err != nil {
			return err
		}
		plain := outside + "/plain"
		named := func(s *corev1.Service) {
			s.Spec.Ports = []corev1.ServicePort{{Name: "echo", Protocol: corev1.ProtocolUDP, Port: 5300, TargetPort: intstr.FromInt32(udpPort)}}
		}
		if err := errors.Join(sc.Start(ctx, Pod{Name: "plain", Namespace: outside, Node: 1}, Pod{Name: "denied", Node: 1}), sc.Service(ctx, "datagrams", "server", named)); err != nil {
			return err
		}
		server := address(hosts[0], udpPort)
		asks := func(who, to, text string) error {
			return sc.Works(ctx, who, "udp", "--timeout", "3s", "--data", text, to)
		}
		if marked, err := sc.onTheWire(ctx, "UDP-before-", func(marker string) error { return asks("client", server, marker) }); err != nil || marked == 0 {
			return errors.Join(err, fmt.Errorf("before the label %d frames showed what UDP said, want some", marked))
		}
		patch := []byte(`{"metadata":{"labels":{"ambit.io/udp":"mesh"}}}`)
		if _, err := sc.Reach.Client.CoreV1().Namespaces().Patch(ctx, sc.NS, types.MergePatchType, patch, metav1.PatchOptions{}); err != nil {
			return err
		}
		began := time.Now()
		if err := Soon(ctx, func(context.Context) error {
			return errors.Join(asks("client", server, "hello"), sc.flowIsTunnelled(ctx, server, Identity(sc.NS, "client")))
		}); err != nil {
			return err
		}
		sc.Figure("udp.capture", "tunnelled %s after the label", time.Since(began).Round(100*time.Millisecond))
		frames := 0
		for _, size := range []int{0, 1200, 1420, 1472, 9000} {
			for _, to := range []string{server, address("datagrams."+sc.NS, 5300)} {
				marked, err := sc.onTheWire(ctx, "UDP-after-", func(marker string) error {
					return asks("client", to, marker+strings.Repeat("x", max(0, size-len(marker))))
				})
				if err != nil {
					return fmt.Errorf("%d bytes to %s: %w", size, to, err)
				}
				frames += marked
			}
		}
		if frames > 0 {
			return fmt.Errorf("%d frames show what UDP said", frames)
		}
		if err := errors.Join(asks(plain, server, "in clear"), asks("denied", server, "hello")); err != nil {
			return fmt.Errorf("without a policy: %w", err)
		}
		if err := sc.Apply(ctx, strict(sc.NS)+"---\n"+sc.authz("not-denied", "  action: DENY\n  rules: [{from: [{source: {principals: ["+Principal(sc.NS, "denied")+"]}}]}]\n")); err != nil {
			return err
		}
		if err := Soon(ctx, func(ctx context.Context) error {
			return errors.Join(sc.Fails(ctx, plain, "udp", "--timeout", "1s", server), sc.Fails(ctx, "denied", "udp", "--timeout", "1s", server), asks("client", server, "hello"))
		}); err != nil {
			return err
		}
		_, err = sc.AccessUntil(ctx, began, "of UDP that a policy denied", func(a stage.Access) bool {
			return a.Direction == "inbound" && a.SourceIdentity == Identity(sc.NS, "denied") && a.Policy == sc.NS+"/not-denied"
		})
		return err
	})
}

// onTheWire is how many frames at the server's node show a marker that is said
// meanwhile.
func (sc *Scene) onTheWire(ctx context.Context, what string, say func(marker string) error) (int, error) {
	node, err := sc.Node(ctx, 2)
	if err != nil {
		return 0, err
	}
	marker := what + sc.NS
	stop, err := sc.Listen(ctx, node, marker)
	if err != nil {
		return 0, err
	}
	err = say(marker)
	seen, stopErr := stop()
	return seen.Marked, errors.Join(err, stopErr)
}

// flowIsTunnelled is an error unless a proxy shows a flow of UDP by a tunnel to an
// address, of an identity.
func (sc *Scene) flowIsTunnelled(ctx context.Context, to, identity string) error {
	dumps, err := sc.Dumps(ctx)
	if err != nil {
		return err
	}
	for _, d := range dumps {
		for _, pod := range d.WorkloadState {
			for _, c := range pod.Connections.Inbound {
				if c.ActualDst == to && c.Protocol == "HBONE-UDP" && c.Peer == identity {
					return nil
				}
			}
		}
	}
	return fmt.Errorf("no proxy shows a tunnelled flow of UDP of %s to %s", identity, to)
}
