//go:build e2e

package suite

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/ambit-mesh/ambit/e2e/stage"
)

// pairOf is a client and a server with a connection held between them.
type pairOf struct{ from, to string }

// source is the name of the client's pod.
func (p pairOf) source() string { return p.from[strings.LastIndexByte(p.from, '/')+1:] }

// TestOpenConnectionsAreJudgedAgainWhenAWorkloadChanges: a row is a label that
// comes to a pod, and which of the connections that are open it ends, by which
// policy. All others go on, and the ended are counted, logged and explained.
func TestOpenConnectionsAreJudgedAgainWhenAWorkloadChanges(t *testing.T) {
	t.Parallel()
	Hold(t, mesh, func(ctx context.Context, sc *Scene) error {
		open, err := sc.manyOpen(ctx)
		if err != nil {
			return err
		}
		plain := sc.NS + "-out/plain"
		before, err := sc.Counted(ctx, "ambit_tcp_connections_cut_total", `cause="policy"`, `reporter="destination"`)
		if err != nil {
			return err
		}
		rows := []struct {
			what, pod, label string
			cut              pairOf
			policy, reason   string
		}{
			{"the destination is selected by a DENY", "server", "no-b", pairOf{"b", "server"}, sc.NS + "/no-b", "denied by DENY policy"},
			// What a selects concerns what comes to a, and not what a has made.
			{"a source is selected, which is a destination of another", "a", "no-b", pairOf{"b", "a"}, sc.NS + "/no-b", "denied by DENY policy"},
			{"the destination is selected by an ALLOW for others", "sibling", "only-a", pairOf{"b", "sibling"}, sc.NS + "/only-a", "no ALLOW policy matches (" + sc.NS + "/only-a applies)"},
			{"the destination is selected by STRICT", "server", "strict", pairOf{plain, "server"}, "istio-system/istio_converted_static_strict", "denied by DENY policy"},
		}
		for _, r := range rows {
			ended, err := sc.endedByPolicy(ctx, r.cut)
			if err != nil {
				return err
			}
			if err := sc.LabelPod(ctx, sc.NS, r.pod, r.label, "yes"); err != nil {
				return err
			}
			if err := sc.endsOnly(ctx, open, r.cut, r.policy, r.reason); err != nil {
				return fmt.Errorf("%s: %w", r.what, err)
			}
			now, err := sc.endedByPolicy(ctx, r.cut)
			if err != nil || now != ended+1 {
				return errors.Join(err, fmt.Errorf("%s: %v connections are counted as ended, want 1", r.what, now-ended))
			}
		}
		if err := sc.Fails(ctx, "b", "tcp", "--timeout", "3s", open.address("server")); err != nil {
			return fmt.Errorf("a new connection under the label: %w", err)
		}
		if err := sc.LabelPod(ctx, sc.NS, "server", "no-b", ""); err != nil {
			return err
		}
		if err := Soon(ctx, func(ctx context.Context) error {
			return sc.Works(ctx, "b", "tcp", "--timeout", "3s", open.address("server"))
		}); err != nil {
			return fmt.Errorf("after the label went: %w", err)
		}
		after, err := sc.Counted(ctx, "ambit_tcp_connections_cut_total", `cause="policy"`, `reporter="destination"`)
		if err == nil && after-before < float64(len(rows)) { // other tests cut, too
			err = fmt.Errorf("%v connections are counted as cut by a policy, %d were", after-before, len(rows))
		}
		err = errors.Join(err, open.liveOn(), sc.areOpen(ctx, len(open.live), open.addresses()...))
		sc.Figure("policy.rejudged", "%d open connections ended by a label, %d others lived on", len(rows), len(open.live))
		return err
	})
}

// wrap says what an error is about.
func wrap(what string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", what, err)
}

// opened are connections that are held.
type opened struct {
	live  map[pairOf]*running
	hosts map[string]string
}

func (o *opened) address(pod string) string { return address(o.hosts[pod], tcpPort) }

func (o *opened) addresses() (all []string) {
	for pod := range o.hosts {
		all = append(all, o.address(pod))
	}
	return all
}

// liveOn is an error if one has ended.
func (o *opened) liveOn() error {
	for p, c := range o.live {
		if c.over() {
			return errors.Join(fmt.Errorf("%s → %s has ended, though nothing denies it", p.from, p.to), c.EndOK())
		}
	}
	return nil
}

