package certstest

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"

	"github.com/ambit-mesh/ambit/internal/spiffe"
)

// Save writes root and key to a file, so that programs share a CA.
func (ca *CA) Save(path string) error {
	key, err := x509.MarshalECPrivateKey(ca.key)
	if err != nil {
		return fmt.Errorf("saving CA: %w", err)
	}
	text := append([]byte(ca.RootPEM()), pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: key})...)
	return os.WriteFile(path, text, 0o600)
}

// Load reads what Save wrote.
func Load(path string) (*CA, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("loading CA: %w", err)
	}
	root, rest := pem.Decode(text)
	if root == nil {
		return nil, errors.New("loading CA: no root")
	}
	key, _ := pem.Decode(rest)
	if key == nil {
		return nil, errors.New("loading CA: no key")
	}
	ca := &CA{
		asked: map[spiffe.ID]int{},
		usage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	if ca.root, err = x509.ParseCertificate(root.Bytes); err != nil {
		return nil, fmt.Errorf("loading CA: %w", err)
	}
	if ca.key, err = x509.ParseECPrivateKey(key.Bytes); err != nil {
		return nil, fmt.Errorf("loading CA: %w", err)
	}
	return ca, nil
}
