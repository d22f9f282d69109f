package ztunnel

import (
	"context"
	"fmt"
	"maps"
	"os"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/ambit-mesh/ambit/internal/view"
	"github.com/ambit-mesh/ambit/internal/xds"
	"github.com/ambit-mesh/ambit/ztunnel/dump"
)

// source fills the state: the control plane, or a file.
type source interface {
	run(ctx context.Context) error
	// synced is closed when the state may be used.
	synced() <-chan struct{}
	// status is what the dump says of it.
	status() any
}

func newSource(c *Config, store *view.Store, r *prometheus.Registry) (source, error) {
	if c.LocalFile != "" {
		return newFile(c.LocalFile, store)
	}
	if c.ControlPlane.Address == "" {
		return nil, fmt.Errorf("neither a control plane nor a local file is configured")
	}
	client := c.ControlPlane.Client(xds.Config{
		ClusterID: c.Self.ClusterID, Node: c.Self.node(), Receiver: store,
		Logger: c.Logger.With("component", "xds"),
	}, r)
	return controlPlane{client}, nil
}

// node is how a ztunnel introduces itself (dataplane spec 4.2).
func (s *Self) node() xds.Node {
	ip := s.IP
	if ip == "" {
		ip = "1.1.1.1"
	}
	metadata := maps.Clone(s.Metadata)
	if metadata == nil {
		metadata = map[string]any{}
	}
	metadata["NAME"], metadata["NAMESPACE"], metadata["INSTANCE_IPS"] = s.Name, s.Namespace, ip
	metadata["NODE_NAME"], metadata["CLUSTER_ID"] = s.Node, s.ClusterID
	return xds.Node{
		ID:       fmt.Sprintf("ztunnel~%s~%s.%s~%s.svc.cluster.local", ip, s.Name, s.Namespace, s.Namespace),
		Metadata: metadata,
	}
}

type controlPlane struct{ client *xds.Client }

func (c controlPlane) run(ctx context.Context) error { return c.client.Run(ctx) }
func (c controlPlane) synced() <-chan struct{}       { return c.client.Synced() }
func (c controlPlane) status() any                   { return c.client.Status() }

// file is state that never changes.
type file struct{ path string }

func newFile(path string, store *view.Store) (source, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("reading local configuration: %w", err)
	}
	model, err := dump.ParseLocal(text)
	if err != nil {
		return nil, err
	}
	store.Replace(model)
	return file{path}, nil
}

func (file) run(ctx context.Context) error { <-ctx.Done(); return nil }

func (file) synced() <-chan struct{} {
	ready := make(chan struct{})
	close(ready)
	return ready
}

func (f file) status() any { return map[string]string{"localFile": f.path} }
