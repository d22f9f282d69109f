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

	"github.com/ambit-mesh/ambit/manifests"
)

// TestCertificatesOfMinutesAreRenewedUnderLoad: every connection of its own, and
// long ones that outlive several certificates.
func TestCertificatesOfMinutesAreRenewedUnderLoad(t *testing.T) {
	lasts, ttl := Lasts(3*time.Minute, 30*time.Minute), Lasts(time.Minute, 2*time.Minute)
	HoldFor(t, mesh, lasts+2*time.Minute, func(ctx context.Context, sc *Scene) error {
		if err := sc.lifetime(ctx, ttl.String()); err != nil {
			return err
		}
		sc.Undo(func(ctx context.Context) error { return sc.lifetime(ctx, "") })
		hosts, err := sc.inMesh(ctx, true)
		if err != nil {
			return err
		}
		if err := sc.Service(ctx, "server", "server"); err != nil {
			return err
		}
		watching, stop := context.WithCancel(ctx)
		defer stop()
		seen := make(chan int)
		go func() { seen <- sc.certificatesOf(watching, Identity(sc.NS, "client"), ttl/6) }()
		clients := []*running{
			sc.Begin(ctx, "client", "load", "--rate", "100", "--timeout", "10s", "--duration", lasts.String(), url("server."+sc.NS, 80)),
			sc.Begin(ctx, "client", "hold", "--connections", "50", "--every", "2s", "--duration", lasts.String(), address(hosts[0], tcpPort)),
		}
		for _, c := range clients {
			s, ended := c.End()
			sc.Figure(strings.TrimPrefix(c.what, "client: echo "), "%d failed of %d", s.Failed, s.Attempts)
			if ended == nil {
				ended = AllOK(s)
			}
			if ended != nil {
				err = errors.Join(err, fmt.Errorf("%s: %w", c.what, ended))
			}
		}
		stop()
		n := <-seen
		sc.Figure("certificates of the client's identity", "%d in %s, of %s each", n, lasts, ttl)
		if least := int(lasts / ttl); n < least {
			err = errors.Join(err, fmt.Errorf("%d certificates in %s, want at least %d: they are not renewed", n, lasts, least))
		}
		return err
	})
}

// lifetime sets what the node proxies ask for, empty for the default, and waits
// for the new ones.
func (sc *Scene) lifetime(ctx context.Context, ttl string) error {
	pods, err := sc.Pods(ctx, manifests.Namespace, "app=ztunnel")
	if err != nil {
		return err
	}
	old := map[types.UID]bool{}
	for _, p := range pods {
		old[p.UID] = true
	}
	env := fmt.Sprintf(`{"name":"SECRET_TTL","value":%q}`, ttl)
	if ttl == "" {
		env = `{"$patch":"delete","name":"SECRET_TTL"}`
	}
	patch := fmt.Sprintf(`{"spec":{"template":{"spec":{"containers":[{"name":"istio-proxy","env":[%s]}]}}}}`, env)
	if _, err := sc.Reach.Client.AppsV1().DaemonSets(manifests.Namespace).Patch(ctx, "ztunnel", types.StrategicMergePatchType, []byte(patch), metav1.PatchOptions{}); err != nil {
		return err
	}
	return sc.ztunnelsReady(ctx, old)
}

// certificatesOf looks every now and then which certificate a node proxy has for
// an identity, and says when ctx is done how many there have been. What it does
// not see for once it sees the next time.
func (sc *Scene) certificatesOf(ctx context.Context, id string, every time.Duration) int {
	serials := map[string]bool{}
	for ticks := time.Tick(every); ; {
		dumps, _ := sc.Dumps(ctx)
		for _, d := range dumps {
			for _, c := range d.Certificates {
				if c.Identity == id && len(c.Chain) > 0 {
					serials[c.Chain[0].Serial] = true
				}
			}
		}
		select {
		case <-ticks:
		case <-ctx.Done():
			return len(serials)
		}
	}
}
