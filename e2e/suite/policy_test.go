//go:build e2e

package suite

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/ambit-mesh/ambit/e2e/stage"
)

// authz makes an AuthorizationPolicy for the pods of account server.
func (sc *Scene) authz(name, spec string) string {
	return fmt.Sprintf("apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: %s, namespace: %s}\nspec:\n  selector: {matchLabels: {app: server}}\n%s", name, sc.NS, spec)
}

// caller is one client and one port it tries.
type caller struct {
	pod  string
	port int
}

// reaches is an error unless exactly the wanted callers reach the server, by
// HTTP on 8080 and by TCP on 9000.
func (sc *Scene) reaches(ctx context.Context, host string, all, want []caller) error {
	var errs []error
	for _, c := range all {
		args := []string{"tcp", "--timeout", "3s", address(host, c.port)}
		if c.port == httpPort {
			args = []string{"get", "--timeout", "3s", url(host, c.port)}
		}
		check := sc.Fails
		if slices.Contains(want, c) {
			check = sc.Works
		}
		errs = append(errs, check(ctx, c.pod, args...))
	}
	return errors.Join(errs...)
}

// TestPoliciesDecideByPrincipalNamespaceAddressAndPort: a row is a policy and
// who gets through under it.
func TestPoliciesDecideByPrincipalNamespaceAddressAndPort(t *testing.T) {
	t.Parallel()
	Hold(t, mesh, func(ctx context.Context, sc *Scene) error {
		other, host, aIP, err := sc.policyCast(ctx)
		if err != nil {
			return err
		}
		foreign := other + "/c"
		all := []caller{{"a", httpPort}, {"a", tcpPort}, {"b", httpPort}, {"b", tcpPort}, {foreign, httpPort}, {foreign, tcpPort}}
		but := func(gone ...caller) []caller {
			return slices.DeleteFunc(slices.Clone(all), func(c caller) bool { return slices.Contains(gone, c) })
		}
		a8, a9, b8, b9, c8, c9 := all[0], all[1], all[2], all[3], all[4], all[5]
		for _, row := range []struct {
			policy, spec string
			want         []caller
		}{
			{"allow-nothing", "  action: ALLOW\n", nil},
			{"allow-principal", "  action: ALLOW\n  rules: [{from: [{source: {principals: [" + Principal(sc.NS, "a") + "]}}]}]\n", []caller{a8, a9}},
			{"allow-namespace", "  action: ALLOW\n  rules: [{from: [{source: {namespaces: [" + other + "]}}]}]\n", []caller{c8, c9}},
			{"allow-address", "  action: ALLOW\n  rules: [{from: [{source: {ipBlocks: [" + aIP + "]}}]}]\n", []caller{a8, a9}},
			{"allow-port", "  action: ALLOW\n  rules: [{to: [{operation: {ports: ['9000']}}]}]\n", []caller{a9, b9, c9}},
			{"allow-principal-to-port", "  action: ALLOW\n  rules: [{from: [{source: {principals: [" + Principal(sc.NS, "b") + "]}}], to: [{operation: {ports: ['8080']}}]}]\n", []caller{b8}},
			{"deny-principal", "  action: DENY\n  rules: [{from: [{source: {principals: [" + Principal(sc.NS, "b") + "]}}]}]\n", but(b8, b9)},
			{"deny-namespace", "  action: DENY\n  rules: [{from: [{source: {namespaces: [" + sc.NS + "]}}]}]\n", []caller{c8, c9}},
			{"deny-address", "  action: DENY\n  rules: [{from: [{source: {ipBlocks: [" + aIP + "]}}]}]\n", but(a8, a9)},
			{"deny-port", "  action: DENY\n  rules: [{to: [{operation: {ports: ['9000']}}]}]\n", []caller{a8, b8, c8}},
			{"deny-others", "  action: DENY\n  rules: [{from: [{source: {notPrincipals: [" + Principal(sc.NS, "a") + "]}}]}]\n", []caller{a8, a9}},
		} {
			if err := sc.underPolicy(ctx, row.policy, row.spec, host, all, row.want); err != nil {
				return fmt.Errorf("%s: %w", row.policy, err)
			}
		}
		return nil
	})
}

