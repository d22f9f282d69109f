package certs

import (
	"encoding/pem"
	"testing"
)

// FuzzRevocations: what is read as lists of revoked certificates can be read
// again, and what is neither empty nor a list is an error.
func FuzzRevocations(f *testing.F) {
	f.Add([]byte("-----BEGIN X509 CRL-----\nMAA=\n-----END X509 CRL-----\n"))
	f.Add([]byte("-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n"))
	f.Add([]byte{0x30, 0})
	f.Fuzz(func(t *testing.T, text []byte) {
		ders, err := ParseRevocations(text)
		if err != nil {
			return
		}
		var again []byte
		for _, der := range ders {
			again = append(again, pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: der})...)
		}
		if back, err := ParseRevocations(again); err != nil || len(back) != len(ders) {
			t.Errorf("%d lists came back as %d, %v", len(ders), len(back), err)
		}
	})
}
