package certstest

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"net/url"
	"time"

	"github.com/ambit-mesh/ambit/internal/hbone"
	"github.com/ambit-mesh/ambit/internal/spiffe"
)

// stale presents an expired certificate and itself accepts anybody, so that the
// other side's verification is what is seen.
type stale struct{ ca *CA }

func (s stale) Client(_ context.Context, self spiffe.ID, _ []spiffe.ID) (*tls.Config, error) {
	return s.config(self)
}

func (s stale) Server(_ context.Context, self spiffe.ID, _ ...string) (*tls.Config, error) {
	return s.config(self)
}

func (stale) Watch(spiffe.ID, hbone.Peer, <-chan struct{}, func(error)) {}

func (s stale) config(self spiffe.ID) (*tls.Config, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	uri, err := url.Parse(self.String())
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: serial(), URIs: []*url.URL{uri},
		NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: time.Now().Add(-time.Hour),
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, s.ca.root, key.Public(), s.ca.key)
	if err != nil {
		return nil, err
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: []string{"h2"},
		Certificates:       []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}},
		InsecureSkipVerify: true, ClientAuth: tls.RequireAnyClientCert, SessionTicketsDisabled: true,
	}, nil
}
