package conformance

import (
	"context"
	"fmt"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	"sigs.k8s.io/gateway-api/conformance/utils/suite"
)

const (
	waypointName  = "waypoint"
	useWaypoint   = "istio.io/use-waypoint"
	waypointBound = "istio.io/WaypointBound"
	patience      = 2 * time.Minute
)

// putWaypoint makes a waypoint in the namespace of the suite's Services, as a
// user would, and names it on the namespace; it returns when every Service says
// that it is bound. Consumer routes need none of their own.
func putWaypoint(t *testing.T, c client.Client) {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	gateway := &gatewayv1.Gateway{
		ObjectMeta: metav1.ObjectMeta{Namespace: suite.MeshNamespace, Name: waypointName},
		Spec: gatewayv1.GatewaySpec{
			GatewayClassName: "istio-waypoint",
			Listeners:        []gatewayv1.Listener{{Name: "mesh", Port: 15008, Protocol: "HBONE"}},
		},
	}
	if err := c.Create(ctx, gateway); err != nil {
		t.Fatal("making the waypoint: ", err)
	}
	until(ctx, t, "the waypoint is programmed", func() error { return programmed(ctx, c) })
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: suite.MeshNamespace}}
	patch := client.RawPatch("application/merge-patch+json", fmt.Appendf(nil, `{"metadata":{"labels":{%q:%q}}}`, useWaypoint, waypointName))
	if err := c.Patch(ctx, ns, patch); err != nil {
		t.Fatal("naming the waypoint: ", err)
	}
	until(ctx, t, "every Service is bound", func() error { return bound(ctx, c) })
}

func programmed(ctx context.Context, c client.Client) error {
	gateway := &gatewayv1.Gateway{}
	if err := c.Get(ctx, client.ObjectKey{Namespace: suite.MeshNamespace, Name: waypointName}, gateway); err != nil {
		return err
	}
	if !meta.IsStatusConditionTrue(gateway.Status.Conditions, string(gatewayv1.GatewayConditionProgrammed)) {
		return fmt.Errorf("its conditions are %+v", gateway.Status.Conditions)
	}
	return nil
}

func bound(ctx context.Context, c client.Client) error {
	var services corev1.ServiceList
	if err := c.List(ctx, &services, client.InNamespace(suite.MeshNamespace)); err != nil {
		return err
	}
	for _, s := range services.Items {
		if s.Labels["gateway.networking.k8s.io/gateway-name"] != "" {
			continue // the waypoint's own
		}
		if !meta.IsStatusConditionTrue(s.Status.Conditions, waypointBound) {
			return fmt.Errorf("the conditions of Service %s are %+v", s.Name, s.Status.Conditions)
		}
	}
	return nil
}

// until polls f until it returns nil, and fails the test with what it said last.
func until(ctx context.Context, t *testing.T, what string, f func() error) {
	t.Helper()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		err := f()
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("waiting until %s: %v", what, err)
		case <-tick.C:
		}
	}
}
