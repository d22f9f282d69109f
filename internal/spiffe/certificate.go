package spiffe

import "crypto/x509"

// FromCertificate is the identity a certificate carries: its first URI name
// that parses as one (dataplane spec 1.1). False if none does.
func FromCertificate(c *x509.Certificate) (ID, bool) {
	for _, u := range c.URIs {
		if id, err := Parse(u.String()); err == nil {
			return id, true
		}
	}
	return ID{}, false
}
