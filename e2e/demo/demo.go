// Package demo shows the main job of the mesh on a real cluster: a shop whose
// connections are in clear, a label, the same shop encrypted and authenticated,
// a policy that admits one caller and denies another, and all of it for UDP; then
// a waypoint, traffic moved from one version to another, a sick replica isolated
// and brought back, and a refusal explained. It owns the play and its table of
// checks; it refuses to set the stage (e2e/stage). Called by the demo command.
package demo

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"text/template"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ambit-mesh/ambit/e2e/stage"
)

// namespace is where the shop lives.
const namespace = "shop"

const policyName = namespace + "/db-admits-reviews"

const trustDomain = "cluster.local"

// marker is what the pods send to each other and what nobody else should read.
const marker = "MARKER-the-secret-recipe"

//go:embed shop.yaml
var shopYAML string

//go:embed policy.yaml
var policyYAML string

// edge is one caller and whom it calls, by service name.
type edge struct{ from, to string }

// edges are the shop's calls: from pod to service.
var edges = []edge{{"client", "front"}, {"front", "reviews"}, {"reviews-v1", "db"}, {"reviews-v2", "db"}}

// Play plays on a stage and prints to out. It returns an error when the play
// could not go on or when a check failed.
func Play(ctx context.Context, s *stage.Stage, out io.Writer) error {
	p := &play{stage: s, out: out}
	for _, act := range []func(context.Context) error{p.deploy, p.inClear, p.label, p.encrypted, p.identities, p.policy, p.datagrams, p.undisturbed, p.waypoint, p.canary, p.breaker, p.denial} {
		if err := act(ctx); err != nil {
			p.check("the play went on to its end", err)
			break
		}
	}
	return p.table()
}

// play is the state of one play.
type play struct {
	stage    *stage.Stage
	out      io.Writer
	checks   []check
	labelled time.Time
	far      string // the node that most calls go to
}

type check struct {
	what   string
	err    error
	skip   string
	detail string
}

func (p *play) check(what string, err error) {
	p.checks = append(p.checks, check{what: what, err: err})
}

func (p *play) passed(what, format string, args ...any) {
	p.checks = append(p.checks, check{what: what, detail: fmt.Sprintf(format, args...)})
}

func (p *play) skipped(what, why string) {
	p.checks = append(p.checks, check{what: what, skip: why})
}

// deploy puts a fresh shop on two nodes, outside the mesh.
func (p *play) deploy(ctx context.Context) error {
	p.stage.Step("deploying the shop, not in the mesh yet")
	if err := p.stage.DeleteNamespace(ctx, namespace); err != nil {
		return err
	}
	if err := p.stage.NamespaceGone(ctx, namespace); err != nil {
		return err
	}
	near, far, err := twoNodes(ctx, p.stage)
	if err != nil {
		return err
	}
	p.far = far
	type pod struct{ Name, Account, Version, Node string }
	type service struct{ Name, App, Version, Waypoint string }
	docs, err := render(shopYAML, map[string]any{
		"Namespace": namespace, "Image": p.stage.Image("echo"), "Services": []service{
			{"front", "front", "", ""}, {"reviews", "reviews", "", ""}, {"reviews-v1", "reviews", "v1", ""}, {"reviews-v2", "reviews", "v2", ""},
			// Its policy is about who connects, which behind a waypoint is the waypoint.
			{"db", "db", "", "none"},
		},
		"Pods": []pod{
			{"client", "client", "v1", near}, {"front", "front", "v1", near},
			{"reviews-v1", "reviews", "v1", near}, {"reviews-v2", "reviews", "v2", far}, {"db", "db", "v1", far},
		},
	})
	if err != nil {
		return err
	}
	if err := p.stage.Apply(ctx, docs); err != nil {
		return err
	}
	if err := p.stage.PodsBecome(ctx, namespace, "ready", stage.Ready); err != nil {
		return err
	}
	// A service leads to its pods a moment after they are ready.
	return stage.Within(ctx, 30*time.Second, p.callAll)
}

// twoNodes picks the nodes of the play; a cluster of one node plays on one.
func twoNodes(ctx context.Context, s *stage.Stage) (near, far string, err error) {
	nodes, err := s.Reach.Client.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return "", "", err
	}
	var names []string
	for _, n := range nodes.Items {
		if !n.Spec.Unschedulable && len(n.Spec.Taints) == 0 {
			names = append(names, n.Labels[corev1.LabelHostname])
		}
	}
	if len(names) == 0 {
		return "", "", errors.New("no node takes pods")
	}
	return names[0], names[min(1, len(names)-1)], nil
}

