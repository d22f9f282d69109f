package ask

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/ambit-mesh/ambit/ambit/reach"
	"github.com/ambit-mesh/ambit/internal/decision"
	"github.com/ambit-mesh/ambit/internal/mesh"
)

// Can asks what would become of a request or a connection: a node proxy, which knows every
// service, and if that names a waypoint one of its replicas.
func Can(ctx context.Context, ztunnels []Opener, waypoints func(context.Context, mesh.ServiceKey) ([]Opener, error), q *decision.Question) (*decision.Forecast, error) {
	if _, err := q.Read(ctx); err != nil {
		return nil, err
	}
	f, err := first(ctx, ztunnels, q)
	if err != nil || f.Waypoint == "" {
		return f, err
	}
	k, err := mesh.ParseServiceKey(f.Waypoint)
	if err != nil {
		return nil, fmt.Errorf("the waypoint of the service: %w", err)
	}
	replicas, err := waypoints(ctx, k)
	if err != nil {
		return nil, err
	}
	if len(replicas) == 0 {
		f.Says = "its waypoint " + f.Waypoint + " does not run: connections wait for it, and then fail"
		return f, nil
	}
	return first(ctx, replicas, q)
}

// first is the answer of the first proxy that gives one. A question that makes
// no sense to one makes none to the others.
func first(ctx context.Context, proxies []Opener, q *decision.Question) (*decision.Forecast, error) {
	var silent []error
	for _, open := range proxies {
		f, err := can(ctx, open, q)
		if err == nil {
			return f, nil
		}
		if status, ok := errors.AsType[*reach.StatusError](err); ok && status.Status == http.StatusBadRequest {
			return nil, fmt.Errorf("%s says: %s", status.Name, strings.TrimSpace(status.Text))
		}
		silent = append(silent, err)
	}
	return nil, errors.Join(silent...)
}

func can(ctx context.Context, open Opener, q *decision.Question) (*decision.Forecast, error) {
	d, err := open(ctx)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	var f decision.Forecast
	return &f, d.Post(ctx, "/can", q, &f)
}
