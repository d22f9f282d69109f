package ztunnel

import (
	"log/slog"
	"net"
	"time"

	"github.com/ambit-mesh/ambit/internal/admin"
	"github.com/ambit-mesh/ambit/internal/certs"
	"github.com/ambit-mesh/ambit/internal/controlplane"
	"github.com/ambit-mesh/ambit/internal/hbone/h2"
	"github.com/ambit-mesh/ambit/internal/linux"
	"github.com/ambit-mesh/ambit/internal/spiffe"
	"github.com/ambit-mesh/ambit/internal/tracing"
	"github.com/ambit-mesh/ambit/internal/zds"
)

// Config is all that a ztunnel is told. Nothing changes it once Run has it.
type Config struct {
	// Version is shown in metrics and dumps. Empty is "dev".
	Version string
	// Self is this proxy's own pod, empty outside of Kubernetes.
	Self Self
	// ControlPlane sends the state; CA signs the certificates.
	ControlPlane, CA controlplane.Endpoint
	// LocalFile is a YAML file that takes the control plane's place; nothing is
	// then asked of ControlPlane.
	LocalFile string
	// Authority signs certificates in CA's place, for tests. Nil asks CA.
	Authority certs.CA
	// CertificateTTL is the lifetime asked for. Zero is 24 h.
	CertificateTTL time.Duration
	// RevocationsFile is certs.Config's.
	RevocationsFile string

	// Only is the one pod to serve, in the namespace of this process and
	// without an agent. Nil serves the pods that the agent names.
	Only *zds.Pod
	// AgentSocket is where the CNI agent listens. Empty is zds.DefaultPath.
	AgentSocket string

	// KeptDir is where what is known is kept for the next start; empty is
	// nowhere. KeptPatience is how long the control plane may be away before
	// what was kept is used. Zero is 3 s.
	KeptDir      string
	KeptPatience time.Duration

	// AdminPort, MetricsPort and ReadyPort are admin.Servers'.
	AdminPort, MetricsPort, ReadyPort uint16
	// Mark is on every packet sent inside pods. Zero is linux.Mark; negative is
	// none.
	Mark int
	// NoReusePort, NoOriginalSource, KeepAlive, Tuning, IdleTunnel, IdleFlow and
	// MaxTunnelStreams are podproxy.Config's.
	NoReusePort, NoOriginalSource bool
	KeepAlive                     net.KeepAliveConfig
	Tuning                        h2.Tuning
	IdleTunnel, IdleFlow          time.Duration
	MaxTunnelStreams              int
	// Tracing says where spans go; its zero value is nowhere. Who we are is filled
	// in.
	Tracing tracing.Config
	// NoDNS leaves the pods' names to the cluster's DNS. Domain is the cluster's,
	// empty is cluster.local; ResolvConf is the file that names the resolvers,
	// empty is /etc/resolv.conf.
	NoDNS              bool
	Domain, ResolvConf string
	// DrainDeadline bounds the graceful end. Zero is 5 s.
	DrainDeadline time.Duration

	// Logger gets everything; nil discards it.
	Logger *slog.Logger
	// Levels are the levels of Logger that /logging changes; nil is a set that
	// nothing listens to.
	Levels *admin.Levels
}

// Self is this proxy's own pod.
type Self struct {
	Name, Namespace, ServiceAccount string
	// IP is the pod's address.
	IP string
	// Node is where it runs; certificates are fetched early for its pods.
	Node string
	// TrustDomain is the mesh's; empty is spiffe.DefaultTrustDomain.
	TrustDomain string
	// Network and ClusterID are those of the mesh; ClusterID empty is
	// "Kubernetes".
	Network, ClusterID string
	// Metadata is further node metadata for the control plane.
	Metadata map[string]any
}

func (c *Config) fill() {
	def(&c.Version, "dev")
	def(&c.Self.ClusterID, "Kubernetes")
	def(&c.Self.TrustDomain, spiffe.DefaultTrustDomain)
	def(&c.KeptPatience, 3*time.Second)
	def(&c.CertificateTTL, 24*time.Hour)
	def(&c.AgentSocket, zds.DefaultPath)
	def(&c.Mark, linux.Mark)
	c.Mark = max(c.Mark, 0)
	def(&c.DrainDeadline, 5*time.Second)
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
}

func def[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}
