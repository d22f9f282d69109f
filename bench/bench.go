package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ambit-mesh/ambit/internal/certs/certstest"
	"github.com/ambit-mesh/ambit/internal/linux"
)

// Config is what is measured.
type Config struct {
	// Out gets the table, Progress what happens meanwhile. Nil: nobody does.
	Out, Progress io.Writer
	// Results is the file of the rows. Empty: none is written.
	Results string
	// Rounds is how often the paths are gone through. Zero: 7.
	Rounds int
	// Bytes is how much one measurement of throughput sends. Zero: 512 MiB.
	Bytes int64
	// Pings and Connections are per round and path. Zero: 4000 and 1500.
	Pings, Connections int
	// Idle is the most idle connections. Zero: 4000, or what the limit of open
	// files allows.
	Idle int
	// Only runs the rows whose name begins so. Empty: all.
	Only string
}

func (c *Config) fill() {
	def(&c.Out, io.Writer(io.Discard))
	def(&c.Progress, io.Writer(io.Discard))
	def(&c.Rounds, 7)
	def(&c.Bytes, int64(512<<20))
	def(&c.Pings, 4000)
	def(&c.Connections, 1500)
	def(&c.Idle, 4000)
}

func def[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// Run measures and reports. A goal missed is printed, not an error.
func Run(ctx context.Context, cfg Config) error {
	cfg.fill()
	files, err := linux.RaiseOpenFiles()
	if err != nil {
		return err
	}
	cfg.Idle = min(cfg.Idle, int(files)/2-500)
	var rows []Row
	for _, part := range []func(context.Context, *Config) ([]Row, error){layer4, translation} {
		r, err := part(ctx, &cfg)
		rows = append(rows, r...)
		if err != nil {
			return err
		}
	}
	printRows(cfg.Out, rows)
	if cfg.Results == "" {
		return nil
	}
	return save(cfg.Results, rows)
}

func (c *Config) wants(names ...string) bool {
	return slices.ContainsFunc(names, func(n string) bool { return strings.HasPrefix(n, c.Only) })
}

func (c *Config) say(format string, args ...any) { fmt.Fprintf(c.Progress, format+"\n", args...) }

// layer4 measures connections through two ztunnels.
func layer4(ctx context.Context, cfg *Config) (rows []Row, err error) {
	if !cfg.wants("l4.throughput", "l4.ping.p50", "l4.ping.p99", "l4.connect.rate", "l4.idle.bytes") {
		return nil, nil
	}
	s, err := newStage(cfg)
	if err != nil {
		return nil, err
	}
	defer s.close()
	for _, m := range []struct {
		name    string
		measure func(*Config) ([]Row, error)
	}{
		{"l4.throughput", s.throughput}, {"l4.ping", s.ping}, {"l4.connect.rate", s.connectRate}, {"l4.idle.bytes", s.idle},
	} {
		if !cfg.wants(m.name) && !strings.HasPrefix(cfg.Only, m.name) {
			continue
		}
		if ctx.Err() != nil {
			return rows, ctx.Err()
		}
		r, err := m.measure(cfg)
		if err != nil {
			return rows, fmt.Errorf("%s: %w", m.name, err)
		}
		rows = append(rows, r...)
	}
	return rows, nil
}

// stage is all processes and the paths through them.
type stage struct {
	dir         string
	plain, mesh *pair
	children    []*child
	ztunnels    []*child
	tlsHops     []*child
	tunedHops   []*child
	direct      *path
	hops        *path // two plain ones
	frozen      *path // two of raw TLS
	tuned       *path
	hbone       *path
}

const stateFile = `
workloads:
- {uid: bench//Pod/bench/client, name: client, namespace: bench, serviceAccount: client, workloadIps: [%s], protocol: HBONE}
- {uid: bench//Pod/bench/server, name: server, namespace: bench, serviceAccount: server, workloadIps: [%s], protocol: HBONE}
`

func newStage(cfg *Config) (s *stage, err error) {
	s = &stage{}
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	if s.dir, err = os.MkdirTemp("", "ambit-bench"); err != nil {
		return s, err
	}
	if s.plain, err = newPair("10.251.1"); err != nil {
		return s, err
	}
	if s.mesh, err = newPair("10.251.2"); err != nil {
		return s, err
	}
	ca, err := certstest.Make()
	if err != nil {
		return s, err
	}
	caFile, state := filepath.Join(s.dir, "ca.pem"), filepath.Join(s.dir, "state.yaml")
	text := fmt.Sprintf(stateFile, s.mesh.clientAddr, s.mesh.serverAddr)
	if err := errors.Join(ca.Save(caFile), os.WriteFile(state, []byte(text), 0o600)); err != nil {
		return s, err
	}
	cfg.say("starting applications, baselines and two ztunnels")
	if err := s.startDirect(); err != nil {
		return s, err
	}
	if err := s.startMesh(state, caFile); err != nil {
		return s, err
	}
	return s, s.startBaselines(caFile)
}

const appPort = 8080

// startDirect runs the application where nothing is in the way.
func (s *stage) startDirect() error {
	app := netip.AddrPortFrom(s.plain.serverAddr, appPort)
	_, err := s.start(s.plain.server, "app", app.String())
	s.direct = &path{"direct", s.plain.client, app}
	return err
}

// startBaselines runs two hops of each kind, in the enrolled pods, so that the
// kernel's part (connection tracking, the rules) is the same as ztunnel's.
func (s *stage) startBaselines(caFile string) (err error) {
	if s.hops, _, err = s.twoHops("two plain hops", 9000, []string{"plain"}, []string{"plain"}); err != nil {
		return err
	}
	if s.frozen, s.tlsHops, err = s.twoHops("two raw TLS hops", 9001, []string{"tls-out", caFile, "frozen"}, []string{"tls-in", caFile, "frozen"}); err != nil {
		return err
	}
	s.tuned, s.tunedHops, err = s.twoHops("two tuned TLS hops", 9002, []string{"tls-out", caFile, "tuned"}, []string{"tls-in", caFile, "tuned"})
	return err
}

// twoHops are one in each pod.
func (s *stage) twoHops(name string, port uint16, out, in []string) (*path, []*child, error) {
	near := netip.AddrPortFrom(s.mesh.clientAddr, port)
	far := netip.AddrPortFrom(s.mesh.serverAddr, port)
	args := func(role []string, at, to netip.AddrPort) []string {
		return append([]string{role[0], at.String(), to.String()}, role[1:]...)
	}
	b, err := s.start(s.mesh.server, args(in, far, s.hbone.to)...)
	if err != nil {
		return nil, nil, err
	}
	a, err := s.start(s.mesh.client, args(out, near, far)...)
	if err != nil {
		return nil, nil, err
	}
	return &path{name, s.mesh.client, near}, []*child{a, b}, nil
}

func (s *stage) startMesh(state, caFile string) error {
	if err := s.mesh.enrol(); err != nil {
		return err
	}
	app := netip.AddrPortFrom(s.mesh.serverAddr, appPort)
	if _, err := s.start(s.mesh.server, "app", app.String()); err != nil {
		return err
	}
	for pod, ns := range map[string]*linux.NetNS{"client": s.mesh.client, "server": s.mesh.server} {
		c, err := s.start(ns, "ztunnel", pod, state, caFile)
		if err != nil {
			return err
		}
		s.ztunnels = append(s.ztunnels, c)
	}
	s.hbone = &path{"two ztunnels", s.mesh.client, app}
	return nil
}

func (s *stage) start(ns *linux.NetNS, args ...string) (*child, error) {
	c, err := start(ns, args...)
	if err == nil {
		s.children = append(s.children, c)
	}
	return c, err
}

func (s *stage) close() {
	for _, c := range slices.Backward(s.children) {
		c.stop()
	}
	for _, p := range []*pair{s.plain, s.mesh} {
		if p != nil {
			p.close()
		}
	}
	os.RemoveAll(s.dir)
}

// rounds goes through the paths again and again, beginning with another one each
// time, and gives each one's results in order.
func rounds[T any](cfg *Config, what string, paths []*path, measure func(*path) (T, error)) (map[*path][]T, error) {
	got := map[*path][]T{}
	for round := range cfg.Rounds {
		for i := range paths {
			p := paths[(i+round)%len(paths)]
			v, err := measure(p)
			if err != nil {
				return nil, err
			}
			got[p] = append(got[p], v)
		}
		cfg.say("%s: round %d of %d", what, round+1, cfg.Rounds)
	}
	return got, nil
}

func (s *stage) throughput(cfg *Config) ([]Row, error) {
	paths := []*path{s.direct, s.hops, s.frozen, s.tuned, s.hbone}
	procs := map[*path][]*child{s.frozen: s.tlsHops, s.tuned: s.tunedHops, s.hbone: s.ztunnels}
	cpu := map[*path][]float64{} // seconds per GB
	got, err := rounds(cfg, "l4.throughput", paths, func(p *path) (float64, error) {
		before := cpuOf(procs[p])
		v, err := throughput(p, cfg.Bytes)
		cpu[p] = append(cpu[p], (cpuOf(procs[p])-before)/(float64(cfg.Bytes)/1e9))
		return v, err
	})
	if err != nil {
		return nil, err
	}
	row := measured("l4.throughput", "MB/s", got[s.hbone], got[s.frozen], s.frozen.name, Higher, 0.9)
	row.Note = fmt.Sprintf("one stream; direct %.0f, plain hops %.0f, tuned TLS %.0f MB/s; processor s/GB of both hops: ztunnels %.2f, raw TLS %.2f, tuned %.2f",
		median(got[s.direct]), median(got[s.hops]), median(got[s.tuned]), median(cpu[s.hbone]), median(cpu[s.frozen]), median(cpu[s.tuned]))
	return []Row{row}, nil
}

func (s *stage) ping(cfg *Config) ([]Row, error) {
	got, err := rounds(cfg, "l4.ping", []*path{s.direct, s.frozen, s.hbone}, func(p *path) ([]time.Duration, error) { return ping(p, cfg.Pings) })
	if err != nil {
		return nil, err
	}
	var rows []Row
	for name, q := range map[string]float64{"l4.ping.p50": 0.5, "l4.ping.p99": 0.99} {
		beyond := func(p *path) (us []float64) {
			for i, sorted := range got[p] {
				us = append(us, float64(percentile(sorted, q)-percentile(got[s.direct][i], q))/1e3)
			}
			return us
		}
		row := measured(name, "us", beyond(s.hbone), beyond(s.frozen), s.frozen.name, Lower, 1.5)
		row.Note = "1 byte; over the direct round trip"
		rows = append(rows, row)
	}
	slices.SortFunc(rows, func(a, b Row) int { return strings.Compare(a.Name, b.Name) })
	return rows, nil
}

func (s *stage) connectRate(cfg *Config) ([]Row, error) {
	n := int64(cfg.Connections)
	got, err := rounds(cfg, "l4.connect.rate", []*path{s.direct, s.hops, s.frozen, s.hbone}, func(p *path) (float64, error) {
		if p == s.frozen { // a handshake for each: fewer will do
			return connectRate(p, n/5)
		}
		return connectRate(p, n)
	})
	if err != nil {
		return nil, err
	}
	row := measured("l4.connect.rate", "1/s", got[s.hbone], got[s.hops], s.hops.name, Higher, 0.4)
	row.Note = fmt.Sprintf("warm pool, 16 at a time; direct %.0f, raw TLS %.0f /s", median(got[s.direct]), median(got[s.frozen]))
	return []Row{row}, nil
}

// idle measures the two ztunnels, and the two raw TLS hops beside them.
func (s *stage) idle(cfg *Config) ([]Row, error) {
	ours, err := idleBytes(cfg, s.hbone, s.ztunnels, cfg.Idle)
	if err != nil {
		return nil, err
	}
	base, err := idleBytes(cfg, s.frozen, s.tlsHops, cfg.Idle/4)
	if err != nil {
		return nil, err
	}
	row := measured("l4.idle.bytes", "B", []float64{ours}, []float64{base}, s.frozen.name, Lower, 0)
	row.Note = fmt.Sprintf("both processes together, after 1 MiB each; slope over N up to %d (baseline %d); page size %d", cfg.Idle, cfg.Idle/4, unix.Getpagesize())
	return []Row{row}, nil
}

func idleBytes(cfg *Config, p *path, procs []*child, most int) (float64, error) {
	var conns []*net.TCPConn
	defer func() {
		for _, c := range conns {
			c.Close()
		}
	}()
	var x, y []float64
	for i := range 5 { // 1/5 to 5/5 of them
		var err error
		if conns, err = hold(p, conns, most*(i+1)/5); err != nil {
			return 0, err
		}
		time.Sleep(300 * time.Millisecond)
		var sum float64
		for _, c := range procs {
			r, err := c.resident()
			if err != nil {
				return 0, err
			}
			sum += r
		}
		x, y = append(x, float64(len(conns))), append(y, sum)
		cfg.say("l4.idle.bytes: %s: %d connections, %.1f MiB", p.name, len(conns), sum/(1<<20))
	}
	return slope(x, y), nil
}
