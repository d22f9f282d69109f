package bench

import (
	"context"
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

	"github.com/ambit-mesh/ambit/cni/rules"
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
	// Seconds is how long one measurement of requests lasts. Zero: 1.
	Seconds float64
	// Envoy is the program of Envoy, to be compared too. Empty: it is not.
	Envoy string
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
	def(&c.Seconds, 1)
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
	for _, part := range []func(context.Context, *Config) ([]Row, error){layer4, layer7, routeChange, translation, viewApply, controlPlane, podStart} {
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
	if !cfg.wants("l4.throughput", "l4.ping.p50", "l4.ping.p99", "l4.connect.rate", "l4.idle.bytes", "connect.rate.cold", "idle.tunnel.bytes", "h2.small", "h2.ping.beside_bulk.p99", "h3.bulk.1", "udp.pps") {
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
		{"connect.rate.cold", s.connectCold}, {"idle.tunnel.bytes", s.idleTunnels},
		{"h2.small", s.small}, {"h2.ping.beside_bulk.p99", s.besideBulk}, {"h3.bulk.1", s.bulkH3}, {"udp.pps", s.datagramsH3},
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

// stage is all processes and the paths through them. Each path has two pods of
// its own.
type stage struct {
	dir      string
	pairs    []*pair
	children []*child
	hops     map[*path][]*child // the proxies in a path

	direct *path // nothing in the way, no rules either
	plain  *path // two hops of plain copying
	frozen *path // two of raw TLS
	tuned  *path
	bare   *path // two of the tunnel alone
	hbone  *path // two ztunnels
	cold   *path // two of the tunnel alone, made for each connection
	kept   *path // likewise, and kept after it
	quic   *path // two hops of QUIC
	overH3 *path // two ztunnels that speak HTTP/3, and carry UDP
}

const stateFile = `
workloads:
- {uid: bench//Pod/bench/client, name: client, namespace: bench, serviceAccount: client, workloadIps: [%[1]s], protocol: HBONE%[3]s}
- {uid: bench//Pod/bench/server, name: server, namespace: bench, serviceAccount: server, workloadIps: [%[2]s], protocol: HBONE%[3]s}
`

const (
	appPort     = 8080
	capturePort = ":15001" // where captured connections arrive
	tunnelPort  = 15008
)

func newStage(cfg *Config) (s *stage, err error) {
	s = &stage{hops: map[*path][]*child{}}
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	if s.dir, err = os.MkdirTemp("", "ambit-bench"); err != nil {
		return s, err
	}
	ca, err := certstest.Make()
	if err != nil {
		return s, err
	}
	caFile := filepath.Join(s.dir, "ca.pem")
	if err := ca.Save(caFile); err != nil {
		return s, err
	}
	cfg.say("starting applications, baselines and two ztunnels")
	if s.direct, _, err = s.pods("direct"); err != nil {
		return s, err
	}
	for _, b := range []struct {
		path    **path
		name    string
		out, in []string
	}{
		{&s.plain, "two plain hops", []string{"plain-out"}, []string{"plain-in"}},
		{&s.frozen, "two raw TLS hops", []string{"tls-out", caFile, "frozen"}, []string{"tls-in", caFile, "frozen"}},
		{&s.tuned, "two tuned TLS hops", []string{"tls-out", caFile, "tuned"}, []string{"tls-in", caFile, "tuned"}},
		{&s.bare, "two tunnel hops", []string{"tunnel-out", caFile}, []string{"tunnel-in", caFile}},
		{&s.cold, "two cold tunnel hops", []string{"cold-out", caFile, "drop"}, []string{"tunnel-in", caFile}},
		{&s.kept, "two idle tunnel hops", []string{"cold-out", caFile, "keep"}, []string{"tunnel-in", caFile}},
	} {
		if *b.path, err = s.twoHops(b.name, rules.Spec{}, b.out, b.in); err != nil {
			return s, err
		}
	}
	if s.quic, err = s.twoHops("two hops of quic-go", rules.Spec{UDP: true}, []string{"quic-out", caFile}, []string{"quic-in", caFile}); err != nil {
		return s, err
	}
	if s.hbone, err = s.twoZtunnels("two ztunnels", rules.Spec{}, "", caFile); err != nil {
		return s, err
	}
	s.overH3, err = s.twoZtunnels("two ztunnels over HTTP/3", rules.Spec{UDP: true}, ", transport: h3, udp: mesh", caFile)
	return s, err
}

// pods makes two pods with the application in one.
func (s *stage) pods(name string) (*path, *pair, error) {
	pods, err := newPair(fmt.Sprintf("10.251.%d", len(s.pairs)+1))
	if err != nil {
		return nil, nil, err
	}
	s.pairs = append(s.pairs, pods)
	p := &path{name, pods.client, netip.AddrPortFrom(pods.serverAddr, appPort)}
	if _, err = s.start(pods.server, "app", p.to.String()); err == nil {
		_, err = s.start(pods.server, "datagram-app", p.to.String())
	}
	return p, pods, err
}

// twoHops puts a proxy into each of two pods, where a ztunnel would be.
func (s *stage) twoHops(name string, spec rules.Spec, out, in []string) (*path, error) {
	p, pods, err := s.pods(name)
	if err != nil {
		return nil, err
	}
	if err := pods.enrol(spec); err != nil {
		return nil, err
	}
	far := netip.AddrPortFrom(pods.serverAddr, tunnelPort).String()
	b, err := s.start(pods.server, append([]string{in[0], far, p.to.String()}, in[1:]...)...)
	if err != nil {
		return nil, err
	}
	a, err := s.start(pods.client, append([]string{out[0], capturePort, far}, out[1:]...)...)
	s.hops[p] = []*child{a, b}
	return p, err
}

// twoZtunnels puts one into each of two pods, whose records say more.
func (s *stage) twoZtunnels(name string, spec rules.Spec, more, caFile string) (*path, error) {
	p, pods, err := s.pods(name)
	if err != nil {
		return nil, err
	}
	if err := pods.enrol(spec); err != nil {
		return nil, err
	}
	state := filepath.Join(s.dir, strings.ReplaceAll(name, "/", "")+".yaml")
	text := fmt.Sprintf(stateFile, pods.clientAddr, pods.serverAddr, more)
	if err := os.WriteFile(state, []byte(text), 0o600); err != nil {
		return nil, err
	}
	for pod, ns := range map[string]*linux.NetNS{"client": pods.client, "server": pods.server} {
		c, err := s.start(ns, "ztunnel", pod, state, caFile)
		if err != nil {
			return nil, err
		}
		s.hops[p] = append(s.hops[p], c)
	}
	return p, nil
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
	for _, p := range s.pairs {
		p.close()
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
	paths := []*path{s.direct, s.plain, s.frozen, s.tuned, s.bare, s.hbone}
	cpu := map[*path][]float64{} // seconds per GB
	got, err := rounds(cfg, "l4.throughput", paths, func(p *path) (float64, error) {
		before := cpuOf(s.hops[p])
		v, err := throughput(p, cfg.Bytes)
		cpu[p] = append(cpu[p], (cpuOf(s.hops[p])-before)/(float64(cfg.Bytes)/1e9))
		return v, err
	})
	if err != nil {
		return nil, err
	}
	row := measured("l4.throughput", "MB/s", got[s.hbone], got[s.frozen], s.frozen.name, Higher, 0.9)
	row.Note = "one stream; MB/s (processor s/GB of both hops):"
	for _, p := range paths {
		row.Note += fmt.Sprintf(" %s %.0f (%.2f)", p.name, median(got[p]), median(cpu[p]))
	}
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
	got, err := rounds(cfg, "l4.connect.rate", []*path{s.direct, s.plain, s.frozen, s.hbone}, func(p *path) (float64, error) {
		if p == s.frozen { // a handshake for each: fewer will do
			return connectRate(p, n/5)
		}
		return connectRate(p, n)
	})
	if err != nil {
		return nil, err
	}
	row := measured("l4.connect.rate", "1/s", got[s.hbone], got[s.plain], s.plain.name, Higher, 0.4)
	row.Note = fmt.Sprintf("warm pool, 16 at a time; direct %.0f, raw TLS %.0f /s", median(got[s.direct]), median(got[s.frozen]))
	return []Row{row}, nil
}

// idle measures the two ztunnels, and the two raw TLS hops beside them.
func (s *stage) idle(cfg *Config) ([]Row, error) {
	ours, err := idleBytes(cfg, s.hbone, s.hops[s.hbone], cfg.Idle)
	if err != nil {
		return nil, err
	}
	base, err := idleBytes(cfg, s.frozen, s.hops[s.frozen], cfg.Idle/4)
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
