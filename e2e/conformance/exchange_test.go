package conformance

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"sigs.k8s.io/gateway-api/conformance/utils/echo"
	"sigs.k8s.io/gateway-api/conformance/utils/http"
	"sigs.k8s.io/gateway-api/conformance/utils/suite"
)

// exchange is a request and what must be seen of it at both ends. What is empty
// is not looked at.
type exchange struct {
	it string
	// What the client asks. Method is GET and host echo if empty.
	method, host, path string
	headers            map[string]string
	// What it gets. Status is 200 if 0.
	status   int
	location string
	gets     map[string]string
	lacks    []string
	// What the backend sees.
	backend, url, sees string
	arrives            map[string]string
	absent             []string
	protocol           string
}

// expect is the exchange in the suite's words, as far as it has words.
func (e exchange) expect() http.ExpectedResponse {
	status := e.status
	if status == 0 {
		status = 200
	}
	return http.ExpectedResponse{
		Request:         http.Request{Method: e.method, Host: e.host, Path: e.path, Headers: e.headers, Protocol: e.protocol},
		ExpectedRequest: &http.ExpectedRequest{Request: http.Request{Headers: e.arrives}, AbsentHeaders: e.absent},
		Response:        http.Response{StatusCodes: []int{status}, Headers: e.gets, AbsentHeaders: e.lacks},
		Backend:         e.backend,
		Namespace:       suite.MeshNamespace,
	}
}

// rest compares what the suite does not.
func (e exchange) rest(got echo.Response) error {
	for _, c := range []struct{ what, want, got string }{
		{"Location", e.location, got.ResponseHeaders.Get("Location")},
		{"the URL at the backend", e.url, got.URL},
		{"the host at the backend", e.sees, got.Host},
	} {
		if c.want != "" && c.want != c.got {
			return fmt.Errorf("%s is %q, want %q", c.what, c.got, c.want)
		}
	}
	return nil
}

// holds tries until the exchange is as it must be, as often and as long as the
// suite would.
func (e exchange) holds(t *testing.T, client echo.MeshPod, s *suite.ConformanceTestSuite) {
	t.Helper()
	http.AwaitConvergence(t, s.TimeoutConfig.RequiredConsecutiveSuccesses, s.TimeoutConfig.MaxTimeToConsistency, func(time.Duration) bool {
		_, got, err := client.CaptureRequestResponseAndCompare(t, e.expect())
		if err != nil {
			return false
		}
		if err := e.rest(got); err != nil {
			t.Logf("not yet: %v", err)
			return false
		}
		return true
	})
}

// exchanges are held by one client, each as a part of the test.
func exchanges(list ...exchange) func(*testing.T, *suite.ConformanceTestSuite) {
	return func(t *testing.T, s *suite.ConformanceTestSuite) {
		client := echo.ConnectToApp(t, s, echo.MeshAppEchoV1)
		for _, e := range list {
			t.Run(e.it, func(t *testing.T) { e.holds(t, client, s) })
		}
	}
}

// shares makes many requests and says how many replies had each status.
func shares(t *testing.T, client echo.MeshPod, e exchange, count int) map[string]int {
	t.Helper()
	replies, err := client.RequestBatch(t, e.expect(), count)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]int{}
	for _, r := range replies {
		got[strings.TrimSpace(r.Code)]++
	}
	return got
}

// about fails the test unless a count is near what is wanted of a total; four
// standard deviations of a fair coin are ten in a hundred of 400.
func about(t *testing.T, what string, got, want, total int) {
	t.Helper()
	if off := got - want; off > total/10 || off < -total/10 {
		t.Errorf("%s: %d of %d, want about %d", what, got, total, want)
	}
}
