//go:build e2e

package suite

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/ambit-mesh/ambit/e2e/stage"
)

var (
	serviceKind = schema.GroupVersionResource{Version: "v1", Resource: "services"}
	gatewayKind = schema.GroupVersionResource{Group: "gateway.networking.k8s.io", Version: "v1", Resource: "gateways"}
)

// TestAWaypointIsMadeKeptAndRemoved: by one command, of which everything else
// follows; what somebody changes is put back; what was made goes with the Gateway.
func TestAWaypointIsMadeKeptAndRemoved(t *testing.T) {
	t.Parallel()
	Hold(t, mesh, func(ctx context.Context, sc *Scene) error {
		if err := sc.behindAWaypoint(ctx); err != nil {
			return err
		}
		if err := sc.condition(ctx, serviceKind, "server", "istio.io/WaypointBound", "passes waypoint "+sc.NS+"/waypoint"); err != nil {
			return err
		}
		out, err := ambit(ctx, "waypoint", "status", "-n", sc.NS)
		if err != nil {
			return fmt.Errorf("%s: %w", out, err)
		}
		service := sc.Reach.Client.CoreV1().Services(sc.NS)
		if _, err := service.Patch(ctx, "waypoint", types.MergePatchType, []byte(`{"spec":{"selector":{"gateway.networking.k8s.io/gateway-name":"nobody"}}}`), metav1.PatchOptions{}); err != nil {
			return err
		}
		if err := Soon(ctx, func(ctx context.Context) error {
			s, err := service.Get(ctx, "waypoint", metav1.GetOptions{})
			if err == nil && s.Spec.Selector["gateway.networking.k8s.io/gateway-name"] != "waypoint" {
				err = fmt.Errorf("the Service's selector is still %v", s.Spec.Selector)
			}
			return err
		}); err != nil {
			return err
		}
		if err := sc.Label(ctx, sc.NS, "istio.io/use-waypoint", ""); err != nil {
			return err
		}
		if out, err = ambit(ctx, "waypoint", "delete", "waypoint", "-n", sc.NS); err != nil {
			return fmt.Errorf("%s: %w", out, err)
		}
		return stage.Within(ctx, time.Minute, sc.nothingOfTheWaypoint)
	})
}

// nothingOfTheWaypoint is an error while something is left of it.
func (sc *Scene) nothingOfTheWaypoint(ctx context.Context) error {
	_, err1 := sc.Reach.Client.AppsV1().Deployments(sc.NS).Get(ctx, "waypoint", metav1.GetOptions{})
	_, err2 := sc.Reach.Client.CoreV1().Services(sc.NS).Get(ctx, "waypoint", metav1.GetOptions{})
	_, err3 := sc.Reach.Client.CoreV1().ServiceAccounts(sc.NS).Get(ctx, "waypoint", metav1.GetOptions{})
	for what, err := range map[string]error{"Deployment": err1, "Service": err2, "ServiceAccount": err3} {
		if !apierrors.IsNotFound(err) {
			return fmt.Errorf("%s waypoint is still there (%w)", what, err)
		}
	}
	return nil
}

// behindAWaypoint is a client and a service in the mesh whose namespace uses a
// ready waypoint.
func (sc *Scene) behindAWaypoint(ctx context.Context) error {
	if _, err := sc.inMesh(ctx, true); err != nil {
		return err
	}
	if err := sc.Service(ctx, "server", "server"); err != nil {
		return err
	}
	if out, err := ambit(ctx, "waypoint", "apply", "-n", sc.NS, "--enroll-namespace", "--wait"); err != nil {
		return fmt.Errorf("%s: %w", out, err)
	}
	return Soon(ctx, func(ctx context.Context) error {
		return sc.Works(ctx, "client", "get", "--count", "5", url("server."+sc.NS, 80))
	})
}

