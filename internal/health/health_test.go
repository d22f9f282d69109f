package health

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestARootIsNamedByItsBytes(t *testing.T) {
	from, until := time.Unix(1, 0), time.Unix(2, 0)
	c := &x509.Certificate{Raw: []byte("root"), Subject: pkix.Name{Organization: []string{"o"}}, NotBefore: from, NotAfter: until}
	want := Root{Fingerprint: "4813494d137e1631", Subject: "O=o", From: from, Until: until}
	if diff := cmp.Diff(want, RootOf(c)); diff != "" {
		t.Error(diff)
	}
}
