package bench

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"github.com/ambit-mesh/ambit/internal/certs/certstest"
)

// kind is one way of asking.
type kind struct {
	name string
	// rate is a pace, in requests a second, that every proxy keeps on a busy
	// machine.
	rate float64
	port func(proxyPorts) uint16
}

var kinds = []kind{
	{"http1", 1000, func(p proxyPorts) uint16 { return p.HTTP }},
	{"http2", 1000, func(p proxyPorts) uint16 { return p.HTTP2 }},
	{"grpc", 1000, func(p proxyPorts) uint16 { return p.GRPC }},
	{"body64k", 200, func(p proxyPorts) uint16 { return p.HTTP }},
}

// contest is a backend and the proxies before it. The proxies are on one core,
// the backend and the generator of load on another.
type contest struct {
	cfg     *Config
	dir, ca string
	backend *child
	plain   *child // the waypoint's engine
	tunnel  *child // the waypoint
	ports   proxyPorts
	behind  backendPorts
	peers   []*peer
}

// layer7 measures requests through a waypoint and through peers.
func layer7(ctx context.Context, cfg *Config) (rows []Row, err error) {
	if !cfg.wants("waypoint.http1", "waypoint.http2", "waypoint.grpc", "waypoint.body64k", "waypoint.hbone", "waypoint.memory") {
		return nil, nil
	}
	c, err := newContest(cfg)
	if err != nil {
		return nil, err
	}
	defer c.close()
	if err := c.invite(ctx); err != nil {
		return nil, err
	}
	for _, k := range kinds {
		if !cfg.wants("waypoint."+k.name+".rps_per_cpu", "waypoint."+k.name+".p99") {
			continue
		}
		cfg.say("waypoint.%s", k.name)
		r, err := c.compare(ctx, k)
		if err != nil {
			return rows, fmt.Errorf("waypoint.%s: %w", k.name, err)
		}
		rows = append(rows, r...)
	}
	for _, part := range []struct {
		name    string
		measure func(context.Context) (Row, error)
	}{{"waypoint.hbone.rps_per_cpu", c.hbone}, {"waypoint.memory.1000conns", c.memory}} {
		if !cfg.wants(part.name) {
			continue
		}
		cfg.say("%s", part.name)
		r, err := part.measure(ctx)
		if err != nil {
			return rows, fmt.Errorf("%s: %w", part.name, err)
		}
		rows = append(rows, r)
	}
	return rows, nil
}

func newContest(cfg *Config) (c *contest, err error) {
	c = &contest{cfg: cfg}
	defer func() {
		if err != nil {
			c.close()
		}
	}()
	if c.dir, err = os.MkdirTemp("", "ambit-bench"); err != nil {
		return c, err
	}
	ca, err := certstest.Make()
	if err != nil {
		return c, err
	}
	c.ca = filepath.Join(c.dir, "ca.pem")
	if err := ca.Save(c.ca); err != nil {
		return c, err
	}
	cfg.say("starting a backend and a waypoint")
	if c.backend, err = startPinned(restCore, "http-backend", c.ca); err != nil {
		return c, err
	}
	b := &c.behind
	if err := c.backend.tell(b); err != nil {
		return c, err
	}
	args := []string{strconv.Itoa(int(b.HTTP)), strconv.Itoa(int(b.GRPC)), c.ca}
	if c.plain, err = startPinned(proxyCore, append([]string{"waypoint-plain"}, args...)...); err != nil {
		return c, err
	}
	if err := c.plain.tell(&c.ports); err != nil {
		return c, err
	}
	if c.tunnel, err = startPinned(proxyCore, append([]string{"waypoint"}, args...)...); err != nil {
		return c, err
	}
	return c, nil
}

// invite starts the peers.
func (c *contest) invite(ctx context.Context) error {
	p, err := startNginx(ctx, c.behind)
	if err != nil {
		return err
	}
	c.peers = append(c.peers, p)
	if c.cfg.Envoy == "" {
		return nil
	}
	if p, err = startEnvoy(c.cfg.Envoy, c.dir, c.behind); err != nil {
		return err
	}
	c.peers = append(c.peers, p)
	return nil
}

func (c *contest) close() {
	for _, p := range c.peers {
		p.stop()
	}
	for _, x := range []*child{c.tunnel, c.plain, c.backend} {
		if x != nil {
			x.stop()
		}
	}
	os.RemoveAll(c.dir)
}

// figures are what one measurement says of one proxy.
type figures struct {
	perCPU float64 // requests for a second of the proxy's processor
	p99    float64 // at the fixed rate, in microseconds
}