// TestAConnectionWaitsForItsWaypoint: one that is made before the waypoint is
// there succeeds once it is; one whose waypoint never comes fails after ten
// seconds, not at once, and the service says why.
func TestAConnectionWaitsForItsWaypoint(t *testing.T) {
	t.Parallel()
	Hold(t, mesh, func(ctx context.Context, sc *Scene) error {
		if _, err := sc.inMesh(ctx, true); err != nil {
			return err
		}
		if err := sc.Service(ctx, "server", "server"); err != nil {
			return err
		}
		if err := sc.Label(ctx, sc.NS, "istio.io/use-waypoint", "waypoint"); err != nil {
			return err
		}
		if err := sc.condition(ctx, serviceKind, "server", "istio.io/WaypointBound", "Waypoint "+sc.NS+"/waypoint is not there"); err != nil {
			return err
		}
		target := url("server."+sc.NS, 80)
		began := time.Now()
		if err := sc.Fails(ctx, "client", "get", "--timeout", "30s", target); err != nil {
			return err
		}
		if took := time.Since(began); took < 9*time.Second || took > 20*time.Second {
			return fmt.Errorf("it failed after %s, want about 10 s", took)
		}
		if out, err := ambit(ctx, "waypoint", "apply", "-n", sc.NS, "--wait"); err != nil {
			return fmt.Errorf("%s: %w", out, err)
		}
		return Soon(ctx, func(ctx context.Context) error { return sc.Works(ctx, "client", "get", target) })
	})
}

// TestWaypointsComeGrowAndGoUnderLoadWithoutLoss: 200 requests a second, each on
// its own connection, while a waypoint is put in front of the service, scaled to
// three pods and back, restarted, and taken away again.
func TestWaypointsComeGrowAndGoUnderLoadWithoutLoss(t *testing.T) {
	Hold(t, mesh, func(ctx context.Context, sc *Scene) error {
		if _, err := sc.inMesh(ctx, true); err != nil {
			return err
		}
		if err := sc.Service(ctx, "server", "server"); err != nil {
			return err
		}
		target := url("server."+sc.NS, 80)
		if err := Soon(ctx, func(ctx context.Context) error { return sc.Works(ctx, "client", "get", target) }); err != nil {
			return err
		}
		// The waypoint is there before the service names it, as a careful user does;
		// that connections wait for one that is not is another test's promise.
		if out, err := ambit(ctx, "waypoint", "apply", "-n", sc.NS, "--wait"); err != nil {
			return fmt.Errorf("%s: %w", out, err)
		}
		load := []*running{
			sc.Begin(ctx, "client", "load", "--rate", "150", "--duration", "90s", target),
			sc.Begin(ctx, "client", "load", "--rate", "50", "--keepalive", "--duration", "90s", target),
		}
		began := time.Now()
		for _, step := range []struct {
			what string
			do   func(context.Context) error
		}{
			{"added", func(ctx context.Context) error { return sc.Label(ctx, sc.NS, "istio.io/use-waypoint", "waypoint") }},
			{"scaled up", func(ctx context.Context) error { return sc.scaleWaypoint(ctx, 3) }},
			{"restarted", sc.restartWaypoint},
			{"scaled down", func(ctx context.Context) error { return sc.scaleWaypoint(ctx, 1) }},
			{"removed", func(ctx context.Context) error { return sc.Label(ctx, sc.NS, "istio.io/use-waypoint", "") }},
		} {
			if err := step.do(ctx); err != nil {
				return fmt.Errorf("%s: %w", step.what, err)
			}
			if err := sc.steady(ctx, load, 3*time.Second); err != nil {
				return fmt.Errorf("after it was %s (%s after the beginning): %w", step.what, time.Since(began), err)
			}
		}
		var err error
		for _, l := range load {
			err = errors.Join(err, l.EndOK())
		}
		return err
	})
}

