//go:build e2e

package suite

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/ambit-mesh/ambit/e2e/stage"
)

// oldDomain is a name that the mesh's trust domain had, or will have.
const oldDomain = "old.example"

// TestATrustDomainsAliasMeansTheSameInPolicies: policies name accounts under
// another trust domain. A row is one with who gets through while that is an
// alias of the mesh's own; before and afterwards an ALLOW lets nobody in and a
// DENY keeps nobody out. A certificate under it counts just as long.
func TestATrustDomainsAliasMeansTheSameInPolicies(t *testing.T) {
	t.Parallel()
	onOurNodes(t)
	Hold(t, mesh, func(ctx context.Context, sc *Scene) error {
		ts, err := sc.tasks(ctx)
		if err != nil {
			return err
		}
		old := func(account string) string {
			return "from: [{source: {principals: [" + oldDomain + "/ns/" + sc.NS + "/sa/" + account + "]}}]"
		}
		rows := []struct {
			server, action, rule string
			before, with         string // who of a and b gets through
		}{
			{"allow-a", "ALLOW", old("a"), "- -", "a -"},
			{"allow-all-of-it", "ALLOW", "from: [{source: {principals: ['" + oldDomain + "/*']}}]", "- -", "a b"},
			{"allow-domain", "ALLOW", "from: [{source: {trustDomains: [" + oldDomain + "]}}]", "- -", "a b"},
			{"allow-others", "ALLOW", "from: [{source: {principals: [third.example/ns/" + sc.NS + "/sa/a]}}]", "- -", "- -"},
			{"deny-b", "DENY", old("b"), "a b", "a -"},
			{"deny-not-a", "DENY", "from: [{source: {notPrincipals: [" + oldDomain + "/ns/" + sc.NS + "/sa/a]}}]", "- -", "a -"},
		}
		var pods []Pod
		for i, r := range rows {
			doc := strings.Replace(sc.authz(r.server, "  action: "+r.action+"\n  rules: [{"+r.rule+"}]\n"), "app: server", "app: "+r.server, 1)
			if err := sc.Apply(ctx, doc); err != nil {
				return fmt.Errorf("%s: %w", r.server, err)
			}
			pods = append(pods, Pod{Name: r.server, Node: 1 + i%2})
		}
		// At a waypoint, the same by a request.
		if err := errors.Join(sc.Apply(ctx, ts.guard("a-by-alias", "  action: ALLOW\n  rules: [{"+old("a")+"}]\n")), sc.Start(ctx, pods...)); err != nil {
			return err
		}
		var before, with []behaviour
		for _, r := range rows {
			host, _, err := sc.IPs(ctx, r.server)
			if err != nil {
				return err
			}
			for i, client := range []string{"a", "b"} {
				tries := sc.tries(client, host, httpPort)
				before = append(before, behaviour{r.server + " from " + client, tries, reached(r.before, i)})
				with = append(with, behaviour{r.server + " from " + client + " under the alias", tries, reached(r.with, i)})
			}
		}
		web := func(client, status string) behaviour {
			return behaviour{"the waypoint to " + client, ts.status(client), status}
		}
		before, with = append(before, web("a", "403"), web("b", "403")), append(with, web("a", "200"), web("b", "403"))
		host, _, err := sc.IPs(ctx, "allow-a")
		if err != nil {
			return err
		}
		if err := errors.Join(look(ctx, before), sc.knocksAs(ctx, host, false)); err != nil {
			return fmt.Errorf("before there is an alias: %w", err)
		}
		end, err := sc.setting(ctx, "trustDomainAliases: ["+oldDomain+"]")
		if err != nil {
			return err
		}
		if err := errors.Join(look(ctx, with), sc.knocksAs(ctx, host, true)); err != nil {
			return err
		}
		held := sc.Begin(ctx, "a", "hold", "--duration", "60s", "--timeout", "3s", address(host, tcpPort))
		if err := errors.Join(sc.steady(ctx, []*running{held}, time.Second), end(ctx)); err != nil {
			return err
		}
		if s, err := held.End(); err != nil || s.Failed == 0 {
			return errors.Join(err, errors.New("a connection that only the alias allowed lived on"))
		}
		if _, err := sc.AccessUntil(ctx, sc.Began, "of a connection that the end of the alias cut", func(r stage.Access) bool {
			return r.Direction == "inbound" && r.Source == "a" && r.Destination == "allow-a" && r.Cut == "policy" && strings.Contains(r.Reason, sc.NS+"/allow-a applies")
		}); err != nil {
			return err
		}
		if err := errors.Join(look(ctx, before), sc.knocksAs(ctx, host, false)); err != nil {
			return fmt.Errorf("after the alias: %w", err)
		}
		sc.Figure("policy.aliases", "%d policies at L4 and one at a waypoint, %d callers each before, under and after the alias", len(rows), len(with))
		return nil
	})
}

// reached is whether the i-th of some clients is among who gets through.
func reached(who string, i int) string {
	if strings.Fields(who)[i] == "-" {
		return fails
	}
	return "works"
}

// status is what a request to the service is answered with.
func (ts *tasks) status(client string) func(context.Context) string {
	return func(ctx context.Context) string {
		s, err := ts.Echo(ctx, client, "get", "--timeout", "5s", ts.url("/"))
		switch {
		case err != nil:
			return err.Error()
		case s.OK > 0:
			return "200"
		}
		for reason := range s.Failures {
			if code, ok := strings.CutPrefix(reason, "status "); ok {
				code, _, _ = strings.Cut(code, " ")
				return code
			}
			return reason
		}
		return fails
	}
}

// knocksAs makes a tunnel with a certificate of a under the old trust domain.
func (sc *Scene) knocksAs(ctx context.Context, host string, admitted bool) error {
	mine, err := sc.realAuthority(ctx)
	if err != nil {
		return err
	}
	now := time.Now()
	cert, err := mine.issue("spiffe://"+oldDomain+"/ns/"+sc.NS+"/sa/a", now.Add(-time.Hour), now.Add(time.Hour))
	if err != nil {
		return err
	}
	return Soon(ctx, func(ctx context.Context) error {
		return wrap("a certificate under the alias", sc.knock(ctx, address(host, 15008), []tls.Certificate{cert}, admitted))
	})
}
