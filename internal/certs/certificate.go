package certs

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"sync"
	"time"

	"github.com/ambit-mesh/ambit/internal/spiffe"
)

// Certificate is one identity's key, chain and trust roots. It is immutable.
type Certificate struct {
	ID spiffe.ID
	// Chain is the leaf and the intermediates that are presented.
	Chain []*x509.Certificate
	// Roots are whom peers must chain to.
	Roots []*x509.Certificate

	tls tls.Certificate
	// untold is told.times if it came while nobody told of roots.
	untold uint64
	below  sync.Map // fingerprint of a root → whether it leads there
}

// Leaf is the certificate itself.
func (c *Certificate) Leaf() *x509.Certificate { return c.Chain[0] }

// Valid reports whether the certificate may be used at now.
func (c *Certificate) Valid(now time.Time) bool { return now.Before(c.Leaf().NotAfter) }

// under reports whether the certificate leads to root, whatever the time.
func (c *Certificate) under(root *x509.Certificate) bool {
	name := Fingerprint(root)
	if known, ok := c.below.Load(name); ok {
		return known.(bool)
	}
	is := leads(c.Leaf(), c.Chain, root)
	c.below.Store(name, is)
	return is
}

// root is the fingerprint of the one of Roots that it leads to, empty if none.
func (c *Certificate) root() string {
	if i := slices.IndexFunc(c.Roots, c.under); i >= 0 {
		return Fingerprint(c.Roots[i])
	}
	return ""
}

// trusting is c with other roots.
func (c *Certificate) trusting(list []*x509.Certificate) *Certificate {
	return &Certificate{ID: c.ID, Chain: c.Chain, Roots: list, tls: c.tls}
}

// leads follows signatures from a certificate up to a root.
func leads(from *x509.Certificate, between []*x509.Certificate, root *x509.Certificate) bool {
	for range len(between) + 1 {
		if from.CheckSignatureFrom(root) == nil {
			return true
		}
		i := slices.IndexFunc(between, func(c *x509.Certificate) bool { return c != from && from.CheckSignatureFrom(c) == nil })
		if i < 0 {
			return false
		}
		from = between[i]
	}
	return false
}

// request makes a key and the request for it (dataplane spec 6.2): empty
// subject, one critical URI name. A new key for each certificate.
func request(id spiffe.ID) (*ecdsa.PrivateKey, []byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("making key: %w", err)
	}
	uri, err := url.Parse(id.String())
	if err != nil {
		return nil, nil, fmt.Errorf("making request: %w", err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		SignatureAlgorithm: x509.ECDSAWithSHA256,
		URIs:               []*url.URL{uri}, // critical, as the subject is empty
	}, key)
	if err != nil {
		return nil, nil, fmt.Errorf("making request: %w", err)
	}
	return key, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}), nil
}

// newCertificate reads a CA's answer: leaf, intermediates, and in the last
// element the roots. What would not be accepted by a peer is refused here.
func newCertificate(id spiffe.ID, key *ecdsa.PrivateKey, chainPEM []string, now time.Time) (*Certificate, error) {
	if len(chainPEM) < 2 {
		return nil, fmt.Errorf("answer of %d elements: want a certificate and its roots", len(chainPEM))
	}
	c := &Certificate{ID: id}
	var err error
	last := len(chainPEM) - 1
	for _, element := range chainPEM[:last] {
		certs, err := parsePEM(element)
		if err != nil {
			return nil, err
		}
		c.Chain = append(c.Chain, certs...)
	}
	if c.Roots, err = parsePEM(chainPEM[last]); err != nil {
		return nil, err
	}
	c.Chain = withoutRoots(c.Chain, c.Roots)
	if err := c.check(key, now); err != nil {
		return nil, err
	}
	c.tls = tls.Certificate{PrivateKey: key, Leaf: c.Leaf(), Certificate: raw(c.Chain)}
	return c, nil
}

func (c *Certificate) check(key *ecdsa.PrivateKey, now time.Time) error {
	if len(c.Chain) == 0 || len(c.Roots) == 0 {
		return errors.New("answer without certificate or roots")
	}
	got, ok := spiffe.FromCertificate(c.Leaf())
	if !ok || got != c.ID {
		return fmt.Errorf("asked for %s, got a certificate of %q", c.ID, got)
	}
	if pub, ok := c.Leaf().PublicKey.(*ecdsa.PublicKey); !ok || !key.PublicKey.Equal(pub) {
		return errors.New("certificate is for another key")
	}
	if !c.Valid(now) {
		return fmt.Errorf("certificate expired at %s", c.Leaf().NotAfter.Format(time.RFC3339))
	}
	return nil
}

// withoutRoots drops roots that a CA repeats among the intermediates, which
// peers need not be sent. The leaf stays.
func withoutRoots(chain, roots []*x509.Certificate) []*x509.Certificate {
	kept := chain[:min(1, len(chain))]
	for _, c := range chain[len(kept):] {
		isRoot := false
		for _, r := range roots {
			isRoot = isRoot || c.Equal(r)
		}
		if !isRoot {
			kept = append(kept, c)
		}
	}
	return kept
}

// parsePEM reads all certificates of a bundle.
func parsePEM(text string) (certs []*x509.Certificate, err error) {
	for rest := []byte(text); ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("parsing certificate: %w", err)
		}
		certs = append(certs, c)
	}
	if len(certs) == 0 {
		return nil, errors.New("no certificate in PEM")
	}
	return certs, nil
}
