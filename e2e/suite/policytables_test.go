//go:build e2e

package suite

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/ambit-mesh/ambit/manifests"
)

// peerRow is a row of the specification's table of PeerAuthentication
// (controlplane spec, appendix C): what it says of plaintext to one port and to
// another, of a server in a namespace with a mode or without.
type peerRow struct {
	server, namespace string // "" is the scene's, which has no mode
	mode, port        string // of the workload; "" is none
	to, other         string
}

// TestTheTableOfPeerAuthentication walks all rows: those without a mode of the
// mesh at once, then those with STRICT. It is alone, as the latter concerns
// everybody.
func TestTheTableOfPeerAuthentication(t *testing.T) {
	Hold(t, mesh, func(ctx context.Context, sc *Scene) error {
		if err := sc.Namespace(ctx, true); err != nil {
			return err
		}
		strictNS, err1 := sc.Another(ctx, "strict", true)
		permissive, err2 := sc.Another(ctx, "permissive", true)
		outside, err3 := sc.Another(ctx, "out", false)
		if err := errors.Join(err1, err2, err3); err != nil {
			return err
		}
		without := []peerRow{
			{"none", "", "", "", "works", "works"},
			{"ns-strict", strictNS, "", "", fails, fails},
			{"ns-strict-own-permissive", strictNS, "PERMISSIVE", "", "works", "works"},
			{"strict-port-permissive", "", "STRICT", "PERMISSIVE", "works", fails},
			{"permissive-port-strict", "", "PERMISSIVE", "STRICT", fails, "works"},
			{"unset-port-strict", "", "UNSET", "STRICT", fails, "works"},
		}
		strictMesh := []peerRow{
			{"mesh", "", "", "", fails, fails},
			{"mesh-ns-permissive", permissive, "", "", "works", "works"},
			{"mesh-unset-port-permissive", "", "UNSET", "PERMISSIVE", "works", fails},
			{"mesh-unset-port-disabled", "", "UNSET", "DISABLE", fails, fails},
			{"mesh-strict-port-strict", "", "STRICT", "STRICT", fails, fails},
		}
		if err := sc.peerCast(ctx, outside, append(without[:len(without):len(without)], strictMesh...)); err != nil {
			return err
		}
		if err := errors.Join(sc.Apply(ctx, peer(strictNS, "all", "STRICT", "", "")), sc.Apply(ctx, peer(permissive, "all", "PERMISSIVE", "", ""))); err != nil {
			return err
		}
		if err := sc.peersAre(ctx, outside, without); err != nil {
			return err
		}
		whole := peer(manifests.Namespace, "whole-mesh", "STRICT", "", "")
		sc.Undo(func(ctx context.Context) error { return sc.Delete(ctx, whole) })
		if err := sc.Apply(ctx, whole); err != nil {
			return err
		}
		if err := sc.peersAre(ctx, outside, strictMesh); err != nil {
			return fmt.Errorf("under a strict mesh: %w", err)
		}
		return nil
	})
}

func peer(namespace, name, mode, app, port string) string {
	out := fmt.Sprintf("apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: %s, namespace: %s}\nspec:\n  mtls: {mode: %s}\n", name, namespace, mode)
	if app != "" {
		out += fmt.Sprintf("  selector: {matchLabels: {app: %s}}\n", app)
	}
	if port != "" {
		out += fmt.Sprintf("  portLevelMtls: {%d: {mode: %s}}\n", httpPort, port)
	}
	return out
}

// peerCast starts a server for each row with its own mode, and the clients.
func (sc *Scene) peerCast(ctx context.Context, outside string, rows []peerRow) error {
	pods := []Pod{{Name: "client", Node: 1}, {Name: "plain", Namespace: outside, Node: 1}}
	for i, r := range rows {
		pods = append(pods, Pod{Name: r.server, Namespace: r.namespace, Node: 1 + i%2})
		if r.mode == "" {
			continue
		}
		if err := sc.Apply(ctx, peer(sc.namespace(Pod{Namespace: r.namespace}), r.server, r.mode, r.server, r.port)); err != nil {
			return err
		}
	}
	return sc.Start(ctx, pods...)
}

func (sc *Scene) peersAre(ctx context.Context, outside string, rows []peerRow) error {
	var all []behaviour
	for _, r := range rows {
		p, err := sc.Stage.Pod(ctx, sc.namespace(Pod{Namespace: r.namespace}), r.server)
		if err != nil {
			return err
		}
		all = append(all,
			behaviour{r.server + " in clear to the port", sc.tries(outside+"/plain", p.Status.PodIP, httpPort), r.to},
			behaviour{r.server + " in clear to another", sc.tries(outside+"/plain", p.Status.PodIP, tcpPort), r.other},
			behaviour{r.server + " from the mesh", sc.tries("client", p.Status.PodIP, httpPort), "works"})
	}
	return look(ctx, all)
}

// tries tells whether a pod reaches a port.
func (sc *Scene) tries(pod, host string, port int) func(context.Context) string {
	args := []string{"tcp", "--timeout", "3s", address(host, port)}
	if port == httpPort {
		args = []string{"get", "--timeout", "3s", url(host, port)}
	}
	return func(ctx context.Context) string {
		s, err := sc.Echo(ctx, pod, args...)
		switch {
		case err != nil:
			return err.Error()
		case s.OK == 0:
			return fails
		}
		return "works"
	}
}

