package demo

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/ambit-mesh/ambit/e2e/stage"
)

// talk is one authenticated relation that the proxies recorded.
type talk struct{ from, to string }

// account is the service account of a pod or service of the shop.
func account(name string) string {
	short, _, _ := strings.Cut(name, "-")
	return short
}

func identity(account string) string {
	return "spiffe://" + trustDomain + "/ns/" + namespace + "/sa/" + account
}

// talks counts who talked to whom since a time, by the identities in their
// certificates, as the destinations' proxies recorded it. A relation of the
// shop that is missing is an error.
func (p *play) talks(ctx context.Context, since time.Time) (map[talk]int, error) {
	records, err := p.stage.AccessLog(ctx, since)
	if err != nil {
		return nil, err
	}
	found := map[talk]int{}
	for _, r := range records {
		if r.Direction == "inbound" && r.SourceIdentity != "" && r.Error == "" {
			found[talk{r.SourceIdentity, r.DestinationIdentity}]++
		}
	}
	for _, e := range edges {
		want := talk{identity(account(e.from)), identity(account(e.to))}
		if found[want] == 0 {
			return found, fmt.Errorf("no record of %s talking to %s among %d", want.from, want.to, len(records))
		}
	}
	return found, nil
}

// identities shows who talks to whom.
func (p *play) identities(ctx context.Context) error {
	const what = "every call is between two SPIFFE identities, proven by certificates"
	p.stage.Step("who talks to whom (from the access logs of the node proxies)")
	var found map[talk]int
	err := stage.Within(ctx, 20*time.Second, func(ctx context.Context) error {
		var err error
		found, err = p.talks(ctx, p.labelled)
		return err
	})
	w := tabwriter.NewWriter(p.out, 0, 8, 2, ' ', 0)
	shown := map[talk]bool{}
	for _, e := range edges {
		t := talk{identity(account(e.from)), identity(account(e.to))}
		if !shown[t] {
			fmt.Fprintf(w, "            %s\t→\t%s\t%d connections\n", t.from, t.to, found[t])
		}
		shown[t] = true
	}
	if flushErr := w.Flush(); flushErr != nil {
		return flushErr
	}
	if err != nil {
		p.check(what, err)
		return nil
	}
	p.passed(what, "%d relations", len(shown))
	return nil
}

// policy lets only reviews talk to db, and shows who was denied by what.
func (p *play) policy(ctx context.Context) error {
	p.stage.Step("kubectl apply: only reviews may talk to db")
	docs, err := render(policyYAML, map[string]string{"Namespace": namespace, "TrustDomain": trustDomain})
	if err != nil {
		return err
	}
	applied := time.Now()
	if err := p.stage.Apply(ctx, docs); err != nil {
		return err
	}
	const denies = "the policy denies front"
	err = stage.Within(ctx, 20*time.Second, func(ctx context.Context) error {
		if p.call(ctx, edge{"front", "db"}) == nil {
			return errors.New("front still reaches db")
		}
		return nil
	})
	if err == nil {
		p.passed(denies, "%.1f s after it was applied, with the time of the call itself", time.Since(applied).Seconds())
	} else {
		p.check(denies, err)
	}
	p.check("the policy admits reviews", errors.Join(p.call(ctx, edge{"reviews-v1", "db"}), p.call(ctx, edge{"reviews-v2", "db"})))
	for _, end := range []string{"inbound", "outbound"} {
		p.named(ctx, applied, end)
	}
	return nil
}

// named looks for the policy's name in the record of a denied connection, at
// the destination (inbound) or at the source (outbound).
func (p *play) named(ctx context.Context, since time.Time, end string) {
	side := map[string]string{"inbound": "destination", "outbound": "source"}[end]
	what := "the access log at the " + side + " names the policy"
	a, err := p.stage.AccessUntil(ctx, since, "that names "+policyName, func(a stage.Access) bool {
		return a.Direction == end && a.Error != "" && (a.Policy == policyName || strings.Contains(a.Reason, policyName))
	})
	if err != nil {
		p.check(what, err)
		return
	}
	p.passed(what, "%s → %s: %s", a.Source, a.Destination, a.Reason)
}

// undisturbed looks whether any pod had to restart for all this.
func (p *play) undisturbed(ctx context.Context) error {
	pods, err := p.stage.Pods(ctx, namespace, "")
	if err != nil {
		return err
	}
	restarts := 0
	for _, pod := range pods {
		for _, c := range pod.Status.ContainerStatuses {
			restarts += int(c.RestartCount)
		}
	}
	if restarts > 0 {
		p.check("no pod was restarted", fmt.Errorf("%d restarts", restarts))
	} else {
		p.passed("no pod was restarted", "%d pods", len(pods))
	}
	return nil
}

// table prints the checks and says whether all of them hold.
func (p *play) table() error {
	fmt.Fprintln(p.out)
	w := tabwriter.NewWriter(p.out, 0, 8, 2, ' ', 0)
	failed := 0
	for _, c := range p.checks {
		switch {
		case c.err != nil:
			failed++
			fmt.Fprintf(w, "FAIL\t%s\t%s\n", c.what, strings.ReplaceAll(c.err.Error(), "\n", "; "))
		case c.skip != "":
			fmt.Fprintf(w, "SKIP\t%s\t%s\n", c.what, c.skip)
		default:
			fmt.Fprintf(w, "PASS\t%s\t%s\n", c.what, c.detail)
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if failed > 0 {
		return fmt.Errorf("%d of %d checks failed", failed, len(p.checks))
	}
	return nil
}
