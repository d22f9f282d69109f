package conformance

import (
	"fmt"
	"strconv"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	"sigs.k8s.io/gateway-api/conformance/utils/echo"
	"sigs.k8s.io/gateway-api/conformance/utils/suite"
)

// live is how long a change may take to be seen by requests.
const live = time.Second

const changing = "beyond-changes"

func changes() suite.ConformanceTest {
	return caseOf("RouteChanges", "A change is live soon, and the status follows", "changes.yaml", func(t *testing.T, s *suite.ConformanceTestSuite) {
		pod := echo.ConnectToApp(t, s, echo.MeshAppEchoV1)
		turn := func(n int) exchange {
			return exchange{path: "/", backend: "echo-v1", gets: map[string]string{"X-Turn": strconv.Itoa(n)}}
		}
		turn(0).holds(t, pod, s)
		for n := 1; n <= 5; n++ {
			t.Run(fmt.Sprintf("change %d", n), func(t *testing.T) {
				patchRoute(t, s, fmt.Sprintf(`[{"op": "replace", "path": "/spec/rules/0/filters/0/responseHeaderModifier/set/0/value", "value": "%d"}]`, n))
				began := time.Now()
				turn(n).once(t, pod)
				if took := time.Since(began); took > live {
					t.Errorf("it took %s", took)
				} else {
					t.Logf("it took %s", took.Round(time.Millisecond))
				}
				says{"", changing, gatewayv1.RouteConditionAccepted, metav1.ConditionTrue, "Accepted"}.holds(t, s)
			})
		}
		t.Run("another parent", func(t *testing.T) {
			patchRoute(t, s, `[{"op": "replace", "path": "/spec/parentRefs/0/name", "value": "echo-v1"}]`)
			exchange{path: "/", lacks: []string{"X-Turn"}}.holds(t, pod, s)
			exchange{host: "echo-v1", path: "/", gets: map[string]string{"X-Turn": "5"}}.holds(t, pod, s)
			// The status has one parent, and it is this one.
			says{"", changing, gatewayv1.RouteConditionAccepted, metav1.ConditionTrue, "Accepted"}.holds(t, s)
		})
		t.Run("no route", func(t *testing.T) {
			route := &gatewayv1.HTTPRoute{ObjectMeta: metav1.ObjectMeta{Namespace: suite.MeshNamespace, Name: changing}}
			if err := s.Client.Delete(t.Context(), route); err != nil {
				t.Fatal(err)
			}
			exchange{host: "echo-v1", path: "/", lacks: []string{"X-Turn"}}.holds(t, pod, s)
		})
	})
}

func patchRoute(t *testing.T, s *suite.ConformanceTestSuite, patch string) {
	t.Helper()
	route := &gatewayv1.HTTPRoute{ObjectMeta: metav1.ObjectMeta{Namespace: suite.MeshNamespace, Name: changing}}
	if err := s.Client.Patch(t.Context(), route, client.RawPatch("application/json-patch+json", []byte(patch))); err != nil {
		t.Fatal("changing the route: ", err)
	}
}

// once tries without a pause until the exchange is as it must be for the first
// time.
func (e exchange) once(t *testing.T, pod echo.MeshPod) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); ; {
		_, got, err := pod.CaptureRequestResponseAndCompare(t, e.expect())
		if err == nil {
			err = e.rest(got)
		}
		if err == nil {
			return
		}
		if time.Now().After(end) {
			t.Fatal(err)
		}
	}
}
