package suite

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/ambit-mesh/ambit/e2e/echo"
	"github.com/ambit-mesh/ambit/e2e/stage"
)

// Echo runs a client of the echo program in a pod ("pod" or "namespace/pod")
// and returns its summary. That something failed is in the summary; an error
// is a client that did not run.
func (sc *Scene) Echo(ctx context.Context, pod string, args ...string) (echo.Summary, error) {
	ns, name, ok := strings.Cut(pod, "/")
	if !ok {
		ns, name = sc.NS, pod
	}
	var s echo.Summary
	out, err := sc.Exec(ctx, ns, name, append([]string{"/echo", args[0], "--expect", "any"}, args[1:]...)...)
	if err != nil {
		return s, err
	}
	if err := json.Unmarshal([]byte(out), &s); err != nil {
		return s, fmt.Errorf("echo %s in %s printed %q: %w", strings.Join(args, " "), pod, out, err)
	}
	return s, nil
}

// Works is an error unless every attempt of a client succeeds.
func (sc *Scene) Works(ctx context.Context, pod string, args ...string) error {
	s, err := sc.Echo(ctx, pod, args...)
	if err == nil {
		err = AllOK(s)
	}
	if err != nil {
		return fmt.Errorf("%s: echo %s: %w", pod, strings.Join(args, " "), err)
	}
	return nil
}

// Fails is an error unless every attempt of a client fails.
func (sc *Scene) Fails(ctx context.Context, pod string, args ...string) error {
	s, err := sc.Echo(ctx, pod, args...)
	if err != nil {
		return err
	}
	if s.OK > 0 || s.Failed == 0 {
		return fmt.Errorf("%s: echo %s: %d of %d attempts succeeded, want none", pod, strings.Join(args, " "), s.OK, s.Attempts)
	}
	return nil
}

// Soon waits until f holds, for as long as a change may take to get everywhere.
func Soon(ctx context.Context, f func(context.Context) error) error {
	return stage.Within(ctx, 30*time.Second, f)
}

// AllOK is an error unless every attempt succeeded.
func AllOK(s echo.Summary) error {
	if s.Failed > 0 || s.OK == 0 {
		return fmt.Errorf("%d of %d attempts failed, the first after %s: %v", s.Failed, s.Attempts, s.FirstFailure, s.Failures)
	}
	return nil
}

// running is a client that goes on while the test does something.
type running struct {
	what string
	done chan struct{}
	sum  echo.Summary
	err  error
}

// Begin starts a client in a pod; it ends by its own --duration.
func (sc *Scene) Begin(ctx context.Context, pod string, args ...string) *running {
	r := &running{what: pod + ": echo " + strings.Join(args, " "), done: make(chan struct{})}
	go func() {
		defer close(r.done)
		r.sum, r.err = sc.Echo(ctx, pod, args...)
	}()
	return r
}

// End waits for the client and gives its summary.
func (r *running) End() (echo.Summary, error) {
	<-r.done
	if r.err != nil {
		return r.sum, fmt.Errorf("%s: %w", r.what, r.err)
	}
	return r.sum, nil
}

// over reports whether the client has ended.
func (r *running) over() bool {
	select {
	case <-r.done:
		return true
	default:
		return false
	}
}

// EndOK waits for the client and is an error unless all of it succeeded.
func (r *running) EndOK() error {
	s, err := r.End()
	if err == nil {
		err = AllOK(s)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", r.what, err)
	}
	return nil
}

// url makes a URL of a host, which may be an IPv6 address, and a port.
func url(host string, port int) string { return "http://" + address(host, port) + "/" }

func address(host string, port int) string { return net.JoinHostPort(host, strconv.Itoa(port)) }

func sortFamily(ip, v4, v6 string) (string, string) {
	if a, err := netip.ParseAddr(ip); err == nil && a.Is6() {
		return v4, ip
	}
	return ip, v6
}

// answer is what a server of ours says about one request.
type answer struct{ Hostname, Remote, Method, Host, Path, Proto string }

// ask makes one request and gives the answer, with the client's address but
// not its port, which differs every time.
func (sc *Scene) ask(ctx context.Context, pod, target string, more ...string) (answer, error) {
	s, err := sc.Echo(ctx, pod, append([]string{"get", "--timeout", "5s"}, append(more, target)...)...)
	if err != nil {
		return answer{}, err
	}
	if err := AllOK(s); err != nil {
		return answer{}, fmt.Errorf("%s → %s: %w", pod, target, err)
	}
	b, err := json.Marshal(s.Last)
	if err != nil {
		return answer{}, err
	}
	var a answer
	if err := json.Unmarshal(b, &a); err != nil {
		return answer{}, err
	}
	host, _, err := net.SplitHostPort(a.Remote)
	a.Remote = host
	return a, errors.Join(err)
}
