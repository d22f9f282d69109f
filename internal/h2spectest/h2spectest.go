// Package h2spectest runs h2spec, tests of HTTP/2 that nobody here wrote,
// against a listener in clear. It owns how its verdicts are read, and that an
// exception has a reason and is one still; it refuses to know who serves.
package h2spectest

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/summerwind/h2spec/config"
	"github.com/summerwind/h2spec/generic"
	"github.com/summerwind/h2spec/hpack"
	"github.com/summerwind/h2spec/http2"
	"github.com/summerwind/h2spec/spec"
)

// fewest is how many cases pass if the suite has run at all.
const fewest = 140

// Run runs every case of h2spec v2.2.1, strict ones among them, against a server
// that answers requests for "/". Exceptions are cases that it does not pass,
// such as "http2/4.2/3", and the reason.
func Run(t *testing.T, at netip.AddrPort, exceptions map[string]string) {
	t.Helper()
	cfg := &config.Config{Host: at.Addr().String(), Port: int(at.Port()), Path: "/", Timeout: 2 * time.Second, MaxHeaderLen: 4000, Strict: true}
	passed := 0
	for _, g := range []*spec.TestGroup{generic.Spec(), http2.Spec(), hpack.Spec()} {
		g.Test(cfg)
		passed += judge(t, g, exceptions)
	}
	t.Logf("h2spec: %d cases pass, %d are exceptions", passed, len(exceptions))
	if passed < fewest {
		t.Errorf("only %d cases passed: the suite did not run", passed)
	}
}

// judge looks at every case of a group, and counts those that passed.
func judge(t *testing.T, g *spec.TestGroup, exceptions map[string]string) (passed int) {
	t.Helper()
	for i, c := range append(slices.Clip(g.Tests), g.StrictTests...) {
		if c.Result == nil {
			continue
		}
		id := fmt.Sprintf("%s/%d", g.ID(), i+1)
		reason, excepted := exceptions[id]
		switch failed := c.Result.Failed && !closedAtOnce(c.Result.Error); {
		case failed && !excepted:
			t.Errorf("%s %s: %v", id, c.Desc, c.Result.Error)
		case failed:
			t.Logf("%s %s: excepted: %s", id, c.Desc, reason)
		case excepted && !c.Result.Skipped:
			t.Errorf("%s passes and is no exception any more", id)
		case c.Result.Skipped:
			t.Logf("%s %s: skipped", id, c.Desc)
		default:
			passed++
		}
	}
	for _, sub := range g.Groups {
		passed += judge(t, sub, exceptions)
	}
	return passed
}

// closedAtOnce is a failure that is none: the connection was to be closed and was,
// so soon that what h2spec sent next was answered with a reset, for which it
// does not look.
func closedAtOnce(err error) bool {
	e, ok := errors.AsType[*spec.TestError](err)
	return ok && slices.Contains(e.Expected, spec.ExpectedConnectionClosed) && strings.Contains(e.Actual, "connection reset by peer")
}
