//go:build e2e

package suite

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/ambit-mesh/ambit/manifests"
)

// dryRun is a policy that is only tried, at node proxies or, for a service, at
// its waypoint.
func dryRun(policy string) string {
	return strings.Replace(policy, "metadata: {", "metadata: {annotations: {istio.io/dry-run: 'true'}, ", 1)
}

// TestADryRunDeniesNothingAndTellsWhatItWouldHaveDone: of policies by principal,
// without rules and by method, at both kinds of proxies, each call is counted and
// what would have been denied is logged; when the annotations go, it is denied.
func TestADryRunDeniesNothingAndTellsWhatItWouldHaveDone(t *testing.T) {
	t.Parallel()
	Hold(t, mesh, func(ctx context.Context, sc *Scene) error {
		ts, err := sc.tasks(ctx)
		if err != nil {
			return err
		}
		if err := sc.Start(ctx, Pod{Name: "server", Node: 2}, Pod{Name: "closed", Node: 1}); err != nil {
			return err
		}
		server, _, err1 := sc.IPs(ctx, "server")
		closed, _, err2 := sc.IPs(ctx, "closed")
		if err := errors.Join(err1, err2); err != nil {
			return err
		}
		all := map[string]string{
			"not-a":      sc.authz("not-a", "  action: DENY\n  rules: [{from: [{source: {principals: ["+Principal(sc.NS, "a")+"]}}]}]\n"),
			"nobody":     strings.Replace(sc.authz("nobody", "  action: ALLOW\n"), "app: server", "app: closed", 1),
			"no-deletes": ts.guard("no-deletes", "  action: DENY\n  rules: [{to: [{operation: {methods: [DELETE]}}]}]\n"),
		}
		for _, doc := range all {
			if err := sc.applied(ctx, dryRun(doc)); err != nil {
				return err
			}
		}
		calls := func(do func(context.Context, string, ...string) error, deletes string) error {
			return errors.Join(
				do(ctx, "a", "get", "--count", "10", "--timeout", "3s", url(server, httpPort)),
				do(ctx, "a", "get", "--count", "10", "--timeout", "3s", url(closed, httpPort)),
				sc.Works(ctx, "b", "get", "--count", "10", url(server, httpPort)),
				sc.Works(ctx, "b", "get", "--count", "10", "--status", "200", ts.url("/")),
				sc.Works(ctx, "b", "get", "--count", "10", "--method", "DELETE", "--status", deletes, ts.url("/")),
			)
		}
		outcomes := []*rehearsed{
			{proxies: "ztunnel", policy: "not-a", client: "a", would: "deny"}, {proxies: "ztunnel", policy: "not-a", client: "b", would: "allow"},
			{proxies: "ztunnel", policy: "nobody", client: "a", would: "deny"},
			{proxies: "waypoint", policy: "no-deletes", client: "b", would: "deny"}, {proxies: "waypoint", policy: "no-deletes", client: "b", would: "allow"},
		}
		for _, o := range outcomes {
			if o.before, err = ts.counts(ctx, o); err != nil {
				return err
			}
		}
		if err := calls(sc.Works, "200"); err != nil {
			return fmt.Errorf("on trial: %w", err)
		}
		for _, o := range outcomes {
			if err := Soon(ctx, func(ctx context.Context) error { return ts.tells(ctx, o, 10) }); err != nil {
				return err
			}
		}
		for _, doc := range all {
			if err := sc.applied(ctx, doc); err != nil {
				return err
			}
		}
		if err := calls(sc.Fails, "403"); err != nil {
			return fmt.Errorf("enforced: %w", err)
		}
		sc.Figure("policy.dryrun", "%d policies: nothing denied on trial, each of 50 calls counted, what was foretold denied when enforced", len(all))
		return nil
	})
}

// rehearsed is what a policy on trial would have made of the calls of a client.
type rehearsed struct {
	proxies, policy, client, would string
	before                         float64
}

// where is the pods of the proxies that tell of it.
func (o *rehearsed) where(ts *tasks) (namespace, label string) {
	if o.proxies == "waypoint" {
		return ts.NS, "gateway.networking.k8s.io/gateway-name=waypoint"
	}
	return manifests.Namespace, "app=ztunnel"
}

// counts is how many verdicts the proxies have counted with an outcome.
func (ts *tasks) counts(ctx context.Context, o *rehearsed) (float64, error) {
	namespace, label := o.where(ts)
	return ts.countedBy(ctx, namespace, label, "ambit_policy_dry_run_total",
		`policy_namespace="`+ts.NS+`"`, `policy_name="`+o.policy+`"`, `verdict="allow"`, `would_be="`+o.would+`"`)
}

// tells is an error unless the proxies have counted n more verdicts with an
// outcome, and logged those that would have been others.
func (ts *tasks) tells(ctx context.Context, o *rehearsed, n int) error {
	got, err := ts.counts(ctx, o)
	if err != nil {
		return err
	}
	if got -= o.before; got != float64(n) {
		return fmt.Errorf("%ss count %v verdicts beside which %s would have been %q, want %d", o.proxies, got, o.policy, o.would, n)
	}
	namespace, label := o.where(ts)
	pods, err := ts.Pods(ctx, namespace, label)
	if err != nil {
		return err
	}
	records := 0
	for _, p := range pods {
		text, err := ts.Logs(ctx, p.Namespace, p.Name, "istio-proxy", ts.Began)
		if err != nil {
			return err
		}
		for line := range strings.Lines(text) {
			var m map[string]any
			if json.Unmarshal([]byte(line), &m) == nil && m["msg"] == "dry run" && m["policy"] == ts.NS+"/"+o.policy && m["verdict"] == "allow" && m["would_be"] == o.would && m["src.workload"] == o.client {
				records++
			}
		}
	}
	if want := map[string]int{"deny": n, "allow": 0}[o.would]; records != want {
		return fmt.Errorf("%ss logged %d verdicts that %s would have made %q, want %d", o.proxies, records, o.policy, o.would, want)
	}
	return nil
}
