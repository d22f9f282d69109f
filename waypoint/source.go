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
	client := xds.NewClient(xds.Config{
		Address: c.ControlPlane.Address, ServerName: c.ControlPlane.ServerName,
		RootFile: c.ControlPlane.RootFile, TokenFile: c.ControlPlane.TokenFile,
		ClusterID: c.Self.ClusterID, Node: c.Self.node(), Types: table.Types(), Receiver: store,
		Logger: c.Logger.With("component", "xds"),
	})
	r.MustRegister(
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "ambit_xds_connected", Help: "Whether the control plane is connected",
		}, func() float64 { return map[bool]float64{true: 1}[client.Status().Connected] }),
		prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: "ambit_xds_connections_total", Help: "Connections made to the control plane",
		}, func() float64 { return float64(client.Status().Connections) }),
		prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: "ambit_xds_rejected_total", Help: "Responses of the control plane that were not wholly accepted",
		}, func() float64 { return float64(client.Status().Rejected) }),
	)
	return client, nil
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
		if c.CA.Address == "" {
			return nil, errors.New("no certificate authority is configured")
		}
		ca = certs.NewCAClient(certs.CAConfig{
			Address: c.CA.Address, ServerName: c.CA.ServerName, RootFile: c.CA.RootFile, TokenFile: c.CA.TokenFile,
			ClusterID: c.Self.ClusterID, OwnIdentity: true,
		})
	}
	return certs.NewManager(certs.Config{CA: ca, TTL: c.CertificateTTL, Changed: renewed.Add, Logger: c.Logger}), nil
}
