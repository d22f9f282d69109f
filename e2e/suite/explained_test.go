//go:build e2e

package suite

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	neturl "net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/ambit-mesh/ambit/ambit/ask"
	"github.com/ambit-mesh/ambit/ambit/command"
)

// answered runs a command of ambit's that may also say no.
func answered(ctx context.Context, args ...string) (text string, yes bool, err error) {
	var out, complaint bytes.Buffer
	code := command.Run(ctx, append(args, "--kubeconfig", kubeconfig()), "e2e", &out, &complaint)
	if code != 0 && code != command.ExitUnhealthy {
		return "", false, fmt.Errorf("ambit %s: exit code %d: %s", strings.Join(args, " "), code, complaint.String())
	}
	return out.String(), code == 0, nil
}

// applied writes objects and waits until every proxy serves them.
func (sc *Scene) applied(ctx context.Context, objects string) error {
	return sc.waited(ctx, objects, "apply", "every proxy serves them")
}

// deleted deletes objects and waits until no proxy serves them any longer.
func (sc *Scene) deleted(ctx context.Context, objects string) error {
	return sc.waited(ctx, objects, "delete", "no proxy serves them any longer")
}

func (sc *Scene) waited(ctx context.Context, objects, command, says string) error {
	file := filepath.Join(sc.t.TempDir(), "objects.yaml")
	if err := os.WriteFile(file, []byte(objects), 0o600); err != nil {
		return err
	}
	out, err := ambit(ctx, command, "-f", file, "--wait")
	if err != nil || !strings.Contains(out, says) {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}

// planted is a situation: what `ambit can` is asked and says, what becomes of a
// client, and the story afterwards.
type planted struct {
	name, objects string
	// from asks for to: "host:port", a pod as "namespace/name:port", or a request
	// as "METHOD URL".
	from, to string
	// ok is whether the client gets what it asks for, can whether all that is
	// configured would let it through.
	ok, can bool
	says    string
	story   []string
}

// TestConnectionsAreForeseenAndExplained: in each of twenty planted situations,
// what `ambit can` says of a pair is what becomes of a connection or a request,
// and `ambit why` tells its story.
func TestConnectionsAreForeseenAndExplained(t *testing.T) {
	t.Parallel()
	Hold(t, mesh, func(ctx context.Context, sc *Scene) error {
		all, err := sc.situations(ctx)
		if err != nil {
			return err
		}
		var errs []error
		for i := range all {
			if err := sc.explained(ctx, &all[i]); err != nil {
				errs = append(errs, fmt.Errorf("%s: %w", all[i].name, err))
			}
		}
		sc.Figure("situations", "%d of %d foreseen, as they became, and explained", len(all)-len(errs), len(all))
		return errors.Join(errs...)
	})
}

// situations are all, with the pods and services that they need. Those without
// objects come first.
func (sc *Scene) situations(ctx context.Context) ([]planted, error) {
	if _, err := sc.inMesh(ctx, true); err != nil {
		return nil, err
	}
	outside, err := sc.Another(ctx, "out", false)
	if err != nil {
		return nil, err
	}
	behind := func(s *corev1.Service) { s.Labels = map[string]string{"istio.io/use-waypoint": "waypoint"} }
	closed := func(s *corev1.Service) { s.Spec.Ports[0].TargetPort = intstr.FromInt32(7070) }
	err = errors.Join(
		sc.Service(ctx, "server", "server"), sc.Service(ctx, "empty", "nobody"), sc.Service(ctx, "closed", "server", closed), sc.Service(ctx, "headless", "server", Headless),
		sc.Start(ctx, Pod{Name: "outsider", Namespace: outside, Node: 1}, Pod{Name: "web", Node: 2}),
		sc.Service(ctx, "web", "web", behind), sc.waypoint(ctx, sc.NS, "waypoint", ""),
	)
	if err != nil {
		return nil, err
	}
	clientIP, _, err1 := sc.IPs(ctx, "client")
	p, err2 := sc.Stage.Pod(ctx, outside, "outsider")
	ts := &tasks{sc, "web." + sc.NS}
	if err := errors.Join(err1, err2, Soon(ctx, func(ctx context.Context) error { return ts.passes(ctx, "client", ts.url("/")) })); err != nil {
		return nil, err
	}
	client, outsider, server, away := sc.NS+"/client", outside+"/outsider", sc.NS+"/server", address(p.Status.PodIP, tcpPort)
	service, pod, admin := address("server."+sc.NS, 90), address(server, tcpPort), "GET "+ts.url("/admin")
	deny := func(name, rule string) string {
		return sc.authz(name, "  action: DENY\n  rules: [{"+rule+"}]\n")
	}
	allow := func(name, rule string) string {
		return sc.authz(name, "  action: ALLOW\n  rules: [{"+rule+"}]\n")
	}
	from := func(source string) string { return "from: [{source: {" + source + "}}]" }
	me, other, ports := from("principals: ["+Principal(sc.NS, "client")+"]"), from("principals: ["+Principal(sc.NS, "nobody")+"]"), "to: [{operation: {ports: ['9000']}}]"
	guard := ts.guard("no-admin", "  action: DENY\n  rules: [{to: [{operation: {paths: [/admin]}}], "+me+"}]\n")
	is, asks := Identity(sc.NS, "client"), sc.NS+"/web."+sc.NS+".svc.cluster.local"
	return []planted{
		{"no policy", "", client, service, true, true, "allowed", []string{is, "an endpoint of the service, by a tunnel", "ruling    allowed"}},
		{"by the pod's own name", "", client, pod, true, true, "allowed", []string{"the workload that was dialled, by a tunnel", "ruling    allowed"}},
		{"a headless service", "", client, address("headless."+sc.NS, httpPort), true, true, "allowed", []string{is, Identity(sc.NS, "server"), "ruling    allowed"}},
		{"no endpoint", "", client, address("empty."+sc.NS, 90), false, false, "has no endpoint to use", []string{"asked", "empty." + sc.NS, "has no endpoint to use"}},
		{"no such port", "", client, address("server."+sc.NS, 95), false, false, "has no port 95", []string{"has no port 95"}},
		{"the application does not accept", "", client, address("closed."+sc.NS, 80), false, true, "allowed", []string{"the application does not accept"}},
		{"a destination outside of the mesh", "", client, away, true, true, "in clear", []string{sc.NS + "/client", away, "it takes no tunnel: in clear"}},
		{"from outside in clear", "", outsider, pod, true, true, "allowed", []string{"without an identity", "ruling    allowed"}},
		{"a request through a waypoint", "", client, "GET " + ts.url("/users"), true, true, "it would reach", []string{"decided by waypoint " + sc.NS + "/waypoint", is, "GET", asks, "ruling    allowed", Identity(sc.NS, "web")}},
		{"denied by principal", deny("no-client", me), client, service, false, false, "denied by DENY policy " + sc.NS + "/no-client", []string{"flag DENY", "DENY " + sc.NS + "/no-client: rule 0 matches ←"}},
		{"denied by namespace", deny("no-neighbours", from("namespaces: ["+sc.NS+"]")), client, service, false, false, "denied by DENY policy " + sc.NS + "/no-neighbours", []string{"DENY " + sc.NS + "/no-neighbours: rule 0 matches ←"}},
		{"denied by address block", deny("no-address", from("ipBlocks: ["+clientIP+"/32]")), client, pod, false, false, "denied by DENY policy " + sc.NS + "/no-address", []string{"DENY " + sc.NS + "/no-address: rule 0 matches ←"}},
		{"denied by port", deny("no-tcp", ports), client, pod, false, false, "denied by DENY policy " + sc.NS + "/no-tcp", []string{"DENY " + sc.NS + "/no-tcp: rule 0 matches ←"}},
		{"another port than the denied one", deny("no-tcp", ports), client, address(server, firstPort), true, true, "allowed", []string{"DENY " + sc.NS + "/no-tcp: does not match", "ruling    allowed"}},
		{"no ALLOW policy matches", allow("friends", other), client, service, false, false, "no ALLOW policy matches", []string{"ALLOW " + sc.NS + "/friends: does not match", "no ALLOW policy matches"}},
		{"an ALLOW policy matches", allow("friends", me), client, service, true, true, "allowed by ALLOW policy " + sc.NS + "/friends rule 0", []string{"ALLOW " + sc.NS + "/friends: rule 0 matches ←"}},
		{"a policy on trial", dryRun(deny("trial", me)), client, service, true, true, "allowed", []string{"DENY " + sc.NS + "/trial: rule 0 matches (dry run)", "ruling    allowed"}},
		{"plaintext under STRICT", strict(sc.NS), outsider, pod, false, false, "denied by DENY policy", []string{"without an identity", "rule 0 matches ←"}},
		{"a request that a waypoint denies", guard, client, admin, false, false, "it would be answered 403: denied by DENY policy " + sc.NS + "/no-admin rule 0", []string{"decided by waypoint " + sc.NS + "/waypoint", is, "GET", asks, "DENY " + sc.NS + "/no-admin: rule 0 matches ←", "ruling    denied by DENY policy " + sc.NS + "/no-admin rule 0", "status 403, flag DENY"}},
		{"around a waypoint that a policy needs", guard, client, address(sc.NS+"/web", httpPort), false, false, "denied", []string{"flag DENY", is, "DENY " + sc.NS + "/waypoint_only_web: rule 0 matches ←", "ruling    denied", Identity(sc.NS, "web")}},
	}, nil
}

// explained plants a situation, looks at it, and takes its objects away.
func (sc *Scene) explained(ctx context.Context, s *planted) error {
	if s.objects == "" {
		return sc.told(ctx, s)
	}
	if err := sc.applied(ctx, s.objects); err != nil {
		return err
	}
	return errors.Join(sc.told(ctx, s), sc.deleted(ctx, s.objects))
}

// told asks, connects, and asks again.
func (sc *Scene) told(ctx context.Context, s *planted) error {
	method, target, isRequest := strings.Cut(s.to, " ")
	question := []string{"can", s.from, s.to}
	if isRequest {
		question = []string{"can", s.from, method, target}
	}
	text, yes, err := answered(ctx, question...)
	if err != nil || yes != s.can || !strings.Contains(text, s.says) {
		return fmt.Errorf("can says %v, want %v with %q: %w: %s", yes, s.can, s.says, err, text)
	}
	if err := sc.becomes(ctx, s); err != nil {
		return err
	}
	to := s.to
	if isRequest {
		u, err := neturl.Parse(target)
		if err != nil {
			return err
		}
		to = u.Host
	}
	return Soon(ctx, func(ctx context.Context) error {
		text, _, err := answered(ctx, "why", s.from, to)
		if err != nil {
			return err
		}
		rest := text
		for _, part := range s.story {
			_, after, ok := strings.Cut(rest, part)
			if !ok {
				return fmt.Errorf("why does not tell %q, or not there:\n%s", part, text)
			}
			rest = after
		}
		return nil
	})
}

// becomes makes the connection or the request: what was waited for holds at
// once, there is no second try.
func (sc *Scene) becomes(ctx context.Context, s *planted) error {
	if method, target, ok := strings.Cut(s.to, " "); ok {
		status := "403"
		if s.ok {
			status = "200"
		}
		return sc.Works(ctx, s.from, "get", "--timeout", "10s", "--method", method, "--status", status, target)
	}
	dialled := s.to
	if host, port, _ := strings.Cut(s.to, ":"); strings.Contains(host, "/") {
		ip, _, err := sc.IPs(ctx, host[strings.IndexByte(host, '/')+1:])
		if err != nil {
			return err
		}
		dialled = ip + ":" + port
	}
	check := sc.Works
	if !s.ok {
		check = sc.Fails
	}
	args := []string{"tcp", "--timeout", "10s", dialled}
	switch {
	case strings.HasSuffix(dialled, fmt.Sprint(":", httpPort)):
		args = []string{"get", "--timeout", "10s", "http://" + dialled + "/"}
	case strings.HasSuffix(dialled, fmt.Sprint(":", firstPort)):
		args = []string{"tcp", "--first", "--timeout", "10s", dialled}
	}
	return check(ctx, s.from, args...)
}

// TestTheWaitIsProvenByEachProxy: what is applied and deleted with --wait is
// decided with at once, and `ambit status` shows by which generation.
func TestTheWaitIsProvenByEachProxy(t *testing.T) {
	t.Parallel()
	Hold(t, mesh, func(ctx context.Context, sc *Scene) error {
		hosts, err := sc.inMesh(ctx, true)
		if err != nil {
			return err
		}
		file := filepath.Join(sc.t.TempDir(), "policy.yaml")
		if err := os.WriteFile(file, []byte(sc.authz("nobody", "  action: ALLOW\n")), 0o600); err != nil {
			return err
		}
		for range 5 {
			if _, err := ambit(ctx, "apply", "-f", file, "--wait"); err != nil {
				return err
			}
			if err := sc.Fails(ctx, "client", "tcp", "--timeout", "3s", address(hosts[0], tcpPort)); err != nil {
				return fmt.Errorf("after the policy was waited for: %w", err)
			}
			out, err := ambit(ctx, "delete", "-f", file, "--wait")
			if err != nil || !strings.Contains(out, "no proxy serves them any longer") {
				return fmt.Errorf("%w: %s", err, out)
			}
			if err := sc.Works(ctx, "client", "tcp", "--timeout", "3s", address(hosts[0], tcpPort)); err != nil {
				return fmt.Errorf("after its deletion was waited for: %w", err)
			}
		}
		return Soon(ctx, func(ctx context.Context) error {
			out, yes, err := answered(ctx, "status", "-o", "json")
			var r ask.Report
			if err == nil {
				err = json.Unmarshal([]byte(out), &r)
			}
			if err != nil || !yes {
				return fmt.Errorf("%w: %s", err, out)
			}
			for _, p := range r.Proxies {
				if p.Serves == 0 || p.Age != 0 {
					return fmt.Errorf("status says %+v", p)
				}
			}
			return nil
		})
	})
}
