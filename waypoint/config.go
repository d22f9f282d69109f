package waypoint

import (
	"log/slog"
	"time"

	"github.com/ambit-mesh/ambit/internal/admin"
	"github.com/ambit-mesh/ambit/internal/certs"
	"github.com/ambit-mesh/ambit/internal/controlplane"
	"github.com/ambit-mesh/ambit/internal/hbone"
	"github.com/ambit-mesh/ambit/internal/hbone/h2"
	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/internal/tracing"
	"github.com/ambit-mesh/ambit/waypoint/exchange"
	"github.com/ambit-mesh/ambit/waypoint/table"
)

// Config is all that a waypoint is told. Nothing changes it once Run has it.
type Config struct {
	// Version is shown in metrics and dumps. Empty is "dev".
	Version string
	// Self is this proxy's own pod.
	Self Self
	// ControlPlane sends the state; CA signs the certificate.
	ControlPlane, CA controlplane.Endpoint
	// Store is the state in the control plane's place, for tests. Nil asks
	// ControlPlane.
	Store *table.Store
	// Authority signs certificates in CA's place, for tests. Nil asks CA.
	Authority certs.CA
	// CertificateTTL is the lifetime asked for. Zero is 24 h.
	CertificateTTL time.Duration
	// RevocationsFile is certs.Config's.
	RevocationsFile string
	// Listen is the address of HBONE without its port. Empty is every one.
	Listen string
	// TunnelPort is 15008 if zero; AdminPort, MetricsPort and ReadyPort are
	// admin.Servers'.
	TunnelPort, AdminPort, MetricsPort, ReadyPort uint16
	// Engine bounds what clients may do; its Handler and Logger are ours.
	Engine exchange.EngineConfig
	Tuning h2.Tuning
	// DrainDeadline bounds the graceful end. Zero is 5 s.
	DrainDeadline time.Duration
	// Tracing says where spans go; its zero value is nowhere. Who we are is filled
	// in.
	Tracing tracing.Config
	// Logger gets everything; nil discards it.
	Logger *slog.Logger
	// Levels are the levels of Logger that /logging changes; nil is a set that
	// nothing listens to.
	Levels *admin.Levels
}

// Self is this proxy's own pod.
type Self struct {
	Name, Namespace, ServiceAccount string
	// IP is the pod's address, Node where it runs.
	IP, Node string
	// Gateway is the name of the Gateway whose waypoint this is; its service has
	// the same name.
	Gateway string
	// Network and ClusterID are those of the mesh; ClusterID empty is
	// "Kubernetes", Domain empty is "cluster.local".
	Network, ClusterID, Domain string
	// Metadata is further node metadata for the control plane.
	Metadata map[string]any
}

// Service is the waypoint's own service, which others name as their waypoint.
func (s *Self) Service() mesh.ServiceKey {
	return mesh.ServiceKey{Namespace: s.Namespace, Hostname: s.Gateway + "." + s.Namespace + ".svc." + s.Domain}
}

func (c *Config) fill() {
	def(&c.Version, "dev")
	def(&c.Self.ClusterID, "Kubernetes")
	def(&c.Self.Domain, "cluster.local")
	def(&c.CertificateTTL, 24*time.Hour)
	def(&c.TunnelPort, hbone.Port)
	def(&c.DrainDeadline, 5*time.Second)
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Tuning.Logger == nil {
		c.Tuning.Logger = c.Logger
	}
}

func def[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}