// manyOpen starts pods and policies that do not select them yet, and holds
// connections between them for as long as the test goes on.
func (sc *Scene) manyOpen(ctx context.Context) (*opened, error) {
	if err := sc.Namespace(ctx, true); err != nil {
		return nil, err
	}
	outside, err := sc.Another(ctx, "out", false)
	if err != nil {
		return nil, err
	}
	policy := func(kind, label, spec string) string {
		return fmt.Sprintf("apiVersion: security.istio.io/v1\nkind: %s\nmetadata: {name: %s, namespace: %s}\nspec:\n  selector: {matchLabels: {%s: 'yes'}}\n%s", kind, label, sc.NS, label, spec)
	}
	from := func(account string) string {
		return "  rules: [{from: [{source: {principals: [" + Principal(sc.NS, account) + "]}}]}]\n"
	}
	err = errors.Join(
		sc.Apply(ctx, policy("AuthorizationPolicy", "no-b", "  action: DENY\n"+from("b"))),
		sc.Apply(ctx, policy("AuthorizationPolicy", "only-a", "  action: ALLOW\n"+from("a"))),
		sc.Apply(ctx, policy("PeerAuthentication", "strict", "  mtls: {mode: STRICT}\n")),
		sc.Start(ctx, Pod{Name: "server", Node: 2}, Pod{Name: "sibling", Node: 1}, Pod{Name: "a", Node: 1}, Pod{Name: "b", Node: 2}, Pod{Name: "plain", Namespace: outside, Node: 1}),
	)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(sc.encryptedBetween(ctx, "a", "server", "sibling"), sc.encryptedBetween(ctx, "b", "server", "sibling", "a")); err != nil {
		return nil, err
	}
	o := &opened{live: map[pairOf]*running{}, hosts: map[string]string{}}
	for _, pod := range []string{"server", "sibling", "a"} {
		if o.hosts[pod], _, err = sc.IPs(ctx, pod); err != nil {
			return nil, err
		}
	}
	for _, p := range []pairOf{{"a", "server"}, {"a", "sibling"}, {"b", "server"}, {"b", "sibling"}, {"b", "a"}, {outside + "/plain", "server"}} {
		o.live[p] = sc.Begin(ctx, p.from, "hold", "--duration", promiseLimit.String(), o.address(p.to))
	}
	return o, Soon(ctx, func(ctx context.Context) error { return sc.areOpen(ctx, len(o.live), o.addresses()...) })
}

// areOpen is an error unless the proxies show as many open inbound connections
// to some addresses.
func (sc *Scene) areOpen(ctx context.Context, want int, to ...string) error {
	dumps, err := sc.Dumps(ctx)
	if err != nil {
		return err
	}
	n := 0
	for _, d := range dumps {
		for _, pod := range d.WorkloadState {
			for _, c := range pod.Connections.Inbound {
				if slices.Contains(to, c.ActualDst) {
					n++
				}
			}
		}
	}
	if n != want {
		return fmt.Errorf("the proxies show %d open connections to %s, want %d", n, strings.Join(to, ", "), want)
	}
	return nil
}

// endsOnly waits for the end of one connection, and looks at how it is told of
// and that no other has ended.
func (sc *Scene) endsOnly(ctx context.Context, open *opened, p pairOf, policy, reason string) error {
	s, err := open.live[p].End()
	if err != nil {
		return err
	}
	delete(open.live, p)
	if s.Failed == 0 {
		return fmt.Errorf("%s → %s lived on", p.from, p.to)
	}
	if err := open.liveOn(); err != nil {
		return err
	}
	source, identity := p.source(), Identity(sc.NS, p.from)
	if source != p.from {
		identity = ""
	}
	if _, err := sc.AccessUntil(ctx, sc.Began, "of a cut that names its policy", func(a stage.Access) bool {
		return a.Direction == "inbound" && a.Source == source && a.SourceIdentity == identity && a.Destination == p.to && a.Cut == "policy" &&
			a.Policy == policy && strings.Contains(a.Reason, reason) && strings.Contains(a.Error, "policy change")
	}); err != nil {
		return err
	}
	client := p.from
	if identity != "" {
		client = sc.NS + "/" + p.from
	}
	text, _, err := answered(ctx, "why", client, address(sc.NS+"/"+p.to, tcpPort))
	if err != nil || !strings.Contains(text, reason) || !strings.Contains(text, "policy change") {
		return errors.Join(err, fmt.Errorf("why does not tell of the cut:\n%s", text))
	}
	return nil
}

// endedByPolicy counts the connections between two that a policy ended after
// they had been let through.
func (sc *Scene) endedByPolicy(ctx context.Context, p pairOf) (float64, error) {
	return sc.Counted(ctx, "istio_tcp_connections_closed_total", `reporter="destination"`, `source_workload="`+p.source()+`"`, `destination_workload="`+p.to+`"`,
		`destination_workload_namespace="`+sc.NS+`"`, `response_flags="DENY"`)
}
