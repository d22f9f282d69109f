package waypoint

import (
	"context"
	"errors"
	"fmt"
	"maps"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/ambit-mesh/ambit/internal/certs"
	"github.com/ambit-mesh/ambit/internal/xds"
	"github.com/ambit-mesh/ambit/waypoint/table"
)

// source fills the table.
type source interface {
	Run(ctx context.Context) error
	// Synced is closed when the table may be used.
	Synced() <-chan struct{}
}

func newSource(c *Config, store *table.Store, r *prometheus.Registry) (source, error) {
	if c.Store != nil {
		return given{}, nil
	}
	if c.ControlPlane.Address == "" {
		return nil, errors.New("no control plane is configured")
	}
	return c.ControlPlane.Client(xds.Config{
		ClusterID: c.Self.ClusterID, Node: c.Self.node(), Types: table.Types(), Receiver: store,
		Logger: c.Logger.With("component", "xds"),
	}, r), nil
}

// node is how a waypoint introduces itself (dataplane spec 4.2).
func (s *Self) node() xds.Node {
	metadata := maps.Clone(s.Metadata)
	if metadata == nil {
		metadata = map[string]any{}
	}
	metadata["NAME"], metadata["NAMESPACE"], metadata["INSTANCE_IPS"] = s.Name, s.Namespace, s.IP
	metadata["NODE_NAME"], metadata["CLUSTER_ID"], metadata["SERVICE_ACCOUNT"] = s.Node, s.ClusterID, s.ServiceAccount
	metadata[xds.MetadataGateway] = s.Gateway
	return xds.Node{
		ID:       fmt.Sprintf("waypoint~%s~%s.%s~%s.svc.%s", s.IP, s.Name, s.Namespace, s.Namespace, s.Domain),
		Metadata: metadata,
	}
}

// given is a table that somebody else fills.
type given struct{}

func (given) Run(ctx context.Context) error { <-ctx.Done(); return nil }
func (given) Synced() <-chan struct{} {
	ready := make(chan struct{})
	close(ready)
	return ready
}

// newCertificates keeps the waypoint's own certificate.
func newCertificates(c *Config, renewed *certs.Renewals) (*certs.Manager, error) {
	ca := c.Authority
	if ca == nil {
		var err error
		if ca, err = c.CA.Authority(c.Self.ClusterID, true); err != nil {
			return nil, err
		}
	}
	return certs.NewManager(certs.Config{
		CA: ca, TTL: c.CertificateTTL, Changed: renewed.Add, RevocationsFile: c.RevocationsFile, Logger: c.Logger,
	}), nil
}
