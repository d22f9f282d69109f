package bench

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/ambit-mesh/ambit/e2e/apiserver"
	"github.com/ambit-mesh/ambit/e2e/cluster/supply"
	"github.com/ambit-mesh/ambit/e2e/population"
	"github.com/ambit-mesh/ambit/manifests/crd"
)

// crowd is what the control plane is measured with.
var crowd = population.Size{Nodes: 100, Namespaces: 50, Services: 1000, Pods: 10_000}

// proxyCounts are how many proxies connect at once.
var proxyCounts = []int{50, 200}

const (
	megabyte = 1e6
	// syncs is how often proxies connect, changes how many pods are changed then.
	syncs, changes = 3, 100
	// between is the pause between two changes, so that each is one alone.
	between = 30 * time.Millisecond
)

// goals of the control plane by the number of proxies; with 50 they are issue
// 4's, and so is what upstream's istiod needs for the same.
var goals = map[string]float64{
	"cp.rss.synced": 100, "cp.rss.50": 160, "cp.sync.50": 0.5, "cp.change.p50": 20, "cp.change.p99": 50,
}

var upstream = map[string]string{
	"cp.rss.synced": "407 MB", "cp.rss.50": "756 MB", "cp.sync.50": "1.4 s", "cp.change.p50": "108 ms", "cp.change.p99": "113 ms",
}

// controlPlane measures the real istiod-lite against a real API server with
// 10,000 pods: its memory, how long proxies take to have everything, and how
// long one pod's readiness takes to be at all of them.
func controlPlane(ctx context.Context, cfg *Config) (rows []Row, err error) {
	if !cfg.wants("cp.rss.synced", "cp.rss.50", "cp.sync.50", "cp.change.p50", "cp.rss.200", "cp.sync.200", "cp.change.p50.200", enforceName) {
		return nil, nil
	}
	c, err := newControl(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("cp: %w", err)
	}
	defer c.close()
	row, err := c.synced(ctx)
	if err != nil {
		return nil, fmt.Errorf("cp.rss.synced: %w", err)
	}
	rows = append(rows, row)
	if cfg.wants(enforceName) {
		row, err := c.enforcement(ctx)
		if err != nil {
			return rows, fmt.Errorf("%s: %w", enforceName, err)
		}
		rows = append(rows, row)
	}
	for _, n := range proxyCounts {
		if !cfg.wants(namesWith(n)...) {
			continue
		}
		r, err := c.withProxies(ctx, n)
		if err != nil {
			return rows, fmt.Errorf("cp with %d proxies: %w", n, err)
		}
		rows = append(rows, r...)
	}
	return rows, nil
}

// control is the API server, what is in it, and the control plane.
type control struct {
	cfg    *Config
	dir    string
	api    *apiserver.Server
	people *population.Population
	istiod *istiod
	root   string // file of the control plane's certificate
}

func newControl(ctx context.Context, cfg *Config) (c *control, err error) {
	c = &control{cfg: cfg}
	defer func() {
		if err != nil {
			c.close()
		}
	}()
	if c.dir, err = os.MkdirTemp("", "ambit-bench"); err != nil {
		return c, err
	}
	checkout, err := supply.FindCheckout(".")
	if err != nil {
		return c, err
	}
	programs := supply.Config{Checkout: checkout}
	if err := supply.Build(ctx, programs, "kube"); err != nil {
		return c, err
	}
	cfg.say("cp: starting an API server and filling it with %d pods", crowd.Pods)
	if c.api, err = apiserver.Start(ctx, apiserver.Config{Program: filepath.Join(programs.Bin(), "kube"), Dir: c.dir}); err != nil {
		return c, err
	}
	if c.people, err = population.Open(c.api.Kubeconfig, crowd); err != nil {
		return c, err
	}
	defined, err := crd.Embedded()
	if err != nil {
		return c, err
	}
	if err := c.people.Define(ctx, slices.Concat(defined.Istio, []byte("\n---\n"), defined.Experimental)); err != nil {
		return c, err
	}
	begin := time.Now()
	if err := c.people.Fill(ctx); err != nil {
		return c, err
	}
	cfg.say("cp: filled in %.0f s; starting istiod", time.Since(begin).Seconds())
	c.istiod, err = startIstiod(ctx, checkout, c.dir, c.api.Kubeconfig)
	return c, err
}

func (c *control) close() {
	if c.istiod != nil {
		c.istiod.stop()
	}
	if c.api != nil {
		c.api.Close()
	}
	os.RemoveAll(c.dir)
}

