package ztunnel

import (
	"crypto/x509"
	"encoding/pem"

	"github.com/ambit-mesh/ambit/internal/certs"
	"github.com/ambit-mesh/ambit/internal/spiffe"
	"github.com/ambit-mesh/ambit/ztunnel/dump"
	"github.com/ambit-mesh/ambit/ztunnel/kept"
)

// certificates are the identities' certificates, and which of them were
// renewed since somebody asked.
type certificates struct {
	*certs.Manager
	renewed *certs.Renewals
}

func newCertificates(c *Config, k *kept.Keeper) (certificates, error) {
	ca := c.Authority
	if ca == nil {
		var err error
		own := c.Only != nil // a proxy of one pod runs as that pod
		if ca, err = c.CA.Authority(c.Self.ClusterID, own); err != nil {
			return certificates{}, err
		}
	}
	kept, trust := k.Certificates()
	r := certs.NewRenewals()
	m := certs.NewManager(certs.Config{
		CA: ca, Told: trust, TTL: c.CertificateTTL, RevocationsFile: c.RevocationsFile, Logger: c.Logger, Kept: kept,
		Changed: func(id spiffe.ID) { r.Add(id); k.CertificatesChanged() },
		Trusted: k.CertificatesChanged,
	})
	return certificates{m, r}, nil
}

// dumped is the certificates in istioctl's words.
func (c certificates) dumped() []dump.Certificate {
	out := []dump.Certificate{}
	for _, s := range c.List() {
		d := dump.Certificate{Identity: s.ID.String(), State: string(s.State), Chain: []dump.Cert{}, Roots: []dump.Cert{}}
		if s.Err != nil {
			d.State += ": " + s.Err.Error()
		}
		if s.Certificate != nil {
			d.Chain, d.Roots = certsOf(s.Certificate.Chain), certsOf(s.Certificate.Roots)
		}
		out = append(out, d)
	}
	return out
}

func certsOf(list []*x509.Certificate) []dump.Cert {
	out := []dump.Cert{}
	for _, c := range list {
		out = append(out, dump.Cert{
			PEM:          pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}),
			SerialNumber: c.SerialNumber.String(), ValidFrom: c.NotBefore, ExpirationTime: c.NotAfter,
		})
	}
	return out
}
