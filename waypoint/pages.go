package waypoint

import (
	"context"
	"net/http"

	"github.com/ambit-mesh/ambit/internal/decision"
)

// pages tell of decisions, those made and those that would be.
func (p *proxy) pages() map[string]http.Handler {
	name := "waypoint " + p.config.Self.Namespace + "/" + p.config.Self.Name
	pages := decision.Pages(p.decisions, name)
	pages["POST /can"] = decision.CanPage(p.can, name)
	return pages
}

// can tells what would become of a request that nobody sends.
func (p *proxy) can(_ context.Context, a *decision.Asked) (decision.Forecast, error) {
	arrival, f, err := p.door.Foresee(a)
	if err != nil || arrival == nil {
		return f, err
	}
	return p.exchange.Forecast(arrival, a.Request), nil
}
