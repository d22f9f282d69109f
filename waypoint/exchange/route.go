package exchange

import (
	"errors"
	"fmt"
	"net/http"

	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/internal/telemetry"
	"github.com/ambit-mesh/ambit/waypoint/match"
)

// route finds the rule. A workload that was dialled itself has no routes.
func (e *exchange) route() *reply {
	if e.service == nil {
		return nil
	}
	e.routes = e.table.Routes(e.service.Key(), e.arrival.Port)
	e.decision = e.routes.Find(&e.query)
	if e.decision.Outcome == match.NotFound {
		return &reply{
			status: http.StatusNotFound, flag: telemetry.ExchangeNoRoute, text: "no route",
			err: errors.New("no rule of a route takes the request"),
		}
	}
	if rule := e.decision.Spec(); rule != nil {
		e.record.Route, e.record.Rule, e.record.RuleName = e.decision.Route.Key, rule.Index, rule.Name
	}
	return nil
}

// filter applies the rule's filters to the request. Some answer it at once.
func (e *exchange) filter() *reply {
	d := e.decision
	if e.sharing = d.Share(&e.query); e.sharing.Status != 0 {
		return &reply{status: e.sharing.Status, flag: telemetry.ExchangeOK}
	}
	if location, status := d.Redirect(&e.query, "http", e.arrival.Port); status != 0 {
		a := &reply{status: status, flag: telemetry.ExchangeOK, header: http.Header{"Location": {location}}}
		match.EditResponse(d.Spec().Filters.Response, a.header)
		return a
	}
	after := e.query
	if rule := d.Spec(); rule != nil {
		after.Host = match.EditRequest(rule.Filters.Request, e.header, after.Host)
	}
	e.host, e.path = d.Rewrite(&after)
	e.chooseCopies()
	return nil
}

// choose picks the backend: a session's own, or one by weight. A share that leads nowhere is answered,
// and never given to others.
func (e *exchange) choose() *reply {
	switch {
	case e.service == nil:
		return nil
	case e.decision.Outcome == match.Default:
		e.backend = mesh.Backend{Service: e.service.Key(), Port: e.arrival.Port}
	default:
		e.session, _ = e.decision.Session(&e.query, e.record.Start)
		b, ok := e.decision.Rejoin(e.session)
		if !ok {
			b, ok = e.decision.Choose(e.config.Random)
		}
		e.record.Backend, e.record.BackendPort = b.Service, b.Port
		if !ok {
			return &reply{
				status: http.StatusInternalServerError, flag: telemetry.ExchangeInvalidBackend, text: "no valid backend",
				err: fmt.Errorf("no valid backend: %s", b.Invalid),
			}
		}
		e.backend = b
	}
	e.record.Backend, e.record.BackendPort = e.backend.Service, e.backend.Port
	e.host = match.EditRequest(e.backend.Filters.Request, e.header, e.host)
	return nil
}
