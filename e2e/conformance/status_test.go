package conformance

import (
	"context"
	"fmt"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	"sigs.k8s.io/gateway-api/conformance/utils/suite"
)

// says is what a route's status must say about its one parent.
type says struct {
	it, route string
	condition gatewayv1.RouteConditionType
	status    metav1.ConditionStatus
	reason    string
}

// holds waits until the status says so, of the generation that is there.
func (w says) holds(t *testing.T, s *suite.ConformanceTestSuite) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	until(ctx, t, fmt.Sprintf("%s is %s %s", w.condition, w.status, w.reason), func() error {
		route := &gatewayv1.HTTPRoute{}
		if err := s.Client.Get(ctx, client.ObjectKey{Namespace: suite.MeshNamespace, Name: w.route}, route); err != nil {
			return err
		}
		if n := len(route.Status.Parents); n != 1 {
			return fmt.Errorf("its status has %d parents", n)
		}
		got := meta.FindStatusCondition(route.Status.Parents[0].Conditions, string(w.condition))
		if got == nil || got.Status != w.status || got.Reason != w.reason || got.ObservedGeneration != route.Generation {
			return fmt.Errorf("generation %d: %+v", route.Generation, route.Status.Parents[0].Conditions)
		}
		return nil
	})
}

func all(list ...says) func(*testing.T, *suite.ConformanceTestSuite) {
	return func(t *testing.T, s *suite.ConformanceTestSuite) {
		for _, w := range list {
			t.Run(w.it, func(t *testing.T) { w.holds(t, s) })
		}
	}
}

func statuses() suite.ConformanceTest {
	const yes, no = metav1.ConditionTrue, metav1.ConditionFalse
	const accepted, resolved = gatewayv1.RouteConditionAccepted, gatewayv1.RouteConditionResolvedRefs
	const servedBy gatewayv1.RouteConditionType = "istio.io/ResolvedWaypoints"
	return caseOf("RouteStatus", "What a route's status says", "status.yaml", all(
		says{"all is well", "beyond-good", accepted, yes, "Accepted"},
		says{"and resolved", "beyond-good", resolved, yes, "ResolvedRefs"},
		says{"the parent does not exist", "beyond-no-parent", accepted, no, "NoMatchingParent"},
		says{"the parent has no such port", "beyond-no-port", accepted, no, "NoMatchingParent"},
		says{"a backend does not exist", "beyond-no-backend", resolved, no, "BackendNotFound"},
		says{"and the route is accepted all the same", "beyond-no-backend", accepted, yes, "Accepted"},
		says{"a backend is of an unknown kind", "beyond-odd-backend", resolved, no, "InvalidKind"},
		says{"the parent is headless", "beyond-headless-parent", accepted, no, "NoMatchingParent"},
		says{"a rule is dropped and another stays", "beyond-partial", gatewayv1.RouteConditionPartiallyInvalid, yes, "UnsupportedValue"},
		says{"and the route is accepted", "beyond-partial", accepted, yes, "Accepted"},
		says{"no rule can be read", "beyond-unreadable", accepted, no, "UnsupportedValue"},
		says{"a backend speaks what the route cannot", "beyond-odd-protocol", resolved, no, "UnsupportedProtocol"},
		says{"a waypoint serves it", "beyond-good", servedBy, yes, "WaypointAccepted"},
	))
}

func conflicts() suite.ConformanceTest {
	served := exchanges(exchange{it: "calls take the GRPCRoute", protocol: "grpc", host: "echo:7070", backend: "echo-v1"})
	said := all(says{"the HTTPRoute says that it lost", "beyond-conflict", gatewayv1.RouteConditionAccepted, metav1.ConditionFalse, "Conflicted"})
	return caseOf("RouteConflict", "Two kinds of route on one port", "conflict.yaml", func(t *testing.T, s *suite.ConformanceTestSuite) {
		served(t, s)
		said(t, s)
	})
}
