package match

import (
	"testing"
	"time"

	"github.com/ambit-mesh/ambit/internal/mesh"
)

func TestRetries(t *testing.T) {
	codes := &mesh.Retry{Attempts: 2, Codes: []int{500, 503, 504}}
	none := &mesh.Retry{Codes: []int{503}}
	for _, tt := range []struct {
		sentence string
		retry    *mesh.Retry
		tries    int
		status   int
		failure  Failure
		want     bool
	}{
		{"a listed status", codes, 1, 503, FailureNone, true},
		{"attempts are in addition to the first", codes, 2, 503, FailureNone, true},
		{"after the attempts it is over", codes, 3, 503, FailureNone, false},
		{"another status", codes, 1, 502, FailureNone, false},
		{"success", codes, 1, 200, FailureNone, false},
		{"what was not sent is tried again", codes, 1, 0, FailureUnsent, true},
		{"what was not sent is tried again as often", codes, 3, 0, FailureUnsent, false},
		{"a try that timed out, with 504 listed", codes, 1, 0, FailureTimeout, true},
		{"a broken connection, without 502 listed", codes, 1, 0, FailureBroken, false},
		{"a broken connection, with 502 listed", &mesh.Retry{Attempts: 1, Codes: []int{502}}, 1, 0, FailureBroken, true},
		{"a try that timed out, without 504 listed", &mesh.Retry{Attempts: 1, Codes: []int{502}}, 1, 0, FailureTimeout, false},
		{"attempts of 0 are none", none, 1, 503, FailureNone, false},
		{"attempts of 0 are none even unsent", none, 1, 0, FailureUnsent, false},
		{"without a word, what was not sent is tried again", nil, 2, 0, FailureUnsent, true},
		{"without a word, three tries are enough", nil, 3, 0, FailureUnsent, false},
		{"without a word, no status is retried", nil, 1, 503, FailureNone, false},
		{"without a word, what may have been processed is not retried", nil, 1, 0, FailureBroken, false},
		{"without a word, nor what timed out", nil, 1, 0, FailureTimeout, false},
	} {
		q := &Request{Path: "/"}
		r := decided(t, mesh.RouteRule{Retry: tt.retry}, q).Retries()
		if got := Again(r, tt.tries, tt.status, tt.failure); got != tt.want {
			t.Errorf("%s: %v, want %v", tt.sentence, got, tt.want)
		}
	}
	if (Decision{}).Retries() != &defaultRetry {
		t.Error("a request without a route has no retries by default")
	}
}

func TestPausesBetweenRetries(t *testing.T) {
	lowest, highest := func(int) int { return 0 }, func(n int) int { return n - 1 }
	for _, tt := range []struct {
		sentence     string
		backoff      time.Duration
		tries        int
		least, most_ time.Duration
	}{
		{"the default", 0, 1, 25 * time.Millisecond, 50 * time.Millisecond},
		{"the author's", 100 * time.Millisecond, 1, 100 * time.Millisecond, 200 * time.Millisecond},
		{"it doubles", 100 * time.Millisecond, 2, 100 * time.Millisecond, 400 * time.Millisecond},
		{"and again", 100 * time.Millisecond, 3, 100 * time.Millisecond, 800 * time.Millisecond},
		{"up to ten times", 100 * time.Millisecond, 4, 100 * time.Millisecond, time.Second},
		{"for ever", 100 * time.Millisecond, 1 << 40, 100 * time.Millisecond, time.Second},
	} {
		r := &mesh.Retry{Backoff: tt.backoff}
		if got := Backoff(r, tt.tries, lowest); got != tt.least {
			t.Errorf("%s: at least %v, want %v", tt.sentence, got, tt.least)
		}
		if got := Backoff(r, tt.tries, highest); got != tt.most_ {
			t.Errorf("%s: at most %v, want %v", tt.sentence, got, tt.most_)
		}
	}
}

func TestTimeouts(t *testing.T) {
	for _, tt := range []struct {
		sentence           string
		request, backend   time.Duration
		grpc               string
		wantWhole, wantTry time.Duration
	}{
		{"none", 0, 0, "", 0, 0},
		{"of the whole exchange bounds tries too", time.Second, 0, "", time.Second, time.Second},
		{"of a try", 0, time.Second, "", 0, time.Second},
		{"both", 3 * time.Second, time.Second, "", 3 * time.Second, time.Second},
		{"a try never takes longer than the whole", time.Second, 3 * time.Second, "", time.Second, time.Second},
		{"a client's deadline", 0, 0, "500m", 500 * time.Millisecond, 500 * time.Millisecond},
		{"a client's shorter deadline", time.Second, 0, "500000u", 500 * time.Millisecond, 500 * time.Millisecond},
		{"a client's longer deadline", time.Second, 0, "2S", time.Second, time.Second},
		{"a deadline that has passed", 0, 0, "0S", 1, 1},
		{"the longest deadline", 0, 0, "99999999H", 1<<63 - 1, 1<<63 - 1},
		{"a deadline without a unit", 0, 0, "12", 0, 0},
		{"a deadline with nine digits", 0, 0, "123456789S", 0, 0},
		{"a negative deadline", 0, 0, "-1S", 0, 0},
	} {
		q := &Request{Path: "/"}
		if tt.grpc != "" {
			q.Header = header("Grpc-Timeout", tt.grpc)
		}
		whole, try := decided(t, mesh.RouteRule{RequestTimeout: tt.request, BackendTimeout: tt.backend}, q).Timeouts(q)
		if whole != tt.wantWhole || try != tt.wantTry {
			t.Errorf("%s: %v and %v, want %v and %v", tt.sentence, whole, try, tt.wantWhole, tt.wantTry)
		}
	}
}

func TestMirrorDice(t *testing.T) {
	backend := mesh.Backend{Service: service("echo-v2"), Port: 80}
	for _, tt := range []struct {
		sentence string
		mirror   mesh.Mirror
		want     int // of 1000 throws
	}{
		{"without a share all", mesh.Mirror{Backend: backend}, 1000},
		{"half", mesh.Mirror{Backend: backend, Numerator: 50, Denominator: 100}, 500},
		{"one of a thousand", mesh.Mirror{Backend: backend, Numerator: 1, Denominator: 1000}, 1},
		{"none", mesh.Mirror{Backend: backend, Denominator: 100}, 0},
		{"all", mesh.Mirror{Backend: backend, Numerator: 100, Denominator: 100}, 1000},
		{"never to an invalid one", mesh.Mirror{Backend: mesh.Backend{Invalid: "gone"}}, 0},
		{"a share of nothing is none", mesh.Mirror{Backend: backend, Numerator: 1}, 0},
	} {
		got := 0
		for i := range 1000 {
			if Mirrored(&tt.mirror, func(n int) int { return i % n }) {
				got++
			}
		}
		if got != tt.want {
			t.Errorf("%s: %d of 1000, want %d", tt.sentence, got, tt.want)
		}
	}
}

func TestErrorsOfGRPC(t *testing.T) {
	for status, want := range map[int]int{
		400: 13, 401: 16, 403: 7, 404: 12, 413: 8, 418: 2, 429: 14, 500: 14, 502: 14, 503: 14, 504: 4,
	} {
		if got := GRPCStatus(status); got != want {
			t.Errorf("status %d is code %d, want %d", status, got, want)
		}
	}
}
