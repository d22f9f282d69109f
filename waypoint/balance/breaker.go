package balance

import (
	"math"
	"strconv"
	"time"

	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/waypoint/circuit"
)

// report tells an endpoint's circuit how a try ended.
func (g *group) report(e *endpoint, now time.Time, in Result, era uint32, probe bool) {
	rules := &g.roster.Load().rules
	out := outcome(&in)
	e.mu.Lock()
	if out == circuit.Good {
		e.learnLocked(now, in.Latency)
	}
	change := e.circuit.Report(now, rules, circuit.Report{Outcome: out, Era: era, Probe: probe, Detail: in.detail})
	e.mu.Unlock()
	if change != circuit.None || probe {
		g.moved(e, now, change)
	}
}

// outcome is what a result says about the endpoint.
func outcome(in *Result) circuit.Outcome {
	switch {
	case in.Err != nil && in.Local:
		return circuit.LocalFailure
	case in.Err != nil, in.Status >= 502 && in.Status <= 504:
		return circuit.GatewayError
	case in.Status >= 500:
		return circuit.ServerError
	case in.Status > 0:
		return circuit.Good
	}
	return circuit.Unknown
}

func (r *Result) detail() string {
	if r.Err != nil {
		return r.Err.Error()
	}
	return "status " + strconv.Itoa(r.Status)
}

// moved follows a change of a circuit: ejects what has tripped if there is
// leave to, and tells the roster.
func (g *group) moved(e *endpoint, now time.Time, change circuit.Change) {
	g.mu.Lock()
	defer g.mu.Unlock()
	e.mu.Lock()
	if state := e.circuit.State(); change == circuit.Trips && (state == circuit.Closed || state == circuit.Ramping) && g.mayEjectLocked() {
		e.circuit.Eject(now, &g.roster.Load().rules)
	}
	e.publishLocked()
	out := e.circuit.State() == circuit.Open || e.circuit.State() == circuit.HalfOpen
	e.mu.Unlock()
	g.ejected = keep(g.ejected, func(o *endpoint) bool { return o != e })
	if out && g.endpoints[e.uid] == e {
		g.ejected = append(g.ejected, e)
	}
	g.roster.Load().refresh()
	g.scheduleLocked()
}

// defaultMaxEjection is in percent of the ready endpoints.
const defaultMaxEjection = 50

// mayEjectLocked reports whether one more may be ejected.
func (g *group) mayEjectLocked() bool {
	r := g.roster.Load()
	out := 0
	for _, e := range g.ejected {
		if e.listed {
			out++
		}
	}
	percent := r.outlier.MaxEjectionPercent
	if percent <= 0 {
		percent = defaultMaxEjection
	}
	return out+1 <= max(1, r.ready*percent/100) && out+1 < r.ready
}

// scheduleLocked computes when the next probe is wanted.
func (g *group) scheduleLocked() {
	at := int64(math.MaxInt64)
	for _, e := range g.ejected {
		if !e.listed {
			continue
		}
		e.mu.Lock()
		if t, ok := e.circuit.NextProbe(); ok {
			at = min(at, t.UnixNano())
		}
		e.mu.Unlock()
	}
	g.probeAt.Store(at)
}

// resetLocked closes every circuit: the breaker was switched off.
func (g *group) resetLocked(now time.Time) {
	for _, e := range g.endpoints {
		e.mu.Lock()
		e.circuit.Reset(now)
		e.publishLocked()
		e.mu.Unlock()
	}
	g.ejected = nil
	g.roster.Load().refresh()
	g.scheduleLocked()
}

// probeOverdue is how long a probe waits for a request that can be repeated.
const probeOverdue = 5 * time.Second

// probed is an ejected endpoint that is due to be asked whether it is well. A
// key or an address belongs to one endpoint, which asks for itself.
func (p *picker) probed() *candidate {
	due := p.now.UnixNano() - p.group.probeAt.Load()
	kind := p.query.Settings.Balancer.Kind
	if due < 0 || kind == mesh.BalanceHash || p.query.NoProbe && due < int64(probeOverdue) {
		return nil
	}
	p.group.mu.Lock()
	defer p.group.mu.Unlock()
	for _, e := range p.group.ejected {
		c := p.roster.byUID()[e.uid]
		if c != nil && c.endpoint == e && !p.query.avoids(e.uid) && p.takeProbeLocked(e) {
			return c
		}
	}
	return nil
}

// mayProbe is probed for one candidate.
func (p *picker) mayProbe(c *candidate) bool {
	due := p.now.UnixNano() - p.group.probeAt.Load()
	if due < 0 || p.query.NoProbe && due < int64(probeOverdue) {
		return false
	}
	p.group.mu.Lock()
	defer p.group.mu.Unlock()
	return p.takeProbeLocked(c.endpoint)
}

func (p *picker) takeProbeLocked(e *endpoint) bool {
	e.mu.Lock()
	p.probe = e.circuit.Probe(p.now)
	e.publishLocked()
	e.mu.Unlock()
	if p.probe {
		p.group.scheduleLocked()
	}
	return p.probe
}

// publishLocked shows the circuit to who chooses without a lock.
func (e *endpoint) publishLocked() {
	e.share.Store(e.circuit.Share())
	e.era.Store(e.circuit.Era())
}
