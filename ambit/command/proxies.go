package command

import (
	"context"
	"errors"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/ambit-mesh/ambit/ambit/ask"
	"github.com/ambit-mesh/ambit/ambit/reach"
	"github.com/ambit-mesh/ambit/manifests"
)

// The labels by which the parts of a mesh are found.
const (
	istiodLabel   = "app=istiod"
	ztunnelLabel  = "app=ztunnel"
	waypointLabel = "gateway.istio.io/managed=istio.io-mesh-controller"
)

// pagesPort is where istiod answers those who come through a port-forward.
const pagesPort = 8080

// opener gives the way to a pod's port.
func opener(c *reach.Cluster, p *corev1.Pod, port uint16) ask.Opener {
	return func(ctx context.Context) (*reach.Door, error) { return c.Door(ctx, p.Namespace, p.Name, port) }
}

var errNoIstiod = errors.New("no istiod runs in istio-system; is the mesh installed? (ambit check)")

// replicas are the running control planes.
func replicas(ctx context.Context, c *reach.Cluster) ([]ask.Opener, error) {
	pods, err := c.RunningPods(ctx, manifests.Namespace, istiodLabel, "")
	if err != nil {
		return nil, err
	}
	if len(pods) == 0 {
		return nil, errNoIstiod
	}
	var out []ask.Opener
	for i := range pods {
		out = append(out, opener(c, &pods[i], pagesPort))
	}
	return out, nil
}

// proxyPods are the running ztunnels and waypoints.
func proxyPods(ctx context.Context, c *reach.Cluster) (ztunnels, waypoints []corev1.Pod, err error) {
	if ztunnels, err = c.RunningPods(ctx, manifests.Namespace, ztunnelLabel, ""); err != nil {
		return nil, nil, err
	}
	waypoints, err = c.RunningPods(ctx, corev1.NamespaceAll, waypointLabel, "")
	return ztunnels, waypoints, err
}

// proxies are the same as `ambit status` names them.
func proxies(ctx context.Context, c *reach.Cluster) ([]ask.Proxy, error) {
	ztunnels, waypoints, err := proxyPods(ctx, c)
	if err != nil {
		return nil, err
	}
	var out []ask.Proxy
	for _, p := range waypoints {
		out = append(out, ask.Proxy{Name: p.Namespace + "/" + p.Name, Kind: "waypoint", Node: p.Spec.NodeName, Admin: opener(c, &p, adminPort)})
	}
	for _, p := range ztunnels {
		out = append(out, ask.Proxy{Name: p.Namespace + "/" + p.Name, Kind: "ztunnel", Node: p.Spec.NodeName, Admin: opener(c, &p, adminPort)})
	}
	return out, nil
}

// silence tells of those that could not be asked.
func silence(errs []error) error {
	if len(errs) == 0 {
		return nil
	}
	var lines []string
	for _, err := range errs {
		lines = append(lines, "  "+err.Error())
	}
	return fmt.Errorf("not asked:\n%s", strings.Join(lines, "\n"))
}
