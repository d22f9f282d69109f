package ca

import (
	"crypto/x509"
	"encoding/pem"
	"testing"
	"time"

	"github.com/ambit-mesh/ambit/internal/spiffe"
)

// FuzzSign: whatever a caller's request says, the certificate has the identity
// that was decided, and no other name.
func FuzzSign(f *testing.F) {
	id := spiffe.ID{TrustDomain: "cluster.local", Namespace: "shop", ServiceAccount: "front"}
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	a := must(NewAuthority(plugged(now, now.Add(time.Hour)), at(now)))
	f.Add(request(newKey(), id.String()))
	f.Add(request(newKey(), "spiffe://cluster.local/ns/kube-system/sa/admin"))
	f.Fuzz(func(t *testing.T, csr []byte) {
		chain, err := a.Sign(csr, id, time.Hour)
		if err != nil {
			return
		}
		block, _ := pem.Decode([]byte(chain[0]))
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		if len(cert.URIs) != 1 || cert.URIs[0].String() != id.String() || len(cert.DNSNames)+len(cert.IPAddresses)+len(cert.EmailAddresses) > 0 || cert.IsCA {
			t.Errorf("a certificate of %v, %v", cert.URIs, cert.DNSNames)
		}
	})
}

// FuzzMaterial: a Secret of any content gives a signer that checks, or an error.
func FuzzMaterial(f *testing.F) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	m := plugged(now, now.Add(time.Hour))
	data := must(m.Data())
	f.Add(data["ca-cert.pem"], data["ca-key.pem"], data["cert-chain.pem"], data["root-cert.pem"])
	f.Add([]byte("-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----"), []byte{}, []byte{}, []byte{})
	f.Fuzz(func(t *testing.T, cert, key, chain, root []byte) {
		m, err := ParseMaterial(map[string][]byte{"ca-cert.pem": cert, "ca-key.pem": key, "cert-chain.pem": chain, "root-cert.pem": root})
		if err == nil {
			_ = m.Check(now)
		}
	})
}
