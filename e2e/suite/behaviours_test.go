//go:build e2e

package suite

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// behaviour is something that services do, with what whoever asks sees.
type behaviour struct {
	name string
	ask  func(context.Context) string
	want string
}

// TestServicesBehaveInTheMeshAsOutOfIt: all behaviours are set up at once, looked
// at, and after the namespace has joined looked at again.
func TestServicesBehaveInTheMeshAsOutOfIt(t *testing.T) {
	t.Parallel()
	Hold(t, mesh, func(ctx context.Context, sc *Scene) error {
		plain, err := sc.deployBehaviours(ctx)
		if err != nil {
			return err
		}
		all, err := sc.behaviours(ctx, plain)
		if err != nil {
			return err
		}
		if len(all) < 25 {
			return fmt.Errorf("there are only %d behaviours", len(all))
		}
		if err := look(ctx, all); err != nil {
			return fmt.Errorf("outside of the mesh: %w", err)
		}
		if err := sc.Join(ctx); err != nil {
			return err
		}
		if err := look(ctx, all); err != nil {
			return fmt.Errorf("in the mesh: %w", err)
		}
		sc.Figure("services.behaviours", "%d, the same in the mesh and out of it", len(all))
		return sc.encryptedBetween(ctx, "client", "near", "far")
	})
}

