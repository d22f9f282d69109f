//go:build e2e

package suite

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ambit-mesh/ambit/e2e/stage"
)

// TestTheKernelIsTheTruth: on a live pod each rule, chain and table, the policy
// route and the ip rule are deleted in turn. The agent mends each and says so;
// nothing that the pod sends meanwhile goes in clear, and nothing fails.
func TestTheKernelIsTheTruth(t *testing.T) {
	onOurNodes(t)
	HoldFor(t, mesh, time.Minute, func(ctx context.Context, sc *Scene) error {
		hosts, err := sc.inMesh(ctx, true)
		if err != nil {
			return err
		}
		own, _, err := sc.IPs(ctx, "client")
		if err != nil {
			return err
		}
		pid, err := netnsWith(ctx, sc.Stage, own)
		if err != nil {
			return err
		}
		whole, err := kernelOf(ctx, pid)
		if err != nil {
			return err
		}
		marker := "DAMAGE-" + sc.NS
		stop, err := sc.Listen(ctx, "", marker)
		if err != nil {
			return err
		}
		const lasts = 45 * time.Second
		load := sc.Begin(ctx, "client", "load", "--rate", "50", "--duration", lasts.String(), url(hosts[0], httpPort)+marker)
		held := sc.Begin(ctx, "client", "hold", "--duration", lasts.String(), address(hosts[0], tcpPort))
		began, slowest := time.Now(), time.Duration(0)
		damages := damagesOf(whole)
		for _, damage := range damages {
			took, err := sc.mends(ctx, pid, whole, damage)
			if err != nil {
				stop()
				return err
			}
			slowest = max(slowest, took)
		}
		took := time.Since(began)
		s, err := load.End()
		wire, stopErr := stop()
		if err := errors.Join(err, AllOK(s), held.EndOK(), stopErr, sc.saysMended(ctx, "client")); err != nil {
			return err
		}
		if took > lasts {
			return fmt.Errorf("%d damages took %s, longer than the load", len(damages), took)
		}
		if wire.Marked > 0 {
			return fmt.Errorf("%d of %d frames showed the marker in clear", wire.Marked, wire.Frames)
		}
		sc.Figure("damages", "%d in turn, each mended, the slowest seen after %s", len(damages), slowest.Round(time.Millisecond))
		sc.Figure("meanwhile", "0 of %d requests failed, 0 of %d frames in clear", s.Attempts, wire.Frames)
		return nil
	})
}

// kernelOf is what of the mesh is in a network namespace, without what counts.
func kernelOf(ctx context.Context, pid int) (string, error) {
	var all strings.Builder
	for _, c := range [][]string{
		{"nft", "-a", "list", "table", "inet", "istio-ambient"},
		{"nft", "-a", "list", "table", "inet", "istio-ambient-guard"},
		{"ip", "-4", "rule"}, {"ip", "-6", "rule"},
		{"ip", "-4", "route", "show", "table", "100"}, {"ip", "-6", "route", "show", "table", "100"},
	} {
		out, err := inNetns(ctx, pid, c...)
		if err != nil {
			return "", err
		}
		all.WriteString(out)
	}
	return all.String(), nil
}

var (
	handles   = regexp.MustCompile(` # handle \d+`)
	chainLine = regexp.MustCompile(`^\s*chain (\S+) \{`)
	ruleLine  = regexp.MustCompile(`# handle \d+$`)
)

// damagesOf are programs that delete each thing that was found.
func damagesOf(kernel string) (all [][]string) {
	table, chain, rule := "", "", 0
	for line := range strings.Lines(kernel) {
		line = strings.TrimRight(line, "\n")
		switch found := chainLine.FindStringSubmatch(line); {
		case strings.HasPrefix(line, "table inet "):
			table = strings.Fields(line)[2]
			all = append(all, []string{"nft", "delete", "table", "inet", table})
		case found != nil:
			chain, rule = found[1], 0
			all = append(all, []string{"nft", "flush", "chain", "inet", table, chain})
		case strings.Contains(line, "type ") && strings.Contains(line, " hook "):
		case ruleLine.MatchString(line) && !strings.Contains(line, "set "+table):
			all = append(all, []string{"rule", table, chain, fmt.Sprint(rule)})
			rule++
		}
	}
	for _, family := range []string{"-4", "-6"} {
		all = append(all, []string{"ip", family, "rule", "del", "pref", "32764"}, []string{"ip", family, "route", "flush", "table", "100"})
	}
	return all
}

// mends does one damage and waits until all is as it was.
func (sc *Scene) mends(ctx context.Context, pid int, whole string, damage []string) (took time.Duration, err error) {
	program := damage
	if damage[0] == "rule" { // rules are known by handles, which change with each mending
		if program, err = deletionOf(ctx, pid, damage[1], damage[2], damage[3]); err != nil {
			return 0, err
		}
	}
	began := time.Now()
	if _, err := inNetns(ctx, pid, program...); err != nil {
		return 0, err
	}
	err = stage.Within(ctx, 20*time.Second, func(ctx context.Context) error {
		now, err := kernelOf(ctx, pid)
		if err == nil && handles.ReplaceAllString(now, "") != handles.ReplaceAllString(whole, "") {
			err = fmt.Errorf("after %q it is not mended:\n%s", strings.Join(damage, " "), now)
		}
		return err
	})
	return time.Since(began), err
}

func deletionOf(ctx context.Context, pid int, table, chain, n string) ([]string, error) {
	out, err := inNetns(ctx, pid, "nft", "-a", "list", "chain", "inet", table, chain)
	if err != nil {
		return nil, err
	}
	at := 0
	for line := range strings.Lines(out) {
		fields := strings.Fields(line)
		if len(fields) < 3 || fields[len(fields)-2] != "handle" || strings.Contains(line, "{") {
			continue
		}
		if fmt.Sprint(at) == n {
			return []string{"nft", "delete", "rule", "inet", table, chain, "handle", fields[len(fields)-1]}, nil
		}
		at++
	}
	return nil, fmt.Errorf("chain %s of %s has no rule %s:\n%s", chain, table, n, out)
}

// saysMended waits for the event on a pod.
func (sc *Scene) saysMended(ctx context.Context, pod string) error {
	return Soon(ctx, func(ctx context.Context) error {
		events, err := sc.Reach.Client.CoreV1().Events(sc.NS).List(ctx, metav1.ListOptions{FieldSelector: "involvedObject.name=" + pod})
		if err != nil {
			return err
		}
		for _, e := range events.Items {
			if e.Reason == "MeshRulesMended" && strings.Contains(e.Message, "missing") {
				return nil
			}
		}
		return fmt.Errorf("none of %d events of pod %s says that its rules were mended", len(events.Items), pod)
	})
}
