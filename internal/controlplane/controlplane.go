// Package controlplane owns how a proxy finds its control plane, and makes the
// clients that ask it for state and certificates.
//
// It refuses to know what is asked, which is internal/xds' and
// internal/certs'. ztunnel and the waypoint call it.
package controlplane

import (
	"cmp"
	"errors"
	"net"
	"os"
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/ambit-mesh/ambit/internal/certs"
	"github.com/ambit-mesh/ambit/internal/settings"
	"github.com/ambit-mesh/ambit/internal/xds"
)

// Endpoint is a server of the control plane.
type Endpoint struct {
	// Address is host:port; empty is none.
	Address string
	// ServerName is the name in its certificate; empty is Address's host.
	ServerName string
	// RootFile holds the roots it must chain to.
	RootFile string
	// TokenFile holds our bearer token; empty sends none.
	TokenFile string
}

// InCluster is where a control plane is, seen from a pod.
const InCluster = "istiod.istio-system.svc:15012"

// Defaults of files, relative to the working directory as upstream's are.
const (
	defaultRoot  = "./var/run/secrets/istio/root-cert.pem"
	defaultToken = "./var/run/secrets/tokens/istio-token"
)

// ReadEndpoint reads where a server is by upstream's names: XDS, which sends
// the state, or CA. It is at otherwise if nothing is said.
func ReadEndpoint(r *settings.Reader, which, otherwise string) Endpoint {
	e := Endpoint{
		Address:    strings.TrimPrefix(cmp.Or(r.Lookup(which+"_ADDRESS"), otherwise), "https://"),
		ServerName: r.Lookup("ALT_" + which + "_HOSTNAME"),
		RootFile:   cmp.Or(r.Lookup(which+"_ROOT_CA"), defaultRoot),
		TokenFile:  r.Lookup("AUTH_TOKEN"),
	}
	if _, _, err := net.SplitHostPort(e.Address); err != nil {
		r.Fail(which+"_ADDRESS", err)
	}
	if e.TokenFile == "" {
		if _, err := os.Stat(defaultToken); err == nil {
			e.TokenFile = defaultToken
		}
	}
	return e
}

// Client asks e for the state; c says what and for whom. Its metrics are added
// to r.
func (e Endpoint) Client(c xds.Config, r prometheus.Registerer) *xds.Client {
	c.Address, c.ServerName, c.RootFile, c.TokenFile = e.Address, e.ServerName, e.RootFile, e.TokenFile
	client := xds.NewClient(c)
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
	return client
}

// Authority asks e for certificates: own says for the caller's own alone,
// rather than for those of others.
func (e Endpoint) Authority(clusterID string, own bool) (certs.CA, error) {
	if e.Address == "" {
		return nil, errors.New("no certificate authority is configured")
	}
	return certs.NewCAClient(certs.CAConfig{
		Address: e.Address, ServerName: e.ServerName, RootFile: e.RootFile, TokenFile: e.TokenFile,
		ClusterID: clusterID, OwnIdentity: own,
	}), nil
}
