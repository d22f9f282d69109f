//go:build e2e

package suite

import (
	"context"
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
		began := time.Now()
		clients := []*running{
			sc.Begin(ctx, "client", "load", "--rate", "100", "--timeout", "10s", "--duration", lasts.String(), url("server."+sc.NS, 80)),
			sc.Begin(ctx, "client", "hold", "--connections", "50", "--every", "2s", "--duration", lasts.String(), address(hosts[0], tcpPort)),
		}
		for _, c := range clients {
			s, err := c.End()
			sc.Figure(strings.TrimPrefix(c.what, "client: echo "), "%d failed of %d", s.Failed, s.Attempts)
			if err == nil {
				err = AllOK(s)
			}
			if err != nil {
				return fmt.Errorf("%s: %w", c.what, err)
			}
		}
		n, err := sc.obtained(ctx, Identity(sc.NS, "client"), began)
		sc.Figure("certificates of the client's identity", "at least %d in %s, of %s each", n, lasts, ttl)
		if err == nil && n < 2 {
			err = fmt.Errorf("%d certificates in what is left of the log: they are not renewed", n)
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

// obtained counts the certificates that one node proxy got for an identity, as
// far as its log goes back: the kubelet keeps the last megabytes.
func (sc *Scene) obtained(ctx context.Context, id string, since time.Time) (most int, err error) {
	pods, err := sc.Pods(ctx, manifests.Namespace, "app=ztunnel")
	if err != nil {
		return 0, err
	}
	for _, p := range pods {
		log, err := sc.Logs(ctx, p.Namespace, p.Name, "istio-proxy", since)
		if err != nil {
			return 0, err
		}
		n := 0
		for line := range strings.Lines(log) {
			if strings.Contains(line, "certificate obtained") && strings.Contains(line, id+`"`) {
				n++
			}
		}
		most = max(most, n)
	}
	return most, nil
}
