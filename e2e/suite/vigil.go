package suite

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/ambit-mesh/ambit/e2e/soak"
	"github.com/ambit-mesh/ambit/e2e/stage"
)

// Vigil listens to the whole network between the nodes for as long as tests
// run, while pods of the mesh on two nodes say to each other, over connections
// new and old and in both directions, what must never be heard there. So every
// disturbance by any test passes over them. What it hears fails the run.
type Vigil struct {
	scene *Scene
	// id is in every marker of this vigil; marker is what must not be heard.
	id, marker string
	// far is the service on the second node, in each family.
	far  []string
	stop func() (stage.Wire, error)

	began   time.Time
	broken  error // why there is none
	control stage.Wire

	asking sync.WaitGroup
	hush   context.CancelFunc // ends asking; nil while it is paused
}

// vigil is that of this run.
var vigil = &Vigil{}

const (
	vigilNamespace = "t-vigil"
	// A burst is short, so that what fails is known to have failed about then.
	burstLasts, burstRate = "5s", "5"
)

// Begin begins to listen and to speak. It shows first that, outside of the
// mesh, what the pods say is heard.
func (v *Vigil) Begin(ctx context.Context, s *stage.Stage) {
	v.began = time.Now()
	if s.Cluster == nil {
		return
	}
	s.Step("beginning the vigil: what must not be heard between the nodes while tests run")
	v.scene = &Scene{Stage: s, NS: vigilNamespace, Began: v.began}
	v.id = fmt.Sprint(v.began.UnixNano())
	v.marker = "VIGIL-" + v.id
	ctx, cancel := context.WithTimeoutCause(ctx, 3*time.Minute, errors.New("not begun within 3 minutes"))
	defer cancel()
	if err := v.begin(ctx); err != nil {
		v.broken = fmt.Errorf("the vigil could not begin: %w", err)
	}
}

func (v *Vigil) begin(ctx context.Context) error {
	sc := v.scene
	if err := errors.Join(sc.DeleteNamespace(ctx, sc.NS), sc.NamespaceGone(ctx, sc.NS), sc.Namespace(ctx, false)); err != nil {
		return err
	}
	if err := errors.Join(sc.Service(ctx, "near", "near"), sc.Service(ctx, "far", "far")); err != nil {
		return err
	}
	if err := sc.Start(ctx, Pod{Name: "near", Node: 1}, Pod{Name: "far", Node: 2}); err != nil {
		return err
	}
	far4, far6, err := sc.VIPs(ctx, "far")
	if err != nil {
		return err
	}
	for _, host := range []string{far4, far6} {
		if host != "" {
			v.far = append(v.far, url(host, 80))
		}
	}
	if v.control, err = v.says(ctx, "CONTROL-"+v.id, "near", v.far[0]); err != nil {
		return err
	}
	if v.control.Marked == 0 {
		return fmt.Errorf("outside of the mesh none of %d frames showed what was said: the eavesdropper proves nothing", v.control.Frames)
	}
	if err := sc.Join(ctx); err != nil {
		return err
	}
	if err := v.close(ctx); err != nil {
		return err
	}
	// To the end of the run, and not only of its begin.
	if v.stop, err = sc.Listen(context.WithoutCancel(ctx), "", v.marker); err != nil {
		return err
	}
	return v.speak(ctx)
}

// says has a pod say something for once, and gives what was heard meanwhile.
func (v *Vigil) says(ctx context.Context, marker, pod, target string) (heard stage.Wire, err error) {
	err = Soon(ctx, func(ctx context.Context) error {
		stop, err := v.scene.Listen(ctx, "", marker)
		if err != nil {
			return err
		}
		err = v.scene.Works(ctx, pod, "get", "--count", "3", "--timeout", "3s", target+marker)
		var stopped error
		heard, stopped = stop()
		return errors.Join(err, stopped)
	})
	return heard, err
}

// close makes the pods refuse what is in clear, and waits until they say nothing
// in clear themselves: a node proxy hears a moment later that its peers joined.
func (v *Vigil) close(ctx context.Context) error {
	sc := v.scene
	strict := "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: default, namespace: " + sc.NS + "}\nspec: {mtls: {mode: STRICT}}\n"
	if err := sc.Apply(ctx, strict); err != nil {
		return err
	}
	near4, near6, err := sc.VIPs(ctx, "near")
	if err != nil {
		return err
	}
	quiet := func(pod, target string) error {
		return Soon(ctx, func(ctx context.Context) error {
			w, err := v.says(ctx, "PROBE-"+v.id, pod, target)
			if err == nil && (w.Marked > 0 || w.Tunnelled == 0) {
				err = fmt.Errorf("in the mesh %d of %d frames show what %s says, %d bytes of HBONE", w.Marked, w.Frames, pod, w.Tunnelled)
			}
			return err
		})
	}
	for _, target := range v.far {
		err = errors.Join(err, quiet("near", target))
	}
	for _, host := range []string{near4, near6} {
		if host != "" {
			err = errors.Join(err, quiet("far", url(host, 80)))
		}
	}
	return err
}

