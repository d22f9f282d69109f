package view

import (
	"context"
	"fmt"

	"github.com/ambit-mesh/ambit/internal/mesh"
)

// Wait returns the first View, from now on, that the condition holds for.
func (s *Store) Wait(ctx context.Context, condition func(*View) bool) (*View, error) {
	for {
		v := s.View()
		if condition(v) {
			return v, nil
		}
		select {
		case <-v.Superseded():
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// Local waits for the record of a pod on this node. Its caller bounds the
// wait: 5 s is the custom (dataplane spec 2.2).
func (s *Store) Local(ctx context.Context, namespace, name, serviceAccount string) (*mesh.Workload, error) {
	v, err := s.Wait(ctx, func(v *View) bool { return v.WorkloadByAccount(namespace, name, serviceAccount) != nil })
	if err != nil {
		return nil, fmt.Errorf("waiting for the record of %s/%s as %s: %w", namespace, name, serviceAccount, err)
	}
	return v.WorkloadByAccount(namespace, name, serviceAccount), nil
}