// scaleWaypoint waits until so many pods of the waypoint are there, all ready.
func (sc *Scene) scaleWaypoint(ctx context.Context, replicas int) error {
	patch := fmt.Appendf(nil, `{"spec":{"replicas":%d}}`, replicas)
	if _, err := sc.Reach.Client.AppsV1().Deployments(sc.NS).Patch(ctx, "waypoint", types.MergePatchType, patch, metav1.PatchOptions{}); err != nil {
		return err
	}
	return sc.waypointPods(ctx, replicas, func(string) bool { return true })
}

// restartWaypoint replaces every pod, and waits until that is done.
func (sc *Scene) restartWaypoint(ctx context.Context) error {
	before, err := sc.Pods(ctx, sc.NS, "gateway.networking.k8s.io/gateway-name=waypoint")
	if err != nil {
		return err
	}
	old := map[string]bool{}
	for _, p := range before {
		old[p.Name] = true
	}
	patch := fmt.Appendf(nil, `{"spec":{"template":{"metadata":{"annotations":{"kubectl.kubernetes.io/restartedAt":%q}}}}}`, time.Now().Format(time.RFC3339))
	if _, err := sc.Reach.Client.AppsV1().Deployments(sc.NS).Patch(ctx, "waypoint", types.MergePatchType, patch, metav1.PatchOptions{}); err != nil {
		return err
	}
	return sc.waypointPods(ctx, len(before), func(name string) bool { return !old[name] })
}

func (sc *Scene) waypointPods(ctx context.Context, want int, counts func(name string) bool) error {
	return stage.Within(ctx, 2*time.Minute, func(ctx context.Context) error {
		pods, err := sc.Pods(ctx, sc.NS, "gateway.networking.k8s.io/gateway-name=waypoint")
		if err != nil {
			return err
		}
		ready := 0
		for i := range pods {
			if stage.Ready(&pods[i]) && counts(pods[i].Name) {
				ready++
			}
		}
		if ready != want || len(pods) != want {
			return fmt.Errorf("%d of %d pods of the waypoint are as wanted, want %d", ready, len(pods), want)
		}
		return nil
	})
}

// TestTwoLabelsAreEnough: a namespace that leaves its waypoint to the mesh has
// none until a route needs one; then the route works, and its status says so.
func TestTwoLabelsAreEnough(t *testing.T) {
	t.Parallel()
	Hold(t, mesh, func(ctx context.Context, sc *Scene) error {
		if _, err := sc.inMesh(ctx, true); err != nil {
			return err
		}
		if err := sc.Service(ctx, "server", "server"); err != nil {
			return err
		}
		if err := sc.Label(ctx, sc.NS, "istio.io/use-waypoint", "auto"); err != nil {
			return err
		}
		if err := sc.Start(ctx, Pod{Name: "other", Node: 2}); err != nil {
			return err
		}
		if err := sc.Service(ctx, "other", "other"); err != nil {
			return err
		}
		target := url("server."+sc.NS, 80)
		if err := Soon(ctx, func(ctx context.Context) error { return sc.Works(ctx, "client", "get", target) }); err != nil {
			return fmt.Errorf("before anything needs a waypoint: %w", err)
		}
		if _, err := sc.Reach.Dynamic.Resource(gatewayKind).Namespace(sc.NS).Get(ctx, "auto-waypoint", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
			return fmt.Errorf("a waypoint is there that nobody needs (%v)", err)
		}
		route := fmt.Sprintf(`apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: elsewhere, namespace: %s}
spec:
  parentRefs: [{group: "", kind: Service, name: server, port: 80}]
  rules: [{backendRefs: [{name: other, port: 80}]}]
`, sc.NS)
		if err := sc.Apply(ctx, route); err != nil {
			return err
		}
		if err := stage.Within(ctx, time.Minute, func(ctx context.Context) error {
			s, err := sc.Echo(ctx, "client", "get", "--timeout", "15s", target)
			if err == nil && s.Answered["other"] == 0 {
				err = fmt.Errorf("the route is not served: %+v", s)
			}
			return err
		}); err != nil {
			return err
		}
		return sc.condition(ctx, gatewayKind, "auto-waypoint", "Programmed", "ready")
	})
}
