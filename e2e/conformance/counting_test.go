package conformance

import (
	"context"
	"crypto/rand"
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/gateway-api/conformance/utils/echo"
	"sigs.k8s.io/gateway-api/conformance/utils/suite"
)

// served is how many requests with a word in their URL the pods of a version
// say they got.
func served(ctx context.Context, s *suite.ConformanceTestSuite, version, word string) (int, error) {
	var pods corev1.PodList
	if err := s.Client.List(ctx, &pods, client.InNamespace(suite.MeshNamespace), client.MatchingLabels{"app": "echo", "version": version}); err != nil {
		return 0, err
	}
	n := 0
	for _, p := range pods.Items {
		log, err := s.Clientset.CoreV1().Pods(p.Namespace).GetLogs(p.Name, &corev1.PodLogOptions{Container: "echo"}).DoRaw(ctx)
		if err != nil {
			return 0, err
		}
		n += strings.Count(string(log), word)
	}
	return n, nil
}

// settled is served once it has not changed for a second: copies may be late.
func settled(t *testing.T, s *suite.ConformanceTestSuite, version, word string, least int) int {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	last, since := -1, time.Now()
	until(ctx, t, fmt.Sprintf("echo-%s has its requests", version), func() error {
		n, err := served(ctx, s, version, word)
		if err != nil {
			return err
		}
		if n != last {
			last, since = n, time.Now()
		}
		if n < least || time.Since(since) < time.Second {
			return fmt.Errorf("%d so far", n)
		}
		return nil
	})
	return last
}

func mirrors() suite.ConformanceTest {
	return caseOf("HTTPRouteMirrorCounts", "Copies of requests", "mirror.yaml", func(t *testing.T, s *suite.ConformanceTestSuite) {
		client := echo.ConnectToApp(t, s, echo.MeshAppEchoV1)
		t.Run("each request is copied once, and answered by the other backend", func(t *testing.T) {
			exchange{path: "/always", backend: "echo-v1"}.holds(t, client, s)
			word := rand.Text()
			if got := shares(t, client, exchange{path: "/always?" + word}, 50); got["200"] != 50 {
				t.Errorf("replies by status: %v", got)
			}
			if n := settled(t, s, "v2", word, 50); n != 50 {
				t.Errorf("50 requests gave %d copies", n)
			}
		})
		t.Run("half of the requests are", func(t *testing.T) {
			word := rand.Text()
			shares(t, client, exchange{path: "/half?" + word}, 400)
			about(t, "copied", settled(t, s, "v2", word, 1), 200, 400)
		})
		t.Run("who is slow to take a copy slows nobody", func(t *testing.T) {
			began := time.Now()
			shares(t, client, exchange{path: "/always"}, 1)
			if took := time.Since(began); took > 2*time.Second {
				t.Errorf("a request took %s", took)
			}
		})
	})
}

// retries are of the experimental channel; on the other one the API server
// drops the manifest's field.
func retries() suite.ConformanceTest {
	return caseOf("HTTPRouteRetryCounts", "Requests that are tried again", "retry.yaml", func(t *testing.T, s *suite.ConformanceTestSuite) {
		client := echo.ConnectToApp(t, s, echo.MeshAppEchoV1)
		exchange{path: "/retry", backend: "echo-v1"}.holds(t, client, s)
		for _, tt := range []struct {
			it, query string
			status    string
			tries     int
		}{
			{"a status that is named is tried again, as often as said", "status=503", "503", 3},
			{"another one is not", "status=501", "501", 1},
		} {
			t.Run(tt.it, func(t *testing.T) {
				word := rand.Text()
				if got := shares(t, client, exchange{path: "/retry?" + tt.query + "&" + word}, 1); got[tt.status] != 1 {
					t.Errorf("replies by status: %v", got)
				}
				if n := settled(t, s, "v1", word, tt.tries); n != tt.tries {
					t.Errorf("the backend got %d requests, want %d", n, tt.tries)
				}
			})
		}
	})
}

// budgets are of the experimental channel. Without one, 200 requests that fail
// would be 600 at the backend; a fifth of them may be tried again, and ten a
// second in any case.
func budgets() suite.ConformanceTest {
	return caseOf("RetryBudget", "How many requests may be tried again", "budget.yaml", func(t *testing.T, s *suite.ConformanceTestSuite) {
		client := echo.ConnectToApp(t, s, echo.MeshAppEchoV1)
		exchange{path: "/", backend: "echo-v1"}.holds(t, client, s)
		word := rand.Text()
		began := time.Now()
		if got := shares(t, client, exchange{path: "/?status=503&" + word}, 200); got["503"] != 200 {
			t.Errorf("replies by status: %v", got)
		}
		took := time.Since(began)
		most := 200 + 40 + 10*int(1+took.Seconds()) + 20 // and the requests that were open when the budget was spent
		if n := settled(t, s, "v1", word, 200); n <= 200 || n > most {
			t.Errorf("in %s the backend got %d requests, want more than 200 and at most %d", took, n, most)
		}
	})
}

// sessions are of the experimental channel.
func sessions() suite.ConformanceTest {
	return caseOf("HTTPRouteSession", "A session stays where it began", "session.yaml", func(t *testing.T, s *suite.ConformanceTestSuite) {
		client := echo.ConnectToApp(t, s, echo.MeshAppEchoV1)
		exchange{path: "/"}.holds(t, client, s)
		for range 4 {
			_, first, err := client.CaptureRequestResponseAndCompare(t, exchange{path: "/"}.expect())
			if err != nil {
				t.Fatal(err)
			}
			cookie, _, _ := strings.Cut(first.ResponseHeaders.Get("Set-Cookie"), ";")
			if !strings.HasPrefix(cookie, "table=") {
				t.Fatalf("the reply has no cookie but %v", first.ResponseHeaders)
			}
			again := exchange{path: "/", headers: map[string]string{"Cookie": cookie}}
			replies, err := client.RequestBatch(t, again.expect(), 20)
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range replies {
				if r.Hostname != first.Hostname {
					t.Fatalf("a session of %s came to %s", first.Hostname, r.Hostname)
				}
			}
		}
	})
}
