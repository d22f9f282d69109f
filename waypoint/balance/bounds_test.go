package balance

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ambit-mesh/ambit/internal/mesh"
)

// bounded picks until a bound says no, and gives the choices made.
func bounded(t *testing.T, b *Balancer, q Query, bound string) []Choice {
	t.Helper()
	var made []Choice
	for len(made) < 1000 {
		c, err := b.Pick(q)
		var over *OverflowError
		if errors.As(err, &over) && strings.HasPrefix(over.Bound, bound) {
			return made
		}
		if err != nil {
			t.Fatal(err)
		}
		made = append(made, c)
	}
	t.Fatalf("%s does not bound", bound)
	return nil
}

func TestRequestsInFlightAreBounded(t *testing.T) {
	b, q := NewBalancer(), ask(many(3))
	q.Settings.Connections.MaxRequests = 5
	made := bounded(t, b, q, "http2MaxRequests 5")
	if len(made) != 5 {
		t.Fatalf("%d requests were let in flight, want 5", len(made))
	}
	made[2].Done(Result{Status: 200})
	if made = bounded(t, b, q, "http2MaxRequests 5"); len(made) != 1 {
		t.Errorf("%d requests took the place of one that ended", len(made))
	}
}

func TestRetriesInFlightAreBounded(t *testing.T) {
	b, q := NewBalancer(), ask(many(3))
	q.Settings.Connections.MaxRetries = 2
	q.Retry = true
	made := bounded(t, b, q, "maxRetries 2")
	if len(made) != 2 {
		t.Fatalf("%d retries were let in flight, want 2", len(made))
	}
	q.Retry = false
	if _, err := b.Pick(q); err != nil {
		t.Errorf("a first try is bounded like a retry: %v", err)
	}
	made[0].Done(Result{})
	q.Retry = true
	if made = bounded(t, b, q, "maxRetries 2"); len(made) != 1 {
		t.Errorf("%d retries took the place of one that ended", len(made))
	}
}

func TestRetryBudgets(t *testing.T) {
	for _, c := range []struct {
		sentence string
		budget   mesh.RetryBudget
		requests int // that come and go
		pending  int // that stay
		later    time.Duration
		want     int
	}{
		{"a fifth of the requests of the interval", mesh.RetryBudget{Percent: 20, Interval: 10 * time.Second, MinInterval: time.Second}, 100, 0, 0, 20},
		{"at least the minimum", mesh.RetryBudget{Percent: 20, Interval: 10 * time.Second, MinCount: 10, MinInterval: time.Second}, 5, 0, 0, 10},
		{"none at 0 percent without a minimum", mesh.RetryBudget{Interval: 10 * time.Second, MinInterval: time.Second}, 100, 0, 0, 0},
		{"old requests do not count", mesh.RetryBudget{Percent: 20, Interval: 10 * time.Second, MinCount: 1, MinInterval: time.Second}, 100, 0, 11 * time.Second, 1},
		{"without an interval, a share of what is in flight", mesh.RetryBudget{Percent: 20, MinCount: 3}, 100, 40, 0, 10},
		{"or the minimum of those", mesh.RetryBudget{Percent: 20, MinCount: 3}, 100, 2, 0, 3},
	} {
		synctest.Test(t, func(t *testing.T) {
			b, q := NewBalancer(), ask(many(3))
			q.Settings.RetryBudget = &c.budget
			for range c.requests {
				spread(t, b, q, 1)
			}
			for range c.pending {
				if _, err := b.Pick(q); err != nil {
					t.Fatal(err)
				}
			}
			time.Sleep(c.later)
			q.Retry = true
			if got := len(bounded(t, b, q, "the percent of the retry budget")); got != c.want {
				t.Errorf("%s: %d retries, want %d", c.sentence, got, c.want)
			}
		})
	}
}

func TestTheMinimumOfARetryBudgetComesAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, q := NewBalancer(), ask(many(3))
		q.Settings.RetryBudget = &mesh.RetryBudget{Percent: 0, Interval: 10 * time.Second, MinCount: 2, MinInterval: time.Second}
		q.Retry = true
		for range 5 {
			if got := len(bounded(t, b, q, "the percent")); got != 2 {
				t.Fatalf("%d retries within a second, want 2", got)
			}
			time.Sleep(1100 * time.Millisecond)
		}
	})
}

func TestConnectionsAreBoundedAndAwaited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, q := NewBalancer(), ask(many(3))
		bounds := &mesh.Connections{MaxConnections: 1, MaxPending: 2}
		type answer struct {
			n   int
			c   Choice
			err error
		}
		answers := make(chan answer, 4)
		ctx, cancel := context.WithCancelCause(t.Context())
		for n := range 4 {
			c, err := b.Pick(q)
			if err != nil {
				t.Fatal(err)
			}
			wait := t.Context()
			if n == 1 {
				wait = ctx
			}
			go func() {
				c, err := c.Connect(wait, bounds)
				answers <- answer{n, c, err}
			}()
			synctest.Wait()
		}
		first, full := <-answers, <-answers
		var over *OverflowError
		if first.n != 0 || first.err != nil || full.n != 3 || !errors.As(full.err, &over) {
			t.Fatalf("the first gets the connection, and the one that finds the queue full hears so at once: %+v %+v", first, full)
		}
		gone := errors.New("gone")
		cancel(gone)
		left := <-answers
		if left.n != 1 || !errors.Is(left.err, gone) {
			t.Fatalf("one that leaves the queue: %+v", left)
		}
		left.c.Done(Result{})
		full.c.Done(Result{})
		first.c.Done(Result{Status: 200})
		next := <-answers
		if next.n != 2 || next.err != nil {
			t.Fatalf("the next in the queue: %+v", next)
		}
		if _, err := b.Pick(q); err != nil {
			t.Fatal(err)
		}
		if _, err := next.c.ConnectNow(bounds); err == nil {
			t.Error("one that cannot wait gets a connection that is in use")
		}
		next.c.Done(Result{Status: 200})
		c, _ := b.Pick(q)
		if _, err := c.ConnectNow(bounds); err != nil {
			t.Errorf("a connection that is free again: %v", err)
		}
	})
}
