package stage

import (
	"context"

	"github.com/ambit-mesh/ambit/ambit/inspect"
	"github.com/ambit-mesh/ambit/manifests"
)

// Dumps are the state dumps of every node proxy.
func (s *Stage) Dumps(ctx context.Context) ([]*inspect.Dump, error) {
	pods, err := s.Reach.RunningPods(ctx, manifests.Namespace, "app=ztunnel", "")
	if err != nil {
		return nil, err
	}
	var all []*inspect.Dump
	for _, p := range pods {
		b, err := s.Reach.Get(ctx, p.Namespace, p.Name, 15000, "/config_dump")
		if err != nil {
			return nil, err
		}
		d, err := inspect.Parse(b)
		if err != nil {
			return nil, err
		}
		all = append(all, d)
	}
	return all, nil
}
