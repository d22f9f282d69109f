package ca

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"time"
)

// RootLifetime is how long a self-signed root lasts.
const RootLifetime = 10 * 365 * 24 * time.Hour

// Material is what an Authority signs with. It is immutable.
type Material struct {
	// Cert is the signing certificate, Key its key.
	Cert *x509.Certificate
	Key  crypto.Signer
	// Intermediates lead from Cert, which is the first of them, to a root;
	// none if Cert is the root.
	Intermediates []*x509.Certificate
	// Roots are what the mesh trusts, several while a root is replaced.
	Roots []*x509.Certificate
}

// NewRoot makes self-signed material: ECDSA P-256, ten years.
func NewRoot(organization string, now time.Time) (*Material, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("making the root key: %w", err)
	}
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{Organization: []string{organization}},
		NotBefore:             now.Add(-clocksDiffer),
		NotAfter:              now.Add(RootLifetime),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("signing the root: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("reading back the root: %w", err)
	}
	return &Material{Cert: cert, Key: key, Roots: []*x509.Certificate{cert}}, nil
}

// The keys of the Secret of a self-signed root, and of a plugged-in one in
// Istio's form.
const (
	keyCert  = "ca-cert.pem"
	keyKey   = "ca-key.pem"
	keyRoot  = "root-cert.pem"
	keyChain = "cert-chain.pem"
)

// Data is the material as a Secret's data.
func (m *Material) Data() (map[string][]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(m.Key)
	if err != nil {
		return nil, fmt.Errorf("writing the signing key: %w", err)
	}
	return map[string][]byte{
		keyCert:  encode(m.Cert),
		keyKey:   pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}),
		keyRoot:  encode(m.Roots...),
		keyChain: encode(m.Intermediates...),
	}, nil
}

// ParseMaterial reads a Secret's data: Istio's names (ca-cert.pem, ca-key.pem,
// root-cert.pem, cert-chain.pem) or those of kubernetes.io/tls (tls.crt,
// tls.key, ca.crt). A missing root means that the certificate is its own.
func ParseMaterial(data map[string][]byte) (*Material, error) {
	certs, key, roots, chain := data[keyCert], data[keyKey], data[keyRoot], data[keyChain]
	if len(certs) == 0 && len(data["tls.crt"]) > 0 {
		certs, key, roots = data["tls.crt"], data["tls.key"], data["ca.crt"]
	}
	m := &Material{}
	signing, err := parseCerts(certs)
	if err != nil {
		return nil, fmt.Errorf("signing certificate: %w", err)
	}
	if len(signing) == 0 {
		return nil, errors.New("no signing certificate")
	}
	m.Cert = signing[0]
	if m.Key, err = parseKey(key); err != nil {
		return nil, fmt.Errorf("signing key: %w", err)
	}
	if m.Roots, err = parseCerts(roots); err != nil {
		return nil, fmt.Errorf("root certificates: %w", err)
	}
	more, err := parseCerts(chain)
	if err != nil {
		return nil, fmt.Errorf("certificate chain: %w", err)
	}
	if len(m.Roots) == 0 {
		m.Roots = []*x509.Certificate{m.Cert}
	}
	m.Intermediates = intermediates(append(signing, more...), m.Roots)
	return m, nil
}

// intermediates are the distinct certificates that are not trusted themselves.
func intermediates(chain, roots []*x509.Certificate) []*x509.Certificate {
	var out []*x509.Certificate
	seen := map[string]bool{}
	for _, r := range roots {
		seen[string(r.Raw)] = true
	}
	for _, c := range chain {
		if !seen[string(c.Raw)] {
			seen[string(c.Raw)] = true
			out = append(out, c)
		}
	}
	return out
}

// Check says why the material cannot sign at the time, or nil.
func (m *Material) Check(now time.Time) error {
	_, err := m.root(now)
	return err
}

// root is the root that the signing certificate leads to, if it can sign.
func (m *Material) root(now time.Time) (*x509.Certificate, error) {
	if !m.Cert.IsCA || m.Cert.KeyUsage != 0 && m.Cert.KeyUsage&x509.KeyUsageCertSign == 0 {
		return nil, errors.New("the signing certificate may not sign certificates")
	}
	public, ok := m.Cert.PublicKey.(interface{ Equal(crypto.PublicKey) bool })
	if !ok || !public.Equal(m.Key.Public()) {
		return nil, errors.New("the signing key does not belong to the signing certificate")
	}
	roots, between := x509.NewCertPool(), x509.NewCertPool()
	for _, c := range m.Roots {
		roots.AddCert(c)
	}
	for _, c := range m.Intermediates {
		between.AddCert(c)
	}
	chains, err := m.Cert.Verify(x509.VerifyOptions{
		Roots: roots, Intermediates: between, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	})
	if err != nil {
		return nil, fmt.Errorf("the signing certificate does not lead to a root: %w", err)
	}
	return chains[0][len(chains[0])-1], nil
}

// newSerial is random, 128 bits, positive.
func newSerial() (*big.Int, error) {
	n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 128))
	if err != nil {
		return nil, fmt.Errorf("making a serial number: %w", err)
	}
	return n.Add(n, big.NewInt(1)), nil
}