// look waits until every behaviour is as it should be; Kubernetes itself takes a
// moment until services lead to new pods.
func look(ctx context.Context, all []behaviour) error {
	errs := make([]error, len(all))
	slots := make(chan struct{}, 6)
	var wg sync.WaitGroup
	for i, b := range all {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			errs[i] = Soon(ctx, func(ctx context.Context) error {
				if got := b.ask(ctx); got != b.want {
					return fmt.Errorf("%s: %s, want %s", b.name, got, b.want)
				}
				return nil
			})
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

const fails = "fails"

// who tells which pods answer requests of a pod, and, if it is asked once, which
// address they see.
func (sc *Scene) who(pod, target string, count int) func(context.Context) string {
	return func(ctx context.Context) string {
		s, err := sc.Echo(ctx, pod, "get", "--count", fmt.Sprint(count), "--timeout", "4s", target)
		switch {
		case err != nil:
			return err.Error()
		case s.OK == 0:
			return fails
		case s.Failed > 0:
			return fmt.Sprint(s.Failures)
		}
		names := strings.Join(slices.Sorted(maps.Keys(s.Answered)), "+")
		if count > 1 {
			return names
		}
		return names + " sees " + remote(s.Last)
	}
}

// remote is the client's address in an answer of ours.
func remote(last any) string {
	var a answer
	b, err := json.Marshal(last)
	if err == nil {
		err = json.Unmarshal(b, &a)
	}
	host, _, err2 := net.SplitHostPort(a.Remote)
	if err = errors.Join(err, err2); err != nil {
		return err.Error()
	}
	return host
}

// fromOutside asks from this machine, which is no pod.
func fromOutside(target string) func(context.Context) string {
	return func(ctx context.Context) string {
		client := http.Client{Timeout: 4 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, target, nil)
		if err != nil {
			return err.Error()
		}
		resp, err := client.Do(req)
		if err != nil {
			return fails
		}
		defer resp.Body.Close()
		var a answer
		b, err := io.ReadAll(resp.Body)
		if err = errors.Join(err, json.Unmarshal(b, &a)); err != nil {
			return err.Error()
		}
		return a.Hostname
	}
}

// deployBehaviours creates everything, and gives the pod that never joins.
func (sc *Scene) deployBehaviours(ctx context.Context) (plain string, err error) {
	if err := sc.Namespace(ctx, false); err != nil {
		return "", err
	}
	outside, err := sc.Another(ctx, "out", false)
	if err != nil {
		return "", err
	}
	both := map[string]string{"group": "both"}
	never := ExecProbe("/echo", "get", "--timeout", "1s", "http://127.0.0.1:1/")
	if err := sc.Create(ctx, Pod{Name: "sick", Node: 2, Ready: never}); err != nil {
		return "", err
	}
	if err := sc.Apply(ctx, sc.statefulSet()); err != nil {
		return "", err
	}
	err = sc.Start(ctx,
		Pod{Name: "client", Node: 1}, Pod{Name: "near", Node: 1, Labels: both}, Pod{Name: "far", Node: 2, Labels: both},
		Pod{Name: "plain", Namespace: outside, Node: 2})
	if err != nil {
		return "", err
	}
	return outside + "/plain", errors.Join(sc.createServices(ctx), sc.BecomesReady(ctx, sc.NS, "set-0"), sc.BecomesReady(ctx, sc.NS, "set-1"))
}

func (sc *Scene) statefulSet() string {
	return fmt.Sprintf(`apiVersion: apps/v1
kind: StatefulSet
metadata: {name: set, namespace: %s}
spec:
  serviceName: set
  replicas: 2
  selector: {matchLabels: {app: set}}
  template:
    metadata: {labels: {app: set}}
    spec:
      terminationGracePeriodSeconds: 1
      automountServiceAccountToken: false
      containers:
      - {name: app, image: %q, imagePullPolicy: IfNotPresent, args: [serve], readinessProbe: {periodSeconds: 1, httpGet: {port: 8080}}}
`, sc.NS, sc.Image("echo"))
}

// createServices creates those that need nothing but their names.
func (sc *Scene) createServices(ctx context.Context) error {
	group := func(s *corev1.Service) { s.Spec.Selector = map[string]string{"group": "both"} }
	distribute := func(how string) func(*corev1.Service) {
		return func(s *corev1.Service) { s.Spec.TrafficDistribution = &how }
	}
	local := func(s *corev1.Service) {
		policy := corev1.ServiceInternalTrafficPolicyLocal
		s.Spec.InternalTrafficPolicy = &policy
	}
	nodePort := func(external corev1.ServiceExternalTrafficPolicy) func(*corev1.Service) {
		return func(s *corev1.Service) {
			s.Spec.Type, s.Spec.ExternalTrafficPolicy = corev1.ServiceTypeNodePort, external
		}
	}
	family := func(f corev1.IPFamily) func(*corev1.Service) {
		return func(s *corev1.Service) {
			one := corev1.IPFamilyPolicySingleStack
			s.Spec.IPFamilyPolicy, s.Spec.IPFamilies = &one, []corev1.IPFamily{f}
		}
	}
	return errors.Join(
		sc.Service(ctx, "near", "near"), sc.Service(ctx, "far", "far"), sc.Service(ctx, "named", "far", NamedPort),
		sc.Service(ctx, "both", "", group), sc.Service(ctx, "headless", "far", Headless), sc.Service(ctx, "set", "set", Headless),
		sc.Service(ctx, "nobody", "nobody"),
		sc.Service(ctx, "unready", "sick", func(s *corev1.Service) { s.Spec.PublishNotReadyAddresses = true }), sc.Service(ctx, "sick", "sick"),
		sc.Service(ctx, "node", "", group, distribute(corev1.ServiceTrafficDistributionPreferSameNode)),
		sc.Service(ctx, "local", "", group, local), sc.Service(ctx, "local-far", "far", local),
		sc.Service(ctx, "ports", "far", nodePort(corev1.ServiceExternalTrafficPolicyCluster)),
		sc.Service(ctx, "ports-local", "far", nodePort(corev1.ServiceExternalTrafficPolicyLocal)),
		sc.Service(ctx, "sticky", "", group, func(s *corev1.Service) { s.Spec.SessionAffinity = corev1.ServiceAffinityClientIP }),
		sc.Service(ctx, "four", "far", family(corev1.IPv4Protocol)), sc.Service(ctx, "six", "far", family(corev1.IPv6Protocol)),
		sc.Service(ctx, "alias", "", func(s *corev1.Service) {
			s.Spec = corev1.ServiceSpec{Type: corev1.ServiceTypeExternalName, ExternalName: "near." + sc.NS + ".svc.cluster.local"}
		}),
	)
}

// manual creates a service without a selector whose one endpoint is an address.
func (sc *Scene) manual(ctx context.Context, name, address string) error {
	return sc.Apply(ctx, fmt.Sprintf(`apiVersion: v1
kind: Service
metadata: {name: %[1]s, namespace: %[2]s}
spec: {ports: [{name: http, port: 80, targetPort: 8080}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: %[1]s-1, namespace: %[2]s, labels: {kubernetes.io/service-name: %[1]s}}
addressType: IPv4
ports: [{name: http, port: 8080, protocol: TCP}]
endpoints: [{addresses: [%[3]q], conditions: {ready: true}}]
`, name, sc.NS, address))
}

// behaviours is the table.
func (sc *Scene) behaviours(ctx context.Context, plain string) ([]behaviour, error) {
	client4, client6, err1 := sc.IPs(ctx, "client")
	far4, far6, err2 := sc.IPs(ctx, "far")
	vip4, vip6, err3 := sc.VIPs(ctx, "far")
	near4, _, err4 := sc.IPs(ctx, "near")
	namespace, name, _ := strings.Cut(plain, "/")
	out, err5 := sc.Stage.Pod(ctx, namespace, name)
	if err := errors.Join(err1, err2, err3, err4, err5); err != nil {
		return nil, err
	}
	if err := errors.Join(sc.manual(ctx, "manual", far4), sc.manual(ctx, "manual-out", out.Status.PodIP)); err != nil {
		return nil, err
	}
	at := func(service string) string { return url(service+"."+sc.NS, 80) }
	one := func(target string) func(context.Context) string { return sc.who("client", target, 1) }
	many := func(target string) func(context.Context) string { return sc.who("client", target, 30) }
	all := []behaviour{
		{"a cluster address", one(url(vip4, 80)), "far sees " + client4},
		{"a cluster address of IPv6", one(url(vip6, 80)), "far sees " + client6},
		{"a service by its name", one(at("near")), "near sees " + client4},
		{"a service by its whole name", one(url("far."+sc.NS+".svc.cluster.local.", 80)), "far sees " + client4},
		{"a service of two pods leads to both", many(at("both")), "far+near"},
		{"a pod's address", one(url(far4, httpPort)), "far sees " + client4},
		{"a pod's address of IPv6", one(url(far6, httpPort)), "far sees " + client6},
		{"a headless service", one(url("headless."+sc.NS, httpPort)), "far sees " + client4},
		{"the first of a StatefulSet", sc.who("client", url("set-0.set."+sc.NS, httpPort), 2), "set-0"},
		{"the second of a StatefulSet", sc.who("client", url("set-1.set."+sc.NS, httpPort), 2), "set-1"},
		{"a port by its name", one(at("named")), "far sees " + client4},
		{"a port that the service does not have", one(url(vip4, 81)), fails},
		{"a service without pods", one(at("nobody")), fails},
		{"a service whose pod is not ready", one(at("sick")), fails},
		{"publishNotReadyAddresses", one(at("unready")), "sick sees " + client4},
		{"a manual slice with a pod's address", one(at("manual")), "far sees " + client4},
		{"a manual slice with an address outside of the mesh", one(at("manual-out")), "plain sees " + client4},
		{"trafficDistribution PreferSameNode", many(at("node")), "near"},
		{"internalTrafficPolicy Local", many(at("local")), "near"},
		{"internalTrafficPolicy Local without a pod on the node", one(at("local-far")), fails},
		{"sessionAffinity ClientIP", func(ctx context.Context) string {
			if got := many(at("sticky"))(ctx); got != "near" && got != "far" {
				return got
			}
			return "one of them"
		}, "one of them"},
		{"a service of IPv4 only", one(at("four")), "far sees " + client4},
		{"a service of IPv6 only", one(at("six")), "far sees " + client6},
		{"an ExternalName", one(at("alias")), "near sees " + client4},
		{"a pod calls its own service", sc.who("near", at("near"), 3), "near"},
		{"a pod calls its own address", sc.who("near", url(near4, httpPort), 3), "near"},
		{"a pod calls a service of itself and another", sc.who("near", at("both"), 30), "far+near"},
		{"a pod outside calls a service", sc.who(plain, at("far"), 2), "far"},
		{"a pod calls one outside", sc.who("client", url(out.Status.PodIP, httpPort), 1), "plain sees " + client4},
		{"bytes of a server that speaks first", func(ctx context.Context) string {
			return outcome(sc.Works(ctx, "client", "tcp", "--first", "--timeout", "4s", address("far."+sc.NS, 91)))
		}, "works"},
	}
	ports, err := sc.nodePorts(ctx)
	return append(all, ports...), err
}

func outcome(err error) string {
	if err != nil {
		return err.Error()
	}
	return "works"
}

// nodePorts are the behaviours of those, from this machine; on somebody else's
// cluster it may not reach the nodes.
func (sc *Scene) nodePorts(ctx context.Context) ([]behaviour, error) {
	if sc.Cluster == nil {
		return nil, nil
	}
	port := map[string]int{}
	for _, name := range []string{"ports", "ports-local"} {
		s, err := sc.Reach.Client.CoreV1().Services(sc.NS).Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return nil, err
		}
		port[name] = int(s.Spec.Ports[0].NodePort)
	}
	var ips []string
	for _, pod := range []string{"client", "far"} {
		p, err := sc.Stage.Pod(ctx, sc.NS, pod)
		if err != nil {
			return nil, err
		}
		ips = append(ips, p.Status.HostIP)
	}
	return []behaviour{
		{"a node port, of the pod's node", fromOutside(url(ips[1], port["ports"])), "far"},
		{"a node port, of another node", fromOutside(url(ips[0], port["ports"])), "far"},
		{"externalTrafficPolicy Local, of the pod's node", fromOutside(url(ips[1], port["ports-local"])), "far"},
		{"externalTrafficPolicy Local, of another node", fromOutside(url(ips[0], port["ports-local"])), fails},
		{"a node port, from a pod", sc.who("client", url(ips[0], port["ports"]), 2), "far"},
	}, nil
}
