package rules_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/ambit-mesh/ambit/cni/netnstest"
	"github.com/ambit-mesh/ambit/cni/rules"
)

// TestWhileARuleIsMissingNothingPassesInClear does one damage after another to
// the pod's capture and asks in each direction before it is mended, on
// connections old and new: whoever asked gets the answer late, and by ztunnel.
func TestWhileARuleIsMissingNothingPassesInClear(t *testing.T) {
	any := netnstest.New(t)
	apply(t, any, rules.Spec{})
	for _, d := range append(ruleDamages(t, any, rules.TableName), otherDamages()...) {
		t.Run(d.what, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			apply(t, w.pod.NS, rules.Spec{})
			peer, pod := at(w.peer.V4, 8080), at(w.pod.V4, 8080)
			byOut, byIn := fmt.Sprintf("by 15001 peer %s: hi", w.pod.V4), fmt.Sprintf("by 15006 pod %s: hi", w.peer.V4)
			out, in := dial(t, w.pod.NS, peer), dial(t, w.peer.NS, pod)
			asks(t, "before", out, byOut)
			asks(t, "before", in, byIn)

			hurt(t, w.pod.NS, d)
			for _, old := range []*netnstest.Client{out, in} {
				if err := old.Send("hi"); err != nil {
					t.Error(err)
				}
			}
			newOut, newIn := netnstest.Knock(t, w.pod.NS, peer), netnstest.Knock(t, w.peer.NS, pod)
			if err := rules.Apply(w.pod.NS, rules.Spec{}); err != nil {
				t.Fatal(err)
			}

			for _, c := range []struct {
				what, want string
				answer     func() (string, error)
			}{
				{"old, out", byOut, out.Answer},
				{"old, in", byIn, in.Answer},
				{"new, out", byOut, func() (string, error) { return newOut.Ask("hi") }},
				{"new, in", byIn, func() (string, error) { return newIn.Ask("hi") }},
			} {
				got, err := c.answer()
				refused := err != nil && strings.Contains(err.Error(), "connection refused")
				if got != c.want && !refused { // a redirect to a port where nobody listens is closed too
					t.Errorf("%s: answer %q (%v), want %q", c.what, got, err, c.want)
				}
			}
		})
	}
}