// settle is how long the control plane is left alone before its memory counts.
const settle = 5 * time.Second

// synced is the memory of a control plane that has read everything.
func (c *control) synced(ctx context.Context) (Row, error) {
	select {
	case <-time.After(settle):
	case <-ctx.Done():
		return Row{}, ctx.Err()
	}
	m, err := c.istiod.memory()
	if err != nil {
		return Row{}, err
	}
	row := cpRow("cp.rss.synced", "MB", m.resident/megabyte, 1)
	row.Note = fmt.Sprintf("%d pods, %d services; %.0f MB of it are pages of the program's file; at most %.0f MB while reading, ready after %.1f s",
		crowd.Pods, crowd.Services, m.file/megabyte, m.peak/megabyte, c.istiod.took.Seconds()) + compared(row.Name)
	c.root = filepath.Join(c.dir, "root.pem")
	pem, err := c.people.Root(ctx)
	if err != nil {
		return row, err
	}
	return row, os.WriteFile(c.root, []byte(pem), 0o600)
}

// withProxies measures with n proxies.
func (c *control) withProxies(ctx context.Context, n int) ([]Row, error) {
	var peaks, took []float64
	var p *proxies
	for round := range syncs {
		c.cfg.say("cp: %d proxies connect, round %d of %d", n, round+1, syncs)
		if p != nil {
			p.stop()
		}
		if err := c.istiod.resetPeak(); err != nil {
			return nil, err
		}
		var err error
		if p, err = c.connect(ctx, n); err != nil {
			return nil, err
		}
		defer p.stop()
		m, err := c.istiod.memory()
		if err != nil {
			return nil, err
		}
		peaks, took = append(peaks, m.peak/megabyte), append(took, p.sync.Seconds())
	}
	lags, err := c.changes(ctx, p)
	if err != nil {
		return nil, err
	}
	rss := cpRow(fmt.Sprint("cp.rss.", n), "MB", slices.Max(peaks), len(peaks))
	rss.Note = fmt.Sprintf("the most while %d proxies connect at once", n) + compared(rss.Name)
	sync := cpRow(fmt.Sprint("cp.sync.", n), "s", median(took), len(took))
	sync.Note = fmt.Sprintf("from dialling to %d proxies having %d resources, %.0f MB in all; %.2f to %.2f s",
		n, crowd.Pods+crowd.Services, float64(p.bytes)/megabyte, slices.Min(took), slices.Max(took)) + compared(sync.Name)
	rows := []Row{rss, sync}
	for _, q := range []struct {
		name string
		of   float64
	}{{"p50", 0.5}, {"p99", 0.99}} {
		row := cpRow("cp.change."+suffixed(q.name, n), "ms", percentile(lags, q.of), changes)
		row.Note = fmt.Sprintf("from the request that changes a pod's readiness to each of %d proxies", n) + compared(row.Name)
		rows = append(rows, row)
	}
	return rows, nil
}

// namesWith are the rows that n proxies give.
func namesWith(n int) []string {
	return []string{fmt.Sprint("cp.rss.", n), fmt.Sprint("cp.sync.", n), "cp.change." + suffixed("p50", n), "cp.change." + suffixed("p99", n)}
}

// suffixed is a row's last word: without a number for 50 proxies.
func suffixed(word string, n int) string {
	if n == proxyCounts[0] {
		return word
	}
	return fmt.Sprintf("%s.%d", word, n)
}

func cpRow(name, unit string, value float64, rounds int) Row {
	return Row{Name: name, Unit: unit, Value: value, Rounds: rounds, Better: Lower, Goal: goals[name]}
}

func compared(row string) string {
	if u := upstream[row]; u != "" {
		return "; upstream's istiod: " + u
	}
	return ""
}

// changes makes one pod after another unready and ready again, and gives the
// sorted milliseconds until each proxy knew.
func (c *control) changes(ctx context.Context, p *proxies) ([]float64, error) {
	var lags []float64
	for i := range changes {
		pod := i * (crowd.Pods / changes)
		begin := time.Now()
		if err := c.people.SetReady(ctx, pod, false); err != nil {
			return nil, err
		}
		seen, err := p.saw(c.people.UID(pod))
		if err != nil {
			return nil, err
		}
		for _, at := range seen {
			lags = append(lags, float64(at-begin.UnixNano())/1e6)
		}
		select {
		case <-time.After(between):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	for i := range changes {
		if err := c.people.SetReady(ctx, i*(crowd.Pods/changes), true); err != nil {
			return nil, err
		}
	}
	slices.Sort(lags)
	return lags, nil
}
