package doctor

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/ambit-mesh/ambit/ambit/reach"
	"github.com/ambit-mesh/ambit/ambit/waypoints"
)

// WaypointStatus is a waypoint, and what it says of itself.
type WaypointStatus struct {
	Namespace, Name string
	Ready           bool
	Message         string
}

// waypointBound is the condition of a Service that names a waypoint.
const waypointBound = "istio.io/WaypointBound"

func gatherWaypoints(ctx context.Context, c *reach.Cluster, f *Facts) error {
	list, err := waypoints.Client{API: c.Dynamic}.List(ctx, metav1.NamespaceAll)
	if err != nil {
		return err
	}
	for i := range list {
		if list[i].GetDeletionTimestamp() == nil {
			f.Waypoints = append(f.Waypoints, waypointStatus(&list[i]))
		}
	}
	services, err := c.Client.CoreV1().Services(metav1.NamespaceAll).List(ctx, metav1.ListOptions{})
	if err != nil {
		return fmt.Errorf("listing services: %w", err)
	}
	for i := range services.Items {
		f.Unbound = append(f.Unbound, unbound(&services.Items[i])...)
	}
	return nil
}

func waypointStatus(g *unstructured.Unstructured) WaypointStatus {
	ready, says := waypoints.Serves(g)
	if says == "" {
		says = "the control plane has said nothing about it"
	}
	return WaypointStatus{g.GetNamespace(), g.GetName(), ready, says}
}

// unbound is a service whose waypoint does not stand in front of it.
func unbound(s *corev1.Service) []PolicyStatus {
	for _, c := range s.Status.Conditions {
		if c.Type == waypointBound && c.Status == metav1.ConditionFalse {
			return []PolicyStatus{{s.Namespace, s.Name, c.Reason, c.Message}}
		}
	}
	return nil
}

func judgeWaypoints(f Facts) []Finding {
	var out []Finding
	for _, w := range f.Waypoints {
		check := "waypoint " + w.Namespace + "/" + w.Name
		if w.Ready {
			out = append(out, Finding{Level: OK, Check: check, Detail: "ready"})
		} else {
			out = append(out, Finding{Fail, check, w.Message, "kubectl -n " + w.Namespace + " describe deployment " + w.Name + "; ambit waypoint status -n " + w.Namespace})
		}
	}
	for _, s := range f.Unbound {
		out = append(out, Finding{Warn, "service " + s.Namespace + "/" + s.Name, s.Condition + ": " + s.Message, "correct the label istio.io/use-waypoint of the service or its namespace, or the waypoint"})
	}
	return out
}
