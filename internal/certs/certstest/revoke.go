package certstest

import (
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"time"
)

// Root is the root itself.
func (ca *CA) Root() *x509.Certificate { return ca.root }

// Revoke is a list, PEM, of certificates that the CA takes back. Its next update
// may be in the past.
func (ca *CA) Revoke(next time.Time, revoked ...*x509.Certificate) ([]byte, error) {
	template := &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: next.Add(-time.Hour), NextUpdate: next}
	for _, c := range revoked {
		template.RevokedCertificateEntries = append(template.RevokedCertificateEntries,
			x509.RevocationListEntry{SerialNumber: c.SerialNumber, RevocationTime: template.ThisUpdate})
	}
	issuer := *ca.root
	issuer.KeyUsage |= x509.KeyUsageCRLSign // x509 insists; those who verify do not
	der, err := x509.CreateRevocationList(rand.Reader, template, &issuer, ca.key)
	if err != nil {
		return nil, fmt.Errorf("revoking: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: der}), nil
}

// Mount puts a file into a directory as the kubelet does with a ConfigMap:
// behind a symbolic link that changes to another directory.
func Mount(dir, name string, text []byte) error {
	version, err := os.MkdirTemp(dir, "..version")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(version, name), text, 0o600); err != nil {
		return err
	}
	fresh := filepath.Join(dir, "..fresh")
	if err := os.Symlink(version, fresh); err != nil {
		return err
	}
	if err := os.Rename(fresh, filepath.Join(dir, "..data")); err != nil {
		return err
	}
	err = os.Symlink(filepath.Join("..data", name), filepath.Join(dir, name))
	if os.IsExist(err) {
		return nil
	}
	return err
}