// measure drives one proxy, flat out for its cost and then at a pace for what
// clients feel.
func (c *contest) measure(pid int, kind string, address string, rate float64) (figures, error) {
	before, err := cpuOfProcess(pid)
	if err != nil {
		return figures{}, err
	}
	flat, err := c.load(kind, address, 0)
	if err != nil {
		return figures{}, err
	}
	after, err := cpuOfProcess(pid)
	if err != nil {
		return figures{}, err
	}
	if after <= before {
		return figures{}, fmt.Errorf("%d requests cost no processor time", flat.Requests)
	}
	paced, err := c.load(kind, address, rate)
	return figures{float64(flat.Requests) / (after - before), paced.P99}, err
}

func (c *contest) load(kind, address string, rate float64) (l loaded, err error) {
	g, err := startPinned(restCore, "http-load", kind, address, fmt.Sprint(rate), fmt.Sprint(c.cfg.Seconds), c.ca)
	if err != nil {
		return l, err
	}
	defer g.stop()
	return l, g.tell(&l)
}

// compare measures the waypoint and its peers in turn, round after round.
func (c *contest) compare(ctx context.Context, k kind) (rows []Row, err error) {
	ours := []figures{}
	theirs := make([][]figures, len(c.peers))
	for range c.cfg.Rounds {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		f, err := c.measure(c.plain.cmd.Process.Pid, k.name, local(k.port(c.ports)), k.rate)
		if err != nil {
			return nil, err
		}
		ours = append(ours, f)
		for i, p := range c.peers {
			f, err := c.measure(p.cmd.Process.Pid, k.name, local(k.port(p.ports)), k.rate)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", p.name, err)
			}
			theirs[i] = append(theirs[i], f)
		}
	}
	perCPU := func(f figures) float64 { return f.perCPU }
	p99 := func(f figures) float64 { return f.p99 }
	for i, p := range c.peers {
		rows = append(rows,
			measured("waypoint."+k.name+".rps_per_cpu", "req/cpu-s", each(ours, perCPU), each(theirs[i], perCPU), p.name, Higher, 0),
			measured("waypoint."+k.name+".p99", "us", each(ours, p99), each(theirs[i], p99), p.name, Lower, 0))
		rows[len(rows)-1].Note = fmt.Sprintf("at %.0f requests a second", k.rate)
	}
	return rows, nil
}

func each(list []figures, of func(figures) float64) []float64 {
	out := make([]float64, len(list))
	for i, f := range list {
		out[i] = of(f)
	}
	return out
}

func local(port uint16) string { return fmt.Sprintf("127.0.0.1:%d", port) }

// hbone compares the whole waypoint, tunnels on both sides, with its engine.
func (c *contest) hbone(ctx context.Context) (Row, error) {
	var tunnel, plain []float64
	for range c.cfg.Rounds {
		if ctx.Err() != nil {
			return Row{}, ctx.Err()
		}
		t, err := c.measure(c.tunnel.cmd.Process.Pid, "hbone", tunnelAddress(), 500)
		if err != nil {
			return Row{}, err
		}
		p, err := c.measure(c.plain.cmd.Process.Pid, "http1", local(c.ports.HTTP), 500)
		if err != nil {
			return Row{}, err
		}
		tunnel, plain = append(tunnel, t.perCPU), append(plain, p.perCPU)
	}
	r := measured("waypoint.hbone.rps_per_cpu", "req/cpu-s", tunnel, plain, "its own plaintext", Higher, 0)
	r.Note = "HTTP/1.1 in mutual TLS on both sides"
	return r, nil
}

// memory is what 1000 open connections cost, each of which has made a request.
func (c *contest) memory(ctx context.Context) (Row, error) {
	const conns = 1000
	cost := func(resident func() (float64, error), address string) (float64, error) {
		before, err := resident()
		if err != nil {
			return 0, err
		}
		h, err := startPinned(restCore, "http-hold", address, strconv.Itoa(conns))
		if err != nil {
			return 0, err
		}
		defer h.stop()
		after, err := resident()
		return (after - before) / 1e6, err
	}
	ours, err := cost(c.plain.resident, local(c.ports.HTTP))
	if err != nil {
		return Row{}, err
	}
	nginx := c.peers[0]
	theirs, err := cost(func() (float64, error) { return memory(nginx.cmd.Process.Pid) }, local(nginx.ports.HTTP))
	if err != nil {
		return Row{}, err
	}
	r := measured("waypoint.memory.1000conns", "MB", []float64{ours}, []float64{max(theirs, 0.1)}, nginx.name, Lower, 0)
	r.Note = "plain HTTP/1.1, idle after one request; nginx keeps no buffer for an idle connection"
	return r, nil
}