// policyCast starts the server, two clients beside it and one of another
// namespace.
func (sc *Scene) policyCast(ctx context.Context) (other, host, aIP string, err error) {
	if err := sc.Namespace(ctx, true); err != nil {
		return "", "", "", err
	}
	if other, err = sc.Another(ctx, "other", true); err != nil {
		return "", "", "", err
	}
	if err := sc.Start(ctx, Pod{Name: "server", Node: 2}, Pod{Name: "a", Node: 1}, Pod{Name: "b", Node: 2}, Pod{Name: "c", Namespace: other, Node: 1}); err != nil {
		return "", "", "", err
	}
	if err := sc.encryptedBetween(ctx, "a", "server"); err != nil {
		return "", "", "", err
	}
	host, _, err1 := sc.IPs(ctx, "server")
	aIP, _, err2 := sc.IPs(ctx, "a")
	return other, host, aIP, errors.Join(err1, err2)
}

// underPolicy applies a policy, looks who gets through, and deletes it.
func (sc *Scene) underPolicy(ctx context.Context, name, spec, host string, all, want []caller) error {
	doc := sc.authz(name, spec)
	if err := sc.Apply(ctx, doc); err != nil {
		return err
	}
	if err := Soon(ctx, func(ctx context.Context) error { return sc.reaches(ctx, host, all, want) }); err != nil {
		return err
	}
	if err := sc.Delete(ctx, doc); err != nil {
		return err
	}
	return Soon(ctx, func(ctx context.Context) error { return sc.reaches(ctx, host, all[:1], all[:1]) })
}

// TestADeniedConnectionNamesThePolicyAtBothEnds.
func TestADeniedConnectionNamesThePolicyAtBothEnds(t *testing.T) {
	t.Parallel()
	Hold(t, mesh, func(ctx context.Context, sc *Scene) error {
		hosts, err := sc.inMesh(ctx, true)
		if err != nil {
			return err
		}
		if err := sc.Apply(ctx, sc.authz("nobody-enters", "  action: ALLOW\n")); err != nil {
			return err
		}
		err = Soon(ctx, func(ctx context.Context) error {
			return sc.Fails(ctx, "client", "get", "--timeout", "3s", url(hosts[0], httpPort))
		})
		if err != nil {
			return err
		}
		name := sc.NS + "/nobody-enters"
		for _, end := range []string{"inbound", "outbound"} {
			if _, err := sc.AccessUntil(ctx, sc.Began, "that is "+end+" and names "+name, func(a stage.Access) bool {
				return a.Direction == end && a.Error != "" && strings.Contains(a.Policy+" "+a.Reason, name)
			}); err != nil {
				return err
			}
		}
		return nil
	})
}

// TestAPolicyClosesOpenConnectionsThatItDenies, and only those.
func TestAPolicyClosesOpenConnectionsThatItDenies(t *testing.T) {
	t.Parallel()
	Hold(t, mesh, func(ctx context.Context, sc *Scene) error {
		if err := sc.Namespace(ctx, true); err != nil {
			return err
		}
		if err := sc.Start(ctx, Pod{Name: "server", Node: 2}, Pod{Name: "a", Node: 1}, Pod{Name: "b", Node: 1}); err != nil {
			return err
		}
		if err := errors.Join(sc.encryptedBetween(ctx, "a", "server"), sc.encryptedBetween(ctx, "b", "server")); err != nil {
			return err
		}
		host, _, err := sc.IPs(ctx, "server")
		if err != nil {
			return err
		}
		denied := sc.Begin(ctx, "b", "hold", "--duration", "40s", "--timeout", "3s", address(host, tcpPort))
		admitted := sc.Begin(ctx, "a", "hold", "--duration", "20s", "--timeout", "3s", address(host, tcpPort))
		if err := sc.held(ctx, Identity(sc.NS, "b")); err != nil {
			return err
		}
		applied := time.Now()
		if err := sc.Apply(ctx, sc.authz("not-b", "  action: DENY\n  rules: [{from: [{source: {principals: ["+Principal(sc.NS, "b")+"]}}]}]\n")); err != nil {
			return err
		}
		s, err := denied.End()
		if err != nil {
			return err
		}
		if s.Failed == 0 {
			return fmt.Errorf("the open connection of b lived on: %+v", s)
		}
		if took := time.Since(applied); took > 30*time.Second {
			return fmt.Errorf("the open connection of b lived on for %s", took)
		}
		return admitted.EndOK()
	})
}

// held waits until a proxy shows an open inbound connection of an identity.
func (sc *Scene) held(ctx context.Context, peer string) error {
	return Soon(ctx, func(ctx context.Context) error {
		dumps, err := sc.Dumps(ctx)
		if err != nil {
			return err
		}
		for _, d := range dumps {
			for _, pod := range d.WorkloadState {
				for _, c := range pod.Connections.Inbound {
					if c.Peer == peer {
						return nil
					}
				}
			}
		}
		return fmt.Errorf("no proxy shows an open connection of %s", peer)
	})
}

