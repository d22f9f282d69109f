package ask

import (
	"context"

	"golang.org/x/sync/errgroup"

	"github.com/ambit-mesh/ambit/internal/health"
)

// Answer is what one proxy says of itself, if it was Asked.
type Answer struct {
	Asked bool
	Said  health.Proxy
	Err   error
}

// Probe asks every proxy what it decides with, in their order.
func Probe(ctx context.Context, proxies []Proxy) []Answer {
	out := make([]Answer, len(proxies))
	var g errgroup.Group
	g.SetLimit(asksAtOnce)
	for i, p := range proxies {
		if p.Admin == nil {
			continue
		}
		a := &out[i]
		a.Asked = true
		g.Go(func() error {
			d, err := p.Admin(ctx)
			if err != nil {
				a.Err = err
				return nil
			}
			defer d.Close()
			a.Err = d.GetJSON(ctx, health.Path, &a.Said)
			return nil
		})
	}
	_ = g.Wait() // each error is in its Answer
	return out
}
