package cluster

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"time"
)

// pki is the certificate authority of one cluster and the directory it writes to.
// One authority signs everything: servers, clients and the front proxy.
type pki struct {
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// subject is who a certificate speaks for.
type subject struct {
	name  string   // common name: the user, for Kubernetes
	group string   // organization: the group, for Kubernetes
	hosts []string // DNS names and addresses, for a server
}

// openPKI loads the authority of dir, or makes one.
func openPKI(dir string) (*pki, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	ca := &pki{dir: dir}
	certPEM, err := os.ReadFile(ca.path("ca.crt"))
	if errors.Is(err, os.ErrNotExist) {
		return ca, ca.create()
	}
	if err != nil {
		return nil, err
	}
	keyPEM, err := os.ReadFile(ca.path("ca.key"))
	if err != nil {
		return nil, err
	}
	c, k := firstBlock(certPEM), firstBlock(keyPEM)
	if ca.cert, err = x509.ParseCertificate(c); err != nil {
		return nil, fmt.Errorf("read cluster CA: %w", err)
	}
	if ca.key, err = x509.ParseECPrivateKey(k); err != nil {
		return nil, fmt.Errorf("read cluster CA key: %w", err)
	}
	return ca, nil
}

func (ca *pki) path(name string) string { return filepath.Join(ca.dir, name) }

func (ca *pki) create() error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	tmpl := template("ambit-e2e cluster CA", "")
	tmpl.IsCA, tmpl.BasicConstraintsValid = true, true
	tmpl.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature | x509.KeyUsageCRLSign
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		return err
	}
	if ca.cert, err = x509.ParseCertificate(der); err != nil {
		return err
	}
	ca.key = key
	if err := writeKey(ca.path("ca.key"), key); err != nil {
		return err
	}
	return writePEM(ca.path("ca.crt"), "CERTIFICATE", der, 0o644)
}

// issue returns a certificate and key in PEM, for client and server use.
func (ca *pki) issue(s subject) (certPEM, keyPEM []byte, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	tmpl := template(s.name, s.group)
	tmpl.KeyUsage = x509.KeyUsageDigitalSignature
	tmpl.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth}
	for _, h := range s.hosts {
		if a, err := netip.ParseAddr(h); err == nil {
			tmpl.IPAddresses = append(tmpl.IPAddresses, net.IP(a.AsSlice()))
		} else {
			tmpl.DNSNames = append(tmpl.DNSNames, h)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, ca.cert, &key.PublicKey, ca.key)
	if err != nil {
		return nil, nil, fmt.Errorf("issue certificate for %s: %w", s.name, err)
	}
	keyDER, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return nil, nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: keyDER}), nil
}

// signingKey returns the key that signs service-account tokens, made on first use.
func (ca *pki) signingKey() ([]byte, error) {
	path := ca.path("sa.key")
	if data, err := os.ReadFile(path); !errors.Is(err, os.ErrNotExist) {
		return data, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	if err := writeKey(path, key); err != nil {
		return nil, err
	}
	return os.ReadFile(path)
}

func (ca *pki) bundle() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.cert.Raw})
}

func (ca *pki) privateKey() ([]byte, error) { return os.ReadFile(ca.path("ca.key")) }

func template(name, group string) *x509.Certificate {
	serial, _ := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120)) // crypto/rand does not fail
	t := &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: name},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().AddDate(1, 0, 0),
	}
	if group != "" {
		t.Subject.Organization = []string{group}
	}
	return t
}

func writeKey(path string, key *ecdsa.PrivateKey) error {
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return err
	}
	return writePEM(path, "EC PRIVATE KEY", der, 0o600)
}

func writePEM(path, kind string, der []byte, mode os.FileMode) error {
	return os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), mode)
}

func firstBlock(data []byte) []byte {
	if b, _ := pem.Decode(data); b != nil {
		return b.Bytes
	}
	return nil
}
