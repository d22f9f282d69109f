package demo

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/ambit-mesh/ambit/e2e/stage"
)

var (
	//go:embed canary.yaml
	canaryYAML string
	//go:embed breaker.yaml
	breakerYAML string
	//go:embed deletes.yaml
	deletesYAML string
)

// waypoint gives the namespace a proxy for L7.
func (p *play) waypoint(ctx context.Context) error {
	p.stage.Step("ambit waypoint apply -n %s --enroll-namespace --wait", namespace)
	began := time.Now()
	const what = "a waypoint stands in front of the namespace's services"
	if _, err := p.stage.Ambit(ctx, "waypoint", "apply", "-n", namespace, "--enroll-namespace", "--wait"); err != nil {
		p.check(what, err)
		return err
	}
	p.passed(what, "%.1f s after it was asked for", time.Since(began).Seconds())
	return p.callAll(ctx)
}

// answers are how many each version of reviews gave.
type answers struct{ old, new, all int }

// ask makes requests to reviews, each by a connection of its own, and counts
// who answers.
func (p *play) ask(ctx context.Context, count int) (answers, error) {
	out, err := p.stage.Exec(ctx, namespace, "front", "/echo", "get", "--count", fmt.Sprint(count), "--timeout", "3s", "http://reviews."+namespace+"/")
	if err != nil {
		return answers{}, err
	}
	var s struct {
		OK       int
		Answered map[string]int
	}
	if err := json.Unmarshal([]byte(out), &s); err != nil {
		return answers{}, fmt.Errorf("reading the client's summary: %w", err)
	}
	return answers{s.Answered["reviews-v1"], s.Answered["reviews-v2"], s.OK}, nil
}

// canary moves reviews from one version to the other, and counts.
func (p *play) canary(ctx context.Context) error {
	const requests = 300
	for _, weights := range [][2]int{{90, 10}, {50, 50}, {0, 100}} {
		p.stage.Step("kubectl apply: an HTTPRoute sends %d %% of reviews to v1, %d %% to v2", weights[0], weights[1])
		docs, err := render(canaryYAML, map[string]any{"Namespace": namespace, "Old": weights[0], "New": weights[1]})
		if err != nil {
			return err
		}
		if err := p.stage.Apply(ctx, docs); err != nil {
			return err
		}
		what := fmt.Sprintf("weights %d/%d are kept", weights[0], weights[1])
		var got answers
		err = stage.Within(ctx, 30*time.Second, func(ctx context.Context) error {
			var err error
			if got, err = p.ask(ctx, requests); err != nil {
				return err
			}
			return got.near(weights)
		})
		if err != nil {
			p.check(what, err)
			continue
		}
		p.passed(what, "%d from v1, %d from v2", got.old, got.new)
	}
	return nil
}

// near says whether the shares are within five standard deviations; of a
// version without weight nothing may come.
func (a answers) near(weights [2]int) error {
	share := float64(weights[0]) / 100
	off := float64(a.old) - share*float64(a.all)
	if a.all == 0 || a.old+a.new != a.all || off*off > 25*share*(1-share)*float64(a.all) {
		return fmt.Errorf("of %d answers %d came from v1 and %d from v2", a.all, a.old, a.new)
	}
	return nil
}

// circuit is one endpoint's breaker as the waypoint tells it.
type circuit struct {
	Endpoint, State, Share string
}

// breaker breaks one replica of reviews, and draws what its circuit does.
func (p *play) breaker(ctx context.Context) error {
	const what = "a failing replica is isolated, and comes back gradually"
	p.stage.Step("one replica of reviews is made to fail while front asks 50 times a second")
	docs, err := render(breakerYAML, map[string]any{"Namespace": namespace})
	if err != nil {
		return err
	}
	route, err := render(canaryYAML, map[string]any{"Namespace": namespace, "Old": 0, "New": 100})
	if err != nil {
		return err
	}
	// Without its route, reviews is both replicas again.
	if err := errors.Join(p.stage.Delete(ctx, route), p.stage.Apply(ctx, docs)); err != nil {
		return err
	}
	load, stop := context.WithCancel(ctx)
	loaded := make(chan struct{})
	go func() { // ends with stop
		defer close(loaded)
		// Failures are the point of the act.
		_, _ = p.stage.Exec(load, namespace, "front", "/echo", "load", "--rate", "50", "--duration", "90s", "--expect", "any", "http://reviews."+namespace+"/")
	}()
	defer func() { stop(); <-loaded }()
	seen, err := p.watch(ctx)
	fmt.Fprintf(p.out, "            %s\n", strings.Join(seen, " → "))
	p.check(what, err)
	return nil
}