// TestSTRICTRefusesPlaintext and nothing else; without it plaintext passes.
func TestSTRICTRefusesPlaintext(t *testing.T) {
	t.Parallel()
	Hold(t, mesh, func(ctx context.Context, sc *Scene) error {
		hosts, err := sc.inMesh(ctx, true)
		if err != nil {
			return err
		}
		outside, err := sc.Another(ctx, "out", false)
		if err != nil {
			return err
		}
		if err := sc.Start(ctx, Pod{Name: "outsider", Namespace: outside, Node: 1}); err != nil {
			return err
		}
		outsider := outside + "/outsider"
		plain := func(check func(context.Context, string, ...string) error) error {
			return Soon(ctx, func(ctx context.Context) error {
				var errs []error
				for _, h := range hosts {
					errs = append(errs, check(ctx, outsider, "get", "--timeout", "3s", url(h, httpPort)))
				}
				return errors.Join(errs...)
			})
		}
		if err := plain(sc.Works); err != nil {
			return fmt.Errorf("without STRICT: %w", err)
		}
		if err := sc.Apply(ctx, strict(sc.NS)); err != nil {
			return err
		}
		if err := plain(sc.Fails); err != nil {
			return fmt.Errorf("under STRICT: %w", err)
		}
		if err := sc.Works(ctx, "client", "get", url(hosts[0], httpPort)); err != nil {
			return fmt.Errorf("from the mesh under STRICT: %w", err)
		}
		if err := sc.Delete(ctx, strict(sc.NS)); err != nil {
			return err
		}
		return plain(sc.Works)
	})
}

// TestANamedWaypointThatIsMissingClosesTheService: what should pass a waypoint
// never passes around it.
func TestANamedWaypointThatIsMissingClosesTheService(t *testing.T) {
	t.Parallel()
	Hold(t, mesh, func(ctx context.Context, sc *Scene) error {
		if _, err := sc.inMesh(ctx, true); err != nil {
			return err
		}
		if err := sc.Service(ctx, "server", "server"); err != nil {
			return err
		}
		target := url("server."+sc.NS, 80)
		if err := Soon(ctx, func(ctx context.Context) error { return sc.Works(ctx, "client", "get", target) }); err != nil {
			return err
		}
		patch := fmt.Sprintf("apiVersion: v1\nkind: Service\nmetadata: {name: server, namespace: %s, labels: {istio.io/use-waypoint: nowhere}}\n", sc.NS)
		if err := sc.Apply(ctx, patch); err != nil {
			return err
		}
		if err := Soon(ctx, func(ctx context.Context) error { return sc.Fails(ctx, "client", "get", "--timeout", "15s", target) }); err != nil {
			return err
		}
		return sc.condition(ctx, schema.GroupVersionResource{Version: "v1", Resource: "services"}, "server", "istio.io/WaypointBound", "nowhere")
	})
}

// TestAPolicysStatusSaysWhatL4CannotEnforce, and that a plain one is enforced.
func TestAPolicysStatusSaysWhatL4CannotEnforce(t *testing.T) {
	t.Parallel()
	Hold(t, mesh, func(ctx context.Context, sc *Scene) error {
		if err := sc.Namespace(ctx, true); err != nil {
			return err
		}
		err := errors.Join(
			sc.Apply(ctx, sc.authz("plain", "  action: DENY\n  rules: [{to: [{operation: {ports: ['81']}}]}]\n")),
			sc.Apply(ctx, sc.authz("methods", "  action: DENY\n  rules: [{to: [{operation: {methods: [POST]}}]}]\n")),
		)
		if err != nil {
			return err
		}
		policies := schema.GroupVersionResource{Group: "security.istio.io", Version: "v1", Resource: "authorizationpolicies"}
		return errors.Join(
			sc.condition(ctx, policies, "plain", "ZtunnelAccepted", "enforced at L4 as written"),
			sc.condition(ctx, policies, "methods", "ZtunnelAccepted", "methods cannot be seen at L4"),
		)
	})
}

// condition waits until an object's status has a condition with a message.
func (sc *Scene) condition(ctx context.Context, kind schema.GroupVersionResource, name, condition, message string) error {
	return Soon(ctx, func(ctx context.Context) error {
		obj, err := sc.Reach.Dynamic.Resource(kind).Namespace(sc.NS).Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		list, _, err := unstructured.NestedSlice(obj.Object, "status", "conditions")
		for _, item := range list {
			if c, ok := item.(map[string]any); ok && c["type"] == condition && strings.Contains(fmt.Sprint(c["message"]), message) {
				return nil
			}
		}
		return errors.Join(err, fmt.Errorf("%s %s has no condition %s with %q: %v", kind.Resource, name, condition, message, list))
	})
}
