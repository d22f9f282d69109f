package doctor

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"

	"github.com/ambit-mesh/ambit/ambit/reach"
	"github.com/ambit-mesh/ambit/internal/health"
	"github.com/ambit-mesh/ambit/manifests"
)

// Plane is what a replica of the control plane said.
type Plane struct {
	Heard
	health.ControlPlane
}

// Agent is what a node agent said.
type Agent struct {
	Heard
	health.Agent
}

// Proxy is what a node proxy or a waypoint said.
type Proxy struct {
	Heard
	// Kind is "ztunnel" or "waypoint".
	Kind string
	health.Proxy
	// Reach is whom it reaches of the other nodes; ztunnels only.
	Reach []health.Reach
}

// The ports at which the parts answer on their loopback.
const (
	planePort = 8080
	agentPort = 8000
	proxyPort = 15000
)

// The bounds of asking.
const (
	asksAtOnce = 16
	askLimit   = 15 * time.Second
)

// gatherParties asks every running part for what it knows of itself.
func gatherParties(ctx context.Context, c *reach.Cluster, f *Facts, ahead time.Duration) error {
	planes, err1 := c.RunningPods(ctx, manifests.Namespace, istiodLabel, "")
	agents, err2 := c.RunningPods(ctx, manifests.Namespace, agentLabel, "")
	ztunnels, err3 := c.RunningPods(ctx, manifests.Namespace, ztunnelLabel, "")
	waypoints, err4 := c.RunningPods(ctx, corev1.NamespaceAll, waypointLabel, "")
	f.Planes, f.Agents, f.Proxies = make([]Plane, len(planes)), make([]Agent, len(agents)), make([]Proxy, len(ztunnels)+len(waypoints))
	q := &asking{c: c, ahead: ahead}
	q.g.SetLimit(asksAtOnce)
	for i := range planes {
		p := &f.Planes[i]
		q.ask(ctx, &planes[i], planePort, &p.Heard, &p.ControlPlane, &p.ControlPlane.Now, nil)
	}
	for i := range agents {
		a := &f.Agents[i]
		q.ask(ctx, &agents[i], agentPort, &a.Heard, &a.Agent, &a.Agent.Now, nil)
	}
	for i := range ztunnels {
		p := &f.Proxies[i]
		p.Kind = "ztunnel"
		q.ask(ctx, &ztunnels[i], proxyPort, &p.Heard, &p.Proxy, &p.Proxy.Now, &p.Reach)
	}
	for i := range waypoints {
		p := &f.Proxies[len(ztunnels)+i]
		p.Kind = "waypoint"
		q.ask(ctx, &waypoints[i], proxyPort, &p.Heard, &p.Proxy, &p.Proxy.Now, nil)
	}
	_ = q.g.Wait() // each error is in its Heard
	return errors.Join(err1, err2, err3, err4)
}

// asking is all questions under way.
type asking struct {
	c     *reach.Cluster
	ahead time.Duration
	g     errgroup.Group
}

// ask has a pod fill in said and, if wanted, whom it reaches.
func (q *asking) ask(ctx context.Context, pod *corev1.Pod, port uint16, h *Heard, said any, now *time.Time, reached *[]health.Reach) {
	*h = Heard{Pod: pod.Namespace + "/" + pod.Name, Node: pod.Spec.NodeName}
	q.g.Go(func() error {
		ctx, cancel := context.WithTimeoutCause(ctx, askLimit, fmt.Errorf("no answer within %s", askLimit))
		defer cancel()
		d, err := q.c.Door(ctx, pod.Namespace, pod.Name, port)
		if err != nil {
			h.Why = err.Error()
			return nil
		}
		defer d.Close()
		began := time.Now()
		if err := d.GetJSON(ctx, health.Path, said); err != nil {
			h.Why = why(err)
			return nil
		}
		took := time.Since(began)
		h.Off, h.Doubt = now.Sub(began.Add(took/2))-q.ahead, took/2+time.Second
		if reached != nil {
			if err := d.Post(ctx, health.ReachPath, struct{}{}, reached); err != nil {
				h.Why = why(err)
			}
		}
		return nil
	})
}

// why tells an older version from one that is broken.
func why(err error) string {
	if status, ok := errors.AsType[*reach.StatusError](err); ok && status.Status == http.StatusNotFound {
		return "its version does not tell how it is"
	}
	return err.Error()
}
