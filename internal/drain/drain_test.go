package drain

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

func TestTheDeadlineLeavesRoomInTheGracePeriod(t *testing.T) {
	for _, c := range []struct {
		name                  string
		explicit, grace, want time.Duration
	}{
		{"nothing is said", 0, 0, 5 * time.Second},
		{"an explicit deadline wins", 7 * time.Second, 30 * time.Second, 7 * time.Second},
		{"a long grace period keeps five seconds back", 0, 30 * time.Second, 25 * time.Second},
		{"a short one keeps one second back", 0, 10 * time.Second, 9 * time.Second},
		{"a tiny one still drains for a second", 0, time.Second, time.Second},
	} {
		if got := Deadline(c.explicit, c.grace); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

type part struct {
	takes time.Duration
	err   error
}

func (p part) Drain(ctx context.Context) error {
	select {
	case <-time.After(p.takes):
		return p.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func TestPartsDrainSideBySideAndWithinTheDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		start := time.Now()
		oops := errors.New("oops")
		err := All(ctx, []part{{takes: 4 * time.Second}, {takes: 5 * time.Second, err: oops}, {takes: time.Hour}})
		if took := time.Since(start); took != 10*time.Second {
			t.Errorf("took %v, want the deadline of 10s", took)
		}
		if !errors.Is(err, oops) || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error %v, want both parts' errors", err)
		}
	})
}
