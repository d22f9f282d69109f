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

	"github.com/ambit-mesh/ambit/manifests"
)

// entry is a ServiceEntry for a host outside of the mesh, at one address.
const entry = `apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: %s, namespace: %s}
spec:
  hosts: [%s]
  location: MESH_EXTERNAL
  resolution: STATIC
  ports: [{number: 80, name: tcp, protocol: TCP, targetPort: %d}]
  endpoints: [{address: %s}]
`

// TestNamesAreAnsweredWithoutTheClustersDNS: while no CoreDNS runs, pods of the
// mesh find services, and a host outside by an address that nobody gave it. A
// pod that opted out does not; what only CoreDNS knows is asked of it.
func TestNamesAreAnsweredWithoutTheClustersDNS(t *testing.T) {
	onOurNodes(t)
	Hold(t, mesh, func(ctx context.Context, sc *Scene) error {
		if _, err := sc.inMesh(ctx, true); err != nil {
			return err
		}
		optedOut := Pod{Name: "opted-out", Node: 1, Annotations: map[string]string{"ambient.istio.io/dns-capture": "false"}}
		outside, err := sc.outsider(ctx)
		if err != nil {
			return err
		}
		err = errors.Join(sc.Start(ctx, optedOut), sc.Service(ctx, "server", "server"), sc.Service(ctx, "alias", "", func(s *corev1.Service) {
			s.Spec = corev1.ServiceSpec{Type: corev1.ServiceTypeExternalName, ExternalName: "server." + sc.NS + ".svc.cluster.local", Ports: s.Spec.Ports}
		}), sc.Apply(ctx, fmt.Sprintf(entry, "api", sc.NS, "api.example.com", httpPort, outside)))
		if err != nil {
			return err
		}
		service, api, alias := url("server."+sc.NS, 80), url("api.example.com", 80), url("alias."+sc.NS, 80)
		for pod, names := range map[string][]string{"client": {service, api, alias}, "opted-out": {service, alias}} {
			for _, name := range names {
				if err := Soon(ctx, func(ctx context.Context) error { return sc.Works(ctx, pod, "get", "--timeout", "5s", name) }); err != nil {
					return err
				}
			}
		}
		if err := sc.Fails(ctx, "opted-out", "get", "--timeout", "3s", api); err != nil {
			return fmt.Errorf("a name that only the mesh knows: %w", err)
		}
		sc.Undo(func(ctx context.Context) error { return sc.scale(ctx, "kube-system", "coredns", 2) })
		if err := sc.scale(ctx, "kube-system", "coredns", 0); err != nil {
			return err
		}
		for _, name := range []string{service, url("server."+sc.NS+".svc.cluster.local", 80), api} {
			if err := sc.Works(ctx, "client", "get", "--count", "20", "--timeout", "5s", name); err != nil {
				return fmt.Errorf("without the cluster's DNS: %w", err)
			}
		}
		if err := errors.Join(sc.Fails(ctx, "opted-out", "get", "--timeout", "3s", service), sc.Fails(ctx, "client", "get", "--timeout", "3s", alias)); err != nil {
			return fmt.Errorf("without the cluster's DNS: %w", err)
		}
		if err := sc.scale(ctx, "kube-system", "coredns", 2); err != nil {
			return err
		}
		return Soon(ctx, func(ctx context.Context) error {
			return errors.Join(sc.Works(ctx, "opted-out", "get", "--timeout", "5s", service), sc.Works(ctx, "client", "get", "--timeout", "5s", alias))
		})
	})
}

// outsider starts a pod outside of the mesh and gives its address.
func (sc *Scene) outsider(ctx context.Context) (string, error) {
	outside, err := sc.Another(ctx, "out", false)
	if err != nil {
		return "", err
	}
	if err := sc.Start(ctx, Pod{Name: "api", Namespace: outside}); err != nil {
		return "", err
	}
	p, err := sc.Stage.Pod(ctx, outside, "api")
	if err != nil {
		return "", err
	}
	return p.Status.PodIP, nil
}

// TestRegistryOnlyClosesWhatTheMeshDoesNotKnow for new connections and open
// ones, until a ServiceEntry names it; what the mesh knows is not touched.
func TestRegistryOnlyClosesWhatTheMeshDoesNotKnow(t *testing.T) {
	Hold(t, mesh, func(ctx context.Context, sc *Scene) error {
		hosts, err := sc.inMesh(ctx, true)
		if err != nil {
			return err
		}
		// A node's own address is nobody's in the mesh.
		onHost := Pod{Name: "on-host", Node: 1, HostNetwork: true, Args: []string{"serve", "--http", "18080", "--tcp", "18081", "--udp", "0", "--first", "0", "--bulk", "0", "--grpc", "0"}, Ready: HTTPProbe(18080)}
		plain := Pod{Name: "plain", Node: 1, Labels: map[string]string{modeLabel: "none"}}
		if err := sc.Start(ctx, onHost, plain); err != nil {
			return err
		}
		node, _, err := sc.IPs(ctx, "on-host")
		if err != nil {
			return err
		}
		get := func(target string) []string { return []string{"get", "--timeout", "5s", target} }
		unknown, known := get(url(node, 18080)), get(url(hosts[0], httpPort))
		if err := errors.Join(sc.Works(ctx, "client", unknown...), sc.Works(ctx, "client", known...)); err != nil {
			return err
		}
		open := sc.Begin(ctx, "client", "hold", "--duration", "60s", "--timeout", "2s", address(node, 18081))
		if err := sc.steady(ctx, []*running{open}, time.Second); err != nil {
			return err
		}
		if err := sc.meshSetting(ctx, "outboundTrafficPolicy: {mode: REGISTRY_ONLY}"); err != nil {
			return err
		}
		if err := Soon(ctx, func(ctx context.Context) error { return sc.Fails(ctx, "client", unknown...) }); err != nil {
			return err
		}
		s, err := open.End()
		if err == nil && s.Failed == 0 {
			err = errors.New("the connection that was open was not cut")
		}
		if err != nil {
			return err
		}
		if err := errors.Join(sc.Works(ctx, "client", known...), sc.Works(ctx, "plain", unknown...)); err != nil {
			return fmt.Errorf("what the mesh knows, and who is not of it: %w", err)
		}
		if err := sc.Apply(ctx, fmt.Sprintf(entry, "node", sc.NS, "node.example.com", 18080, node)); err != nil {
			return err
		}
		return Soon(ctx, func(ctx context.Context) error { return sc.Works(ctx, "client", get(url("node.example.com", 80))...) })
	})
}

// meshSetting adds a line to the mesh's settings, and takes it away at the end.
func (sc *Scene) meshSetting(ctx context.Context, line string) error {
	_, err := sc.setting(ctx, line)
	return err
}

// setting is meshSetting for who wants to end it before.
func (sc *Scene) setting(ctx context.Context, line string) (end func(context.Context) error, err error) {
	settings := sc.Reach.Client.CoreV1().ConfigMaps(manifests.Namespace)
	change := func(ctx context.Context, to func(string) string) error {
		cm, err := settings.Get(ctx, "istio", metav1.GetOptions{})
		if err != nil {
			return err
		}
		cm.Data["mesh"] = to(cm.Data["mesh"])
		_, err = settings.Update(ctx, cm, metav1.UpdateOptions{})
		return err
	}
	line = "\n" + line + "\n"
	end = func(ctx context.Context) error {
		return change(ctx, func(text string) string { return strings.Replace(text, line, "\n", 1) })
	}
	sc.Undo(end)
	return end, change(ctx, func(text string) string { return strings.TrimSuffix(text, "\n") + line })
}
