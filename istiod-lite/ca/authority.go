package ca

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"sync/atomic"
	"time"

	"github.com/ambit-mesh/ambit/internal/spiffe"
)

// The lifetimes of certificates (controlplane spec 6.3).
const (
	DefaultTTL = 24 * time.Hour
	MaxTTL     = 90 * 24 * time.Hour
)

// AuthorityConfig configures an Authority.
type AuthorityConfig struct {
	// DefaultTTL is for requests that name none; 0 is 24 h.
	DefaultTTL time.Duration
	// MaxTTL refuses longer requests; 0 is 90 days.
	MaxTTL time.Duration
	// Now is the clock; nil is time.Now.
	Now func() time.Time
}

// Authority issues certificates. It is safe for concurrent use.
type Authority struct {
	cfg      AuthorityConfig
	material atomic.Pointer[Material]
}

// NewAuthority checks the material and makes an authority of it.
func NewAuthority(m *Material, cfg AuthorityConfig) (*Authority, error) {
	if cfg.DefaultTTL == 0 {
		cfg.DefaultTTL = DefaultTTL
	}
	if cfg.MaxTTL == 0 {
		cfg.MaxTTL = MaxTTL
	}
	cfg.DefaultTTL = min(cfg.DefaultTTL, cfg.MaxTTL)
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	a := &Authority{cfg: cfg}
	return a, a.Use(m)
}

// Use signs with other material from now on, if it can.
func (a *Authority) Use(m *Material) error {
	if err := m.Check(a.cfg.Now()); err != nil {
		return fmt.Errorf("signing material: %w", err)
	}
	a.material.Store(m)
	return nil
}

// Roots is the PEM bundle of what the mesh trusts.
func (a *Authority) Roots() []byte { return encode(a.material.Load().Roots...) }

// Expires is when the signing certificate ends.
func (a *Authority) Expires() time.Time { return a.material.Load().Cert.NotAfter }

// ErrRequest says that a request cannot be granted to anybody as it is.
var ErrRequest = errors.New("certificate request")

// Sign issues a certificate for the identity and the key of the request; what
// else the request says, above all its names, is ignored. The chain is PEM:
// the leaf, the intermediates, and last all roots together.
func (a *Authority) Sign(csrPEM []byte, id spiffe.ID, ttl time.Duration) ([]string, error) {
	csr, err := parseCSR(csrPEM)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRequest, err)
	}
	if err := checkKey(csr.PublicKey); err != nil {
		return nil, err
	}
	sid, err := id.SPIFFE()
	if err != nil {
		return nil, fmt.Errorf("identity %q: %w", id, err)
	}
	if ttl <= 0 {
		ttl = a.cfg.DefaultTTL
	}
	if ttl > a.cfg.MaxTTL {
		return nil, fmt.Errorf("%w: a lifetime of %v, at most %v is allowed", ErrRequest, ttl, a.cfg.MaxTTL)
	}
	m := a.material.Load()
	leaf, err := a.issue(m, csr.PublicKey, &x509.Certificate{URIs: []*url.URL{sid.URL()}}, ttl)
	if err != nil {
		return nil, err
	}
	chain := []string{string(encode(leaf))}
	for _, c := range m.Intermediates {
		chain = append(chain, string(encode(c)))
	}
	return append(chain, string(encode(m.Roots...))), nil
}

// clocksDiffer is by how much a node's clock may be behind and still take what
// is signed now for valid. Clocks that are ahead only see it end sooner.
const clocksDiffer = 15 * time.Minute

// issue signs a leaf for the names in template. It starts a little in the
// past, since clocks differ, but by at most a tenth of its life: clients renew
// at half of it, and half of a short life must not lie in the past.
func (a *Authority) issue(m *Material, key crypto.PublicKey, template *x509.Certificate, ttl time.Duration) (*x509.Certificate, error) {
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	now := a.cfg.Now()
	template.SerialNumber = serial
	template.NotBefore = now.Add(-min(clocksDiffer, ttl/10))
	template.NotAfter = now.Add(ttl)
	if template.NotAfter.After(m.Cert.NotAfter) {
		template.NotAfter = m.Cert.NotAfter
	}
	if !template.NotAfter.After(now) {
		return nil, fmt.Errorf("the signing certificate expired at %v", m.Cert.NotAfter)
	}
	template.KeyUsage = x509.KeyUsageDigitalSignature
	if _, ok := key.(*rsa.PublicKey); ok {
		template.KeyUsage |= x509.KeyUsageKeyEncipherment
	}
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	template.BasicConstraintsValid = true
	der, err := x509.CreateCertificate(rand.Reader, template, m.Cert, key, m.Key)
	if err != nil {
		return nil, fmt.Errorf("signing: %w", err)
	}
	return x509.ParseCertificate(der)
}

// checkKey refuses keys that are too weak to vouch for.
func checkKey(key crypto.PublicKey) error {
	switch k := key.(type) {
	case *ecdsa.PublicKey:
		if k.Curve.Params().BitSize >= 256 {
			return nil
		}
	case ed25519.PublicKey:
		return nil
	case *rsa.PublicKey:
		if k.N.BitLen() >= 2048 {
			return nil
		}
	}
	return fmt.Errorf("%w: a %T of this size is not accepted", ErrRequest, key)
}
