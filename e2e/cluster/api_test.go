package cluster

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestANodeIsReadyByAWordGivenAfterItsStart(t *testing.T) {
	boot := time.Date(2026, 1, 2, 3, 4, 5, 600_000_000, time.UTC)
	for name, c := range map[string]struct {
		status    string
		heartbeat time.Time
		since     time.Time
		complaint string
	}{
		"a living node, asked at any time":      {"True", boot, time.Time{}, ""},
		"a word from before the start":          {"True", boot.Add(-2 * time.Second), boot, "no sign of life"},
		"a word of the same second":             {"True", boot.Truncate(time.Second), boot, ""},
		"a word from after the start":           {"True", boot.Add(time.Second), boot, ""},
		"a node that says it is not":            {"False", boot.Add(time.Second), boot, "runtime is down"},
		"a node that has not said anything yet": {"", boot, boot, "no Ready condition"},
	} {
		t.Run(name, func(t *testing.T) {
			var n kubeNode
			if c.status != "" {
				n.Status.Conditions = []condition{
					{Type: "MemoryPressure", Status: "False"},
					{Type: "Ready", Status: c.status, Heartbeat: c.heartbeat, Message: "runtime is down"},
				}
			}
			err := n.ready(c.since)
			if c.complaint == "" && err != nil || c.complaint != "" && (err == nil || !strings.Contains(err.Error(), c.complaint)) {
				t.Errorf("got %v, want %q", err, c.complaint)
			}
		})
	}
}

func TestPollingEndsWithTheLastComplaint(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began, calls := time.Now(), 0
		err := poll(t.Context(), time.Minute, time.Second, func() error {
			calls++
			return errors.New("not yet")
		})
		if err == nil || !strings.Contains(err.Error(), "not yet") || time.Since(began) != time.Minute || calls < 59 {
			t.Errorf("after %s and %d calls: %v", time.Since(began), calls, err)
		}
	})
}

func TestPollingEndsWithSuccessOrTheContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		left := 3
		err := poll(t.Context(), time.Minute, time.Second, func() error {
			if left--; left > 0 {
				return errors.New("not yet")
			}
			return nil
		})
		if err != nil || left != 0 {
			t.Errorf("%v with %d left", err, left)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		began := time.Now()
		if err := poll(ctx, time.Minute, time.Second, func() error { return errors.New("no") }); err == nil || time.Since(began) != 0 {
			t.Errorf("a cancelled poll went on: %v", err)
		}
	})
}
