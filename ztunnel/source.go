package ztunnel

import (
	"context"
	"fmt"
	"maps"
	"os"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/ambit-mesh/ambit/internal/view"
	"github.com/ambit-mesh/ambit/internal/xds"
	"github.com/ambit-mesh/ambit/ztunnel/dump"
	"github.com/ambit-mesh/ambit/ztunnel/kept"
)

// source fills the state: the control plane, or a file.
type source interface {
	run(ctx context.Context) error
	// synced is closed when the state may be used.
	synced() <-chan struct{}
	// status is what the dump says of it.
	status() any
	// confirmed is when it last said that the state is what is served; now, if
	// it would tell of a change.
	confirmed() time.Time
}

func newSource(c *Config, store *view.Store, k *kept.Keeper, r *prometheus.Registry) (source, error) {
	if c.LocalFile != "" {
		return newFile(c.LocalFile, store)
	}
	if c.ControlPlane.Address == "" {
		return nil, fmt.Errorf("neither a control plane nor a local file is configured")
	}
	held, since := restore(store, k.State())
	client := c.ControlPlane.Client(xds.Config{
		ClusterID: c.Self.ClusterID, Node: c.Self.node(), Receiver: k.Receiver(store), Held: held,
		Logger: c.Logger.With("component", "xds"),
	}, r)
	return controlPlane{client: client, restored: since}, nil
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

// restore makes what was kept the state, and says what it holds and since when.
func restore(store *view.Store, s *kept.State) (held map[string]map[string]string, since time.Time) {
	if s == nil {
		return nil, time.Time{}
	}
	held = s.Held()
	for _, u := range s.Updates() {
		for _, r := range store.Receive(context.Background(), u) {
			held[u.Type][r.Name] = "" // to be sent again
		}
	}
	return held, s.Confirmed
}

type controlPlane struct {
	client *xds.Client
	// restored is when what the state began with was confirmed; zero if it began
	// with nothing.
	restored time.Time
}

func (c controlPlane) run(ctx context.Context) error { return c.client.Run(ctx) }
func (c controlPlane) synced() <-chan struct{}       { return c.client.Synced() }
func (c controlPlane) status() any                   { return c.client.Status() }

func (c controlPlane) confirmed() time.Time {
	s := c.client.Status()
	switch {
	case !closed(c.client.Synced()):
		return c.restored
	case s.Connected:
		return time.Now()
	}
	return s.Since
}

// closed reports whether a channel that nothing is sent to has been closed.
func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

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

func (file) confirmed() time.Time { return time.Now() }

func (f file) status() any { return map[string]string{"localFile": f.path} }