// watch breaks reviews-v2, mends it once its circuit is open, and returns the
// states that the circuit went through.
func (p *play) watch(ctx context.Context) (seen []string, err error) {
	if err := p.fault(ctx, "PUT", "?status=503"); err != nil {
		return nil, err
	}
	began, mended := time.Now(), false
	err = stage.Within(ctx, time.Minute, func(ctx context.Context) error {
		c, err := p.circuitOf(ctx, "reviews-v2")
		if err != nil {
			return err
		}
		word := c.State
		if c.State == "ramping" {
			word = "ramping " + c.Share
		}
		if len(seen) == 0 || !strings.HasPrefix(seen[len(seen)-1], word+" ") {
			seen = append(seen, fmt.Sprintf("%s (%.1f s)", word, time.Since(began).Seconds()))
		}
		if c.State == "open" && !mended {
			mended = true
			return errors.Join(p.fault(ctx, "DELETE", ""), errors.New("its circuit is open"))
		}
		if c.State != "closed" || !mended {
			return fmt.Errorf("its circuit is %s", c.State)
		}
		return nil
	})
	if err == nil && !slices.ContainsFunc(seen, func(s string) bool { return strings.HasPrefix(s, "ramping") }) {
		err = fmt.Errorf("it came back at once: %v", seen)
	}
	return seen, err
}

// fault tells reviews-v2 how to answer, at its own address: what is sent to a
// pod does not pass the waypoint.
func (p *play) fault(ctx context.Context, method, query string) error {
	pod, err := p.stage.Pod(ctx, namespace, "reviews-v2")
	if err != nil {
		return err
	}
	_, err = p.stage.Exec(ctx, namespace, "client", "/echo", "get", "--method", method, "--status", "204", "http://"+pod.Status.PodIP+":8080/fault"+query)
	return err
}

func (p *play) circuitOf(ctx context.Context, pod string) (circuit, error) {
	out, err := p.stage.Ambit(ctx, "waypoint", "circuits", "-n", namespace, "-o", "json")
	if err != nil {
		return circuit{}, err
	}
	var all []circuit
	if err := json.Unmarshal([]byte(out), &all); err != nil {
		return circuit{}, fmt.Errorf("reading circuits: %w", err)
	}
	for _, c := range all {
		if strings.HasSuffix(c.Endpoint, "/"+pod) {
			return c, nil
		}
	}
	return circuit{}, fmt.Errorf("no circuit of %s among %d", pod, len(all))
}

// denial refuses one method for one account, and asks why.
func (p *play) denial(ctx context.Context) error {
	p.stage.Step("kubectl apply: front may not DELETE reviews")
	docs, err := render(deletesYAML, map[string]any{"Namespace": namespace})
	if err != nil {
		return err
	}
	if err := p.stage.Apply(ctx, docs); err != nil {
		return err
	}
	const refused, explained = "DELETE is refused for front and nobody else", "`ambit why` names the policy that refused it"
	var id string
	err = stage.Within(ctx, 20*time.Second, func(ctx context.Context) error {
		var err error
		id, err = p.refusal(ctx, "front")
		return err
	})
	if err == nil {
		err = errors.Join(p.request(ctx, "front", "GET"), p.request(ctx, "client", "DELETE"))
	}
	p.check(refused, err)
	if id == "" {
		return nil
	}
	p.stage.Step("ambit why %s", id)
	story, err := p.stage.Ambit(ctx, "why", id)
	for line := range strings.Lines(story) {
		fmt.Fprintf(p.out, "            %s", line)
	}
	if err == nil && !strings.Contains(story, "reviews-keeps") {
		err = errors.New("the story does not name it")
	}
	p.check(explained, err)
	return nil
}

func (p *play) request(ctx context.Context, from, method string) error {
	_, err := p.stage.Exec(ctx, namespace, from, "/echo", "get", "--method", method, "http://reviews."+namespace+"/")
	return err
}

// refusal is the id of the decision that refuses a DELETE from a pod.
func (p *play) refusal(ctx context.Context, from string) (string, error) {
	out, err := p.stage.Exec(ctx, namespace, from, "/echo", "get", "--method", "DELETE", "--status", "403", "http://reviews."+namespace+"/")
	if err != nil {
		return "", err
	}
	var s struct{ Header map[string][]string }
	if err := json.Unmarshal([]byte(out), &s); err != nil {
		return "", fmt.Errorf("reading the client's summary: %w", err)
	}
	if ids := s.Header["X-Ambit-Decision"]; len(ids) == 1 {
		return ids[0], nil
	}
	return "", errors.New("the answer names no decision")
}
