//go:build e2e

package suite

import (
	"context"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// program is a server and its load generator, both pods of one image, on
// different nodes of the mesh.
type program struct {
	image string
	port  int
	// commands run in the client's pod, in order; HOST is the service.
	commands [][]string
	// good must be in the output of the last command, bad must not.
	good, bad string
}

func (p program) play(ctx context.Context, sc *Scene) error {
	if err := sc.Namespace(ctx, true); err != nil {
		return err
	}
	svc := func(s *corev1.Service) {
		s.Spec.Ports = []corev1.ServicePort{{Name: "tcp", Port: int32(p.port), TargetPort: intstr.FromInt32(int32(p.port))}}
	}
	if err := sc.Service(ctx, "server", "server", svc); err != nil {
		return err
	}
	err := sc.Start(ctx, Pod{Name: "server", Node: 2, Image: p.image, Ready: TCPProbe(p.port)}, Pod{Name: "client", Node: 1, Image: p.image, Ready: TCPProbe(p.port)})
	if err != nil {
		return err
	}
	var out string
	for i, command := range p.commands {
		args := make([]string, len(command))
		for j, a := range command {
			args[j] = strings.ReplaceAll(a, "HOST", "server."+sc.NS)
		}
		if i == 0 { // the first may come before the names and certificates do
			err = Soon(ctx, func(ctx context.Context) error { out, err = sc.Exec(ctx, sc.NS, "client", args...); return err })
		} else {
			out, err = sc.Exec(ctx, sc.NS, "client", args...)
		}
		if err != nil {
			return fmt.Errorf("%w\n%s", err, out)
		}
	}
	if !regexp.MustCompile(p.good).MatchString(out) || p.bad != "" && regexp.MustCompile(p.bad).MatchString(out) {
		return fmt.Errorf("the output lacks %q or holds %q:\n%s", p.good, p.bad, out)
	}
	sc.t.Logf("%s", strings.TrimSpace(out))
	return sc.carried(ctx)
}

// carried looks that the program's connections really were of the mesh. A
// connection is recorded at its end, which may be a moment later.
func (sc *Scene) carried(ctx context.Context) error {
	return Soon(ctx, func(ctx context.Context) error {
		return sc.recorded(ctx, Identity(sc.NS, "client"), Identity(sc.NS, "server"))
	})
}

func TestNginxUnderWrk(t *testing.T) {
	Hold(t, mesh, program{
		image: "nginx", port: httpPort,
		commands: [][]string{{"wrk", "-t2", "-c32", "-d1s", "http://HOST:8080/"}, {"wrk", "-t2", "-c32", "-d5s", "http://HOST:8080/"}},
		good:     `Requests/sec: +[1-9]`, bad: `Socket errors|Non-2xx`,
	}.play)
}

func TestRedisUnderItsBenchmark(t *testing.T) {
	Hold(t, mesh, program{
		image: "redis", port: 6379,
		commands: [][]string{{"redis-cli", "-h", "HOST", "ping"}, {"redis-benchmark", "-h", "HOST", "-q", "-n", "20000", "-c", "20", "-t", "set,get,lpush"}},
		good:     `(?s)SET: [1-9].*GET: [1-9].*LPUSH`, bad: `(?i)error|WARNING`,
	}.play)
}

func TestPostgresUnderPgbench(t *testing.T) {
	Hold(t, mesh, program{
		image: "postgres", port: 5432,
		commands: [][]string{
			{"psql", "-h", "HOST", "-U", "postgres", "-c", "select 1"}, {"pgbench", "-h", "HOST", "-U", "postgres", "-i", "-q", "postgres"},
			{"pgbench", "-h", "HOST", "-U", "postgres", "-c", "4", "-T", "5", "postgres"},
		},
		good: `(?s)number of failed transactions: 0 .*tps = [1-9]`,
	}.play)
}

// TestAServiceFollowsItsPods: a service's pod
// goes and another comes under the same service; new connections find it.
func TestAServiceFollowsItsPods(t *testing.T) {
	t.Parallel()
	Hold(t, mesh, func(ctx context.Context, sc *Scene) error {
		if _, err := sc.inMesh(ctx, true); err != nil {
			return err
		}
		if err := sc.Service(ctx, "server", "server"); err != nil {
			return err
		}
		target := url("server."+sc.NS, 80)
		if err := Soon(ctx, func(ctx context.Context) error { return sc.Works(ctx, "client", "get", target) }); err != nil {
			return err
		}
		if err := sc.Start(ctx, Pod{Name: "server-2", Account: "server", Node: 1}); err != nil {
			return err
		}
		if err := sc.Reach.Client.CoreV1().Pods(sc.NS).Delete(ctx, "server", metav1.DeleteOptions{}); err != nil {
			return err
		}
		return Soon(ctx, func(ctx context.Context) error {
			a, err := sc.ask(ctx, "client", target)
			if err == nil && a.Hostname != "server-2" {
				err = fmt.Errorf("%s answers", a.Hostname)
			}
			if err != nil {
				return err
			}
			return sc.Works(ctx, "client", "get", "--count", "20", "--timeout", fmt.Sprint(3*time.Second), target)
		})
	})
}
