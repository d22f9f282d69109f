package images

import (
	"crypto/ed25519"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"time"
)

// selfSigned gives the files of a certificate and its key. They are the same
// in every build, as everything in an image is, and so as secret as the image:
// only a test server that nobody trusts may use them.
func selfSigned(crt, key string) map[string]string {
	private := ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "ambit test server"}, DNSNames: []string{"echo"},
		NotBefore: epoch, NotAfter: epoch.Add(100 * 365 * 24 * time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	// Ed25519 signs without randomness. Neither call can fail with these values.
	der, err := x509.CreateCertificate(nil, template, template, private.Public(), private)
	if err != nil {
		panic("making the test server's certificate: " + err.Error())
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		panic("writing the test server's key: " + err.Error())
	}
	return map[string]string{
		crt: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})),
		key: string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})),
	}
}
