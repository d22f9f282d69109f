package istiodlite

import (
	"errors"
	"log/slog"
	"net"
	"net/netip"

	"github.com/ambit-mesh/ambit/istiod-lite/ca"
	"github.com/ambit-mesh/ambit/istiod-lite/kube"
	"github.com/ambit-mesh/ambit/istiod-lite/objects"
	"github.com/ambit-mesh/ambit/istiod-lite/provision"
)

// Config configures the control plane.
type Config struct {
	// Cluster is where objects come from, and Directory is what stands in for
	// it; exactly one must be set.
	Cluster   *kube.Clients
	Directory *Directory

	// Namespace is where the control plane's own objects are; empty is istio-system.
	Namespace string
	// Identity tells replicas apart; empty is "istiod".
	Identity string
	// Mesh is the settings below those that the cluster's ConfigMap gives.
	Mesh objects.MeshConfig
	// Waypoint is what all waypoints share; without an image none is made. Its
	// Namespace is set to this one's.
	Waypoint provision.Settings
	// Audiences are those of which a token must have one; none is istio-ca.
	Audiences []string
	// Trusted are the accounts of node proxies, which may ask for the
	// certificates of their node's pods; none is ztunnel in Namespace.
	Trusted []ca.Account
	// ServingNames are further names that proxies reach the control plane by.
	ServingNames []string

	// BlockedIssuers are addresses from which no keys of token issuers are
	// fetched, beside those that are only the control plane's to reach: its own,
	// its link's and the cloud's metadata. AllowLocalIssuers unblocks the latter.
	BlockedIssuers    []netip.Prefix
	AllowLocalIssuers bool

	// GRPC serves xDS and certificates, HTTP readiness and debug pages,
	// Metrics metrics. Run closes them. GRPC must be set, a nil one of the
	// others is not served.
	GRPC, HTTP, Metrics net.Listener

	// Logger is slog.Default() if nil.
	Logger *slog.Logger
}

// Directory feeds the control plane from files, without a cluster.
type Directory struct {
	// Path holds *.yaml files of objects.
	Path string
	// Keys holds the signing material (ca-cert.pem, ca-key.pem and so on); it
	// is made there if the directory has none.
	Keys string
	// Tokens are the callers that may connect; all others are refused.
	Tokens map[string]ca.Caller
}

// withDefaults checks the configuration and fills what is not set.
func (c Config) withDefaults() (Config, error) {
	switch {
	case (c.Cluster == nil) == (c.Directory == nil):
		return c, errors.New("control plane: need either a cluster or a directory of objects")
	case c.GRPC == nil:
		return c, errors.New("control plane: no listener for proxies")
	}
	if c.Namespace == "" {
		c.Namespace = "istio-system"
	}
	if c.Identity == "" {
		c.Identity = "istiod"
	}
	if len(c.Audiences) == 0 {
		c.Audiences = []string{"istio-ca"}
	}
	if len(c.Trusted) == 0 {
		c.Trusted = []ca.Account{{Namespace: c.Namespace, Name: "ztunnel"}}
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	c.Mesh = c.Mesh.WithDefaults()
	c.Waypoint.Namespace = c.Namespace
	return c, nil
}

// servingNames are the names in the control plane's own certificate.
func (c Config) servingNames() []string {
	service := "istiod." + c.Namespace
	return append([]string{
		service + ".svc", service, service + ".svc." + c.Mesh.ClusterDomain, "istiod", "localhost", "127.0.0.1", "::1",
	}, c.ServingNames...)
}