// speak starts those that talk by themselves, from their first moment on, and
// asks in bursts, whose outcome is known.
func (v *Vigil) speak(ctx context.Context) error {
	near4, near6, err := v.scene.VIPs(ctx, "near")
	if err != nil {
		return err
	}
	if near4 == "" {
		near4 = near6
	}
	load := func(target string, more ...string) []string {
		return append(append([]string{"load", "--timeout", "3s", "--in-flight", "50", "--expect", "any"}, more...), target+v.marker)
	}
	if err := v.scene.Start(ctx,
		Pod{Name: "talker", Node: 2, Args: load(url(near4, 80), "--rate", burstRate)},
		Pod{Name: "constant", Node: 1, Args: load(v.far[0], "--rate", "2", "--keepalive")},
	); err != nil {
		return err
	}
	ctx, v.hush = context.WithCancel(context.WithoutCancel(ctx))
	v.asking.Go(func() { v.ask(ctx) })
	return nil
}

// ask makes requests until ctx ends.
func (v *Vigil) ask(ctx context.Context) {
	for n := 0; ctx.Err() == nil; n++ {
		v.burst(ctx, "load", "--rate", burstRate, "--duration", burstLasts, v.far[n%len(v.far)]+v.marker)
	}
}

// burst makes some requests and takes note of what became of them.
func (v *Vigil) burst(ctx context.Context, how string, args ...string) {
	began := time.Now()
	// One whose node is away hangs for long otherwise.
	limited, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	s, err := v.scene.Echo(limited, "near", append([]string{how, "--timeout", "3s"}, args...)...)
	if ctx.Err() != nil {
		return // the end of the vigil is nobody's failure
	}
	plays.burst(began, time.Now(), s, err)
	if err != nil {
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
		}
	}
}

// Pause makes all be silent, for what takes the mesh away: what is said without
// it can be heard.
func (v *Vigil) Pause(ctx context.Context) error {
	if v.hush == nil {
		return nil
	}
	v.hush()
	v.asking.Wait()
	v.hush = nil
	return errors.Join(v.scene.gone(ctx, "talker"), v.scene.gone(ctx, "constant"))
}

// Resume ends a pause when the mesh is back.
func (v *Vigil) Resume(ctx context.Context) error {
	if v.stop == nil || v.hush != nil {
		return nil
	}
	return errors.Join(v.scene.PodsBecome(ctx, v.scene.NS, "captured", stage.Enrolled), v.close(ctx), v.speak(ctx))
}

// End ends the vigil, tells what came of it, and removes it; all is well if
// nothing was heard. It is told as go test tells of a test, so that e2e/soak
// can read it.
func (v *Vigil) End(keep bool) (well bool) {
	told := func(verdict string, why any) {
		fmt.Printf("--- %s: %s (%.2fs)\n    %v\n", verdict, soak.Vigil, time.Since(v.began).Seconds(), why)
	}
	if v.scene == nil {
		told("SKIP", "needs nodes of our own: KUBECONFIG names another cluster")
		return true
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	heard, err := v.end(ctx)
	if err == nil {
		err = plays.verdict(heard)
	}
	for _, f := range []soak.Figure{
		{Name: "listened", Text: time.Since(v.began).Round(time.Second).String()},
		{Name: "frames", Text: fmt.Sprintf("%d, of which %d in clear; %.0f MB, %.0f of them of tunnels; %d came too fast to be looked at", heard.Frames, heard.Marked, float64(heard.Bytes)/1e6, float64(heard.Tunnelled)/1e6, heard.Missed)},
		{Name: "the same outside of the mesh", Text: fmt.Sprintf("%d of %d frames in clear", v.control.Marked, v.control.Frames)},
		{Name: "requests", Text: plays.requests()},
	} {
		f.Test = soak.Vigil
		note(f)
	}
	removed := v.scene.DeleteNamespace(ctx, v.scene.NS)
	if removed == nil && keep {
		removed = v.scene.NamespaceGone(ctx, v.scene.NS)
	}
	if err = errors.Join(err, removed); err != nil {
		told("FAIL", err)
		return false
	}
	told("PASS", plays.requests())
	return true
}

func (v *Vigil) end(ctx context.Context) (heard stage.Wire, err error) {
	if v.hush != nil {
		v.hush()
		v.asking.Wait()
		// However short the run was, something was asked.
		v.burst(ctx, "get", "--count", "5", v.far[0]+v.marker)
	}
	if v.stop != nil {
		heard, err = v.stop()
	}
	return heard, errors.Join(v.broken, err)
}
