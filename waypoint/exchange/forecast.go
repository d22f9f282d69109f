package exchange

import (
	"fmt"
	"net/http"
	"strings"

	"github.com/ambit-mesh/ambit/internal/decision"
	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/internal/telemetry"
	"github.com/ambit-mesh/ambit/waypoint/match"
)

// Forecast tells what would become of a request that nobody sends. It goes
// through the very steps of real ones, up to the last, which sends. External
// authorizers are asked.
func (x *Exchanger) Forecast(a *Arrival, r *http.Request) decision.Forecast {
	e := &exchange{Exchanger: x, r: r, arrival: a}
	e.choosesTable()
	e.begin()
	no := e.foresee()
	if no != nil {
		e.record.Status, e.record.Flag, e.record.Err = no.status, no.flag, no.err
		if no.reason != "" {
			e.record.Reason = no.reason
		}
		if e.grpc && no.status >= 400 {
			e.record.Status, e.record.GRPCStatus = http.StatusOK, match.GRPCStatus(no.status)
		}
	}
	f := decision.Forecast{Allowed: no == nil || no.status != 0 && no.status < 400, Story: e.story().Tell()}
	f.Story.Trace = ""
	f.Says = e.says(no)
	if no == nil {
		f.Story.Backend, f.Story.Choice = e.backends(), f.Says
	}
	return f
}

// foresee is the steps, and whether an endpoint would be there.
func (e *exchange) foresee() *reply {
	for _, step := range steps[:len(steps)-1] {
		if no := step(e); no != nil {
			return no
		}
	}
	if e.workload == nil && e.healthy(e.backend.Service) == 0 {
		return &reply{
			status: http.StatusServiceUnavailable, flag: telemetry.ExchangeNoHealthy,
			err: fmt.Errorf("no endpoint of %s is ready", e.backend.Service),
		}
	}
	return nil
}

func (e *exchange) says(no *reply) string {
	switch {
	case no == nil && e.workload != nil:
		return "it would reach the workload " + e.workload.UID
	case no == nil:
		return fmt.Sprintf("it would reach one of %d endpoints of %s", e.healthy(e.backend.Service), e.backend.Service)
	case no.err != nil:
		return fmt.Sprintf("it would be answered %d: %v", no.status, no.err)
	case no.status < 400:
		return fmt.Sprintf("its route would answer %d", no.status)
	}
	return fmt.Sprintf("it would be answered %d: %s", no.status, e.record.Reason)
}

// backends are all that the rule may choose, with their weights.
func (e *exchange) backends() string {
	rule := e.decision.Spec()
	if rule == nil || len(rule.Backends) < 2 {
		return fmt.Sprintf("%s:%d", e.backend.Service, e.backend.Port)
	}
	var out []string
	for _, b := range rule.Backends {
		out = append(out, fmt.Sprintf("%s:%d (weight %d)", b.Service, b.Port, b.Weight))
	}
	return "one of " + strings.Join(out, ", ")
}

// healthy counts the endpoints that may be chosen, whatever their circuits.
func (e *exchange) healthy(k mesh.ServiceKey) int {
	v := e.table.View()
	s, n := v.Service(k), 0
	if s == nil {
		return 0
	}
	for _, endpoint := range v.Endpoints(k) {
		if (!endpoint.Workload.Unhealthy || s.LoadBalancing.AllowUnhealthy) && endpoint.Workload.Capacity > 0 {
			n++
		}
	}
	return n
}
