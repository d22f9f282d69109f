package waypoint

import (
	"context"
	"net"
	"net/http"
	"strconv"

	"github.com/ambit-mesh/ambit/internal/admin"
	"github.com/ambit-mesh/ambit/internal/decision"
	"github.com/ambit-mesh/ambit/internal/health"
)

// pages tell of decisions, those made and those that would be, and how it is.
func (p *proxy) pages() map[string]http.Handler {
	name := "waypoint " + p.config.Self.Namespace + "/" + p.config.Self.Name
	pages := decision.Pages(p.decisions, name)
	pages["POST /can"] = decision.CanPage(p.can, name)
	pages["GET "+health.Path] = admin.Page(p.health)
	return pages
}

// can tells what would become of a request that nobody sends, or of a
// connection that nobody makes: where it would carry requests each is decided
// by itself, and a plain one is told of.
func (p *proxy) can(ctx context.Context, a *decision.Asked) (decision.Forecast, error) {
	arrival, f, err := p.door.Foresee(a)
	if err != nil || arrival == nil {
		return f, err
	}
	if a.Request != nil {
		return p.exchange.Forecast(arrival, a.Request), nil
	}
	url := "http://" + net.JoinHostPort(a.Host, strconv.Itoa(int(a.Port))) + "/"
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return f, err
	}
	f = p.exchange.Forecast(arrival, r)
	f.Says = "each request is decided by itself (ambit can SOURCE METHOD URL); of GET /: " + f.Says
	return f, nil
}
