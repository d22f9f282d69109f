package doctor

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"k8s.io/client-go/rest"

	"github.com/ambit-mesh/ambit/ambit/reach"
)

const (
	modeLabel       = "istio.io/dataplane-mode"
	modeAmbient     = "ambient"
	modeNone        = "none"
	redirection     = "ambient.istio.io/redirection"
	sidecarStatus   = "sidecar.istio.io/status"
	rootCertificate = "istio-ca-root-cert"
	partOf          = "app.kubernetes.io/part-of"
)

// Gather reads the facts from a cluster. Only an API server that does not
// answer is an error; what else cannot be read is among the facts.
func Gather(ctx context.Context, c *reach.Cluster) (Facts, error) {
	var f Facts
	version, err := c.Client.Discovery().ServerVersion()
	if err != nil {
		return f, fmt.Errorf("reaching the API server: %w", err)
	}
	f.ServerVersion = version.GitVersion
	ahead, err := clockOf(ctx, c.Config)
	f.note("clock of the API server", err)
	f.Now = time.Now().Add(ahead)
	for _, step := range []struct {
		what string
		read func(context.Context, *reach.Cluster, *Facts) error
	}{
		{"nodes", gatherNodes}, {"installed parts", gatherParts}, {"settings of the mesh", gatherMesh}, {"definitions", gatherCRDs},
		{"enrolled namespaces", gatherNamespaces}, {"policies", gatherPolicies}, {"waypoints", gatherWaypoints},
		{"signing key", gatherSigning}, {"audiences of tokens", gatherAudiences}, {"rights of the parts", gatherRights},
		{"admission", gatherDenials}, {"pods that start", gatherStuck},
	} {
		f.note(step.what, step.read(ctx, c, &f))
	}
	f.note("running parts", gatherParties(ctx, c, &f, ahead))
	f.note("namespaces that end", forgetEnded(ctx, c, &f))
	return f, nil
}

// note keeps what could not be read.
func (f *Facts) note(what string, err error) {
	if err != nil {
		f.Unread = append(f.Unread, Unread{what, err.Error()})
	}
}

// clockOf is how far the API server's clock is ahead of ours, to a second.
func clockOf(ctx context.Context, config *rest.Config) (time.Duration, error) {
	client, err := rest.HTTPClientFor(config)
	if err != nil {
		return 0, fmt.Errorf("making a client: %w", err)
	}
	url, _, err := rest.DefaultServerUrlFor(config)
	if err != nil {
		return 0, fmt.Errorf("making a client: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url.JoinPath("/version").String(), nil)
	if err != nil {
		return 0, err
	}
	began := time.Now()
	resp, err := client.Do(req)
	if err != nil {
		return 0, fmt.Errorf("asking the API server for the time: %w", err)
	}
	resp.Body.Close()
	at, err := http.ParseTime(resp.Header.Get("Date"))
	if err != nil {
		return 0, fmt.Errorf("reading the API server's time: %w", err)
	}
	middle := began.Add(time.Since(began) / 2)
	return at.Add(time.Second / 2).Sub(middle).Round(time.Millisecond), nil
}