// callAll makes every call of the shop once, with the marker in it.
func (p *play) callAll(ctx context.Context) error {
	for _, e := range edges {
		if err := p.call(ctx, e); err != nil {
			return err
		}
	}
	return nil
}

func (p *play) call(ctx context.Context, e edge) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	url := fmt.Sprintf("http://%s.%s/%s", e.to, namespace, marker)
	// Several connections, so that every endpoint of a service gets some.
	_, err := p.stage.Exec(ctx, namespace, e.from, "/echo", "get", "--count", "6", "--timeout", "3s", url)
	if err != nil {
		return fmt.Errorf("%s calls %s: %w", e.from, e.to, err)
	}
	return nil
}

// overheard makes every call while the link between the nodes is listened to.
func (p *play) overheard(ctx context.Context) (stage.Wire, error) {
	stop, err := p.stage.Listen(ctx, p.far, marker)
	if errors.Is(err, stage.ErrNoWire) {
		return stage.Wire{}, errors.Join(p.callAll(ctx), err)
	}
	if err != nil {
		return stage.Wire{}, err
	}
	callErr := p.callAll(ctx)
	wire, err := stop()
	return wire, errors.Join(callErr, err)
}

// inClear shows that anybody on the link can read along.
func (p *play) inClear(ctx context.Context) error {
	const what = "before the label the marker can be read on the link between the nodes"
	p.stage.Step("calling through the shop while listening on the link of %s", p.far)
	wire, err := p.overheard(ctx)
	switch {
	case errors.Is(err, stage.ErrNoWire):
		p.skipped(what, err.Error())
		return nil
	case err != nil:
		return err
	case wire.Marked == 0:
		p.check(what, fmt.Errorf("not seen in %d frames: the capture proves nothing", wire.Frames))
	default:
		p.passed(what, "%d of %d frames show it", wire.Marked, wire.Frames)
	}
	return nil
}

// label lets the namespace join the mesh.
func (p *play) label(ctx context.Context) error {
	p.stage.Step("kubectl label namespace %s istio.io/dataplane-mode=ambient", namespace)
	p.labelled = time.Now()
	if err := p.stage.Label(ctx, namespace, "istio.io/dataplane-mode", "ambient"); err != nil {
		return err
	}
	err := p.stage.PodsBecome(ctx, namespace, "captured", stage.Enrolled)
	if err == nil {
		p.passed("the label captures every running pod", "%.1f s after it was set", time.Since(p.labelled).Seconds())
	} else {
		p.check("the label captures every running pod", err)
	}
	return err
}

// encrypted shows that the same calls can no longer be read.
func (p *play) encrypted(ctx context.Context) error {
	const what = "after the label the marker cannot be read there, and the calls still work"
	p.stage.Step("making the same calls again")
	if p.stage.Cluster == nil {
		if err := p.tunnelled(ctx); err != nil {
			return err
		}
		p.skipped(what, stage.ErrNoWire.Error())
		return nil
	}
	if err := p.tunnelled(ctx); err != nil {
		p.check(what, err)
		return nil
	}
	wire, err := p.overheard(ctx)
	switch {
	case err != nil:
		p.check(what, err)
	case wire.Marked > 0:
		p.check(what, fmt.Errorf("%d of %d frames still show it", wire.Marked, wire.Frames))
	case wire.Tunnelled == 0:
		p.check(what, fmt.Errorf("no HBONE among %d frames: nothing was carried", wire.Frames))
	default:
		p.passed(what, "0 of %d frames show it; %d bytes went as HBONE (port 15008)", wire.Frames, wire.Tunnelled)
	}
	return nil
}

// tunnelled waits until the proxies have learned that every pod takes HBONE.
func (p *play) tunnelled(ctx context.Context) error {
	return stage.Within(ctx, 30*time.Second, func(ctx context.Context) error {
		since := time.Now()
		if err := p.callAll(ctx); err != nil {
			return err
		}
		_, err := p.talks(ctx, since)
		return err
	})
}

func render(text string, data any) (string, error) {
	t, err := template.New("").Option("missingkey=error").Parse(text)
	if err != nil {
		return "", err
	}
	var b bytes.Buffer
	err = t.Execute(&b, data)
	return b.String(), err
}