// TestTheTableOfAuthorizationPolicy walks all rows of the specification's table
// (controlplane spec, appendix D), as docs/security.md tells them where we close
// and Istio opens. Each row has a server and a policy of its own.
func TestTheTableOfAuthorizationPolicy(t *testing.T) {
	t.Parallel()
	Hold(t, mesh, func(ctx context.Context, sc *Scene) error {
		if err := sc.Namespace(ctx, true); err != nil {
			return err
		}
		outside, err := sc.Another(ctx, "out", false)
		if err != nil {
			return err
		}
		from := func(account string) string {
			return "from: [{source: {principals: [" + Principal(sc.NS, account) + "]}}]"
		}
		rows := []struct {
			server, action, rules string
			reach                 string // a and b to the one port and to the other, then one in clear
		}{
			{"allow-nothing", "ALLOW", "[]", "- - - - -"},
			{"allow-everything", "ALLOW", "[{}]", "a8 a9 b8 b9 p8"},
			{"allow-a-to-port", "ALLOW", "[{" + from("a") + ", to: [{operation: {ports: ['8080']}}]}]", "a8 - - - -"},
			{"allow-a-and-method", "ALLOW", "[{" + from("a") + ", to: [{operation: {methods: [GET]}}]}]", "- - - - -"},
			{"allow-a-or-path", "ALLOW", "[{" + from("a") + "}, {to: [{operation: {paths: [/x]}}]}]", "a8 a9 - - -"},
			{"deny-method", "DENY", "[{to: [{operation: {methods: [POST]}}]}]", "- - - - -"},
			{"deny-b-and-method", "DENY", "[{" + from("b") + ", to: [{operation: {methods: [POST]}}]}]", "a8 a9 - - p8"},
			{"deny-port-and-method", "DENY", "[{to: [{operation: {ports: ['8080'], methods: [POST]}}]}]", "- a9 - b9 -"},
			{"deny-method-or-port", "DENY", "[{to: [{operation: {methods: [POST]}}, {operation: {ports: ['9000']}}]}]", "- - - - -"},
			{"deny-header", "DENY", "[{when: [{key: 'request.headers[x]', values: [v]}]}]", "- - - - -"},
			{"allow-other-domain", "ALLOW", "[{from: [{source: {namespaces: [" + sc.NS + "], trustDomains: [elsewhere]}}]}]", "- - - - -"},
			{"allow-domain", "ALLOW", "[{from: [{source: {trustDomains: [" + trustDomain + "]}}]}]", "a8 a9 b8 b9 -"},
			{"deny-other-domains", "DENY", "[{from: [{source: {notTrustDomains: [" + trustDomain + "]}}]}]", "a8 a9 b8 b9 -"},
			{"audit", "AUDIT", "[{}]", "a8 a9 b8 b9 p8"},
			{"unknown-key", "DENY", "[{" + from("b") + ", when: [{key: source.moon, values: [full]}]}]", "a8 a9 - - p8"},
			{"bad-block", "DENY", "[{from: [{source: {ipBlocks: ['10.0.0.0/99'], principals: [" + Principal(sc.NS, "b") + "]}}]}]", "a8 a9 - - p8"},
			{"dry-run", "DENY", "[{}]", "a8 a9 b8 b9 p8"},
		}
		pods := []Pod{{Name: "a", Node: 1}, {Name: "b", Node: 2}, {Name: "plain", Namespace: outside, Node: 1}}
		for i, r := range rows {
			pods = append(pods, Pod{Name: r.server, Node: 1 + i%2})
			doc := fmt.Sprintf("apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: %s, namespace: %s}\nspec:\n  selector: {matchLabels: {app: %s}}\n  action: %s\n  rules: %s\n",
				r.server, sc.NS, r.server, r.action, r.rules)
			if r.server == "dry-run" {
				doc = strings.Replace(doc, "metadata: {", "metadata: {annotations: {istio.io/dry-run: 'true'}, ", 1)
			}
			if err := sc.Apply(ctx, doc); err != nil {
				return fmt.Errorf("%s: %w", r.server, err)
			}
		}
		if err := sc.Start(ctx, pods...); err != nil {
			return err
		}
		var all []behaviour
		for _, r := range rows {
			host, _, err := sc.IPs(ctx, r.server)
			if err != nil {
				return err
			}
			reach := strings.Fields(r.reach)
			for i, c := range []caller{{"a", httpPort}, {"a", tcpPort}, {"b", httpPort}, {"b", tcpPort}, {outside + "/plain", httpPort}} {
				want := "works"
				if reach[i] == "-" {
					want = fails
				}
				all = append(all, behaviour{fmt.Sprintf("%s: %s to %d", r.server, c.pod, c.port), sc.tries(c.pod, host, c.port), want})
			}
		}
		if err := look(ctx, all); err != nil {
			return err
		}
		sc.Figure("policy.table", "%d rows, %d callers as they should be", len(rows), len(all))
		return sc.saysDryRun(ctx)
	})
}

// saysDryRun waits for the record of the dry-run policy.
func (sc *Scene) saysDryRun(ctx context.Context) error {
	return Soon(ctx, func(ctx context.Context) error {
		pods, err := sc.Pods(ctx, manifests.Namespace, "app=ztunnel")
		if err != nil {
			return err
		}
		for _, p := range pods {
			text, err := sc.Logs(ctx, p.Namespace, p.Name, "istio-proxy", sc.Began)
			if err != nil {
				return err
			}
			for line := range strings.Lines(text) {
				if strings.Contains(line, "dry run") && strings.Contains(line, sc.NS+"/dry-run") && strings.Contains(line, `"would_be":"deny"`) {
					return nil
				}
			}
		}
		return errors.New("no proxy says what the dry-run policy would have done")
	})
}
