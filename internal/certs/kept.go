package certs

import (
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"github.com/ambit-mesh/ambit/internal/spiffe"
)

// Kept is a certificate with its key in a form that outlives the process. It is
// as secret as the key.
type Kept struct {
	ID    string   `json:"id"`
	Key   []byte   `json:"key"`   // PKCS #8
	Chain [][]byte `json:"chain"` // DER, the leaf first
	Roots [][]byte `json:"roots"`
}

// Keep writes c down.
func (c *Certificate) Keep() (Kept, error) {
	key, err := x509.MarshalPKCS8PrivateKey(c.tls.PrivateKey)
	if err != nil {
		return Kept{}, fmt.Errorf("writing key of %s: %w", c.ID, err)
	}
	return Kept{ID: c.ID.String(), Key: key, Chain: raw(c.Chain), Roots: raw(c.Roots)}, nil
}

// Restore reads what Keep wrote. What a CA's answer must hold to must hold here
// too; so one that has expired is refused.
func (k Kept) Restore(now time.Time) (*Certificate, error) {
	id, err := spiffe.Parse(k.ID)
	if err != nil {
		return nil, fmt.Errorf("kept certificate: %w", err)
	}
	c := &Certificate{ID: id}
	if c.Chain, err = parse(k.Chain); err == nil {
		c.Roots, err = parse(k.Roots)
	}
	if err != nil {
		return nil, fmt.Errorf("kept certificate of %s: %w", id, err)
	}
	key, err := x509.ParsePKCS8PrivateKey(k.Key)
	if err != nil {
		return nil, fmt.Errorf("kept certificate of %s: %w", id, errors.New("its key cannot be read")) // never a word of the key
	}
	own, ok := key.(*ecdsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("kept certificate of %s: its key is a %T", id, key)
	}
	if err := c.check(own, now); err != nil {
		return nil, fmt.Errorf("kept certificate of %s: %w", id, err)
	}
	c.tls = tls.Certificate{PrivateKey: own, Leaf: c.Leaf(), Certificate: raw(c.Chain)}
	return c, nil
}

// KeptTrust is a Trust in a form that outlives the process.
type KeptTrust struct {
	Epoch       uint64   `json:"epoch"`
	Roots       [][]byte `json:"roots"` // DER
	Active      string   `json:"active,omitempty"`
	Revocations [][]byte `json:"revocations,omitempty"` // DER
}

// Told writes down what was told of roots, nil if nothing was.
func (m *Manager) Told() *KeptTrust {
	t := m.trust.Load()
	if t == nil {
		return nil
	}
	return &KeptTrust{Epoch: t.Epoch, Roots: raw(t.Roots), Active: t.Active, Revocations: t.Revocations}
}

// Restore reads what Told wrote.
func (k KeptTrust) Restore() (*Trust, error) {
	roots, err := parse(k.Roots)
	if err != nil {
		return nil, fmt.Errorf("kept roots: %w", err)
	}
	t := &told{Trust: Trust{Epoch: k.Epoch, Roots: roots, Active: k.Active, Revocations: k.Revocations}}
	if err := t.check(); err != nil {
		return nil, fmt.Errorf("kept roots: %w", err)
	}
	if _, err := newRevocations(k.Revocations); err != nil {
		return nil, fmt.Errorf("kept lists of revoked certificates: %w", err)
	}
	return &t.Trust, nil
}

func raw(list []*x509.Certificate) [][]byte {
	out := make([][]byte, len(list))
	for i, c := range list {
		out[i] = c.Raw
	}
	return out
}

func parse(list [][]byte) ([]*x509.Certificate, error) {
	out := make([]*x509.Certificate, len(list))
	for i, der := range list {
		var err error
		if out[i], err = x509.ParseCertificate(der); err != nil {
			return nil, fmt.Errorf("parsing certificate: %w", err)
		}
	}
	return out, nil
}

// Keepable are the certificates that may be used now, those of Config.Kept that
// nobody has asked for yet among them.
func (m *Manager) Keepable() []*Certificate {
	m.mu.Lock()
	defer m.mu.Unlock()
	now, out := time.Now(), []*Certificate(nil)
	for _, e := range m.entries {
		if e.cert != nil && e.cert.Valid(now) {
			out = append(out, e.cert.trusting(m.roots(e.cert))) // the roots of now, not of its birth
		}
	}
	for _, c := range m.kept {
		if c.Valid(now) && m.trust.Load().fits(c) {
			out = append(out, c.trusting(m.roots(c)))
		}
	}
	return out
}

// ForgetKept lets go of those of Config.Kept that nobody has asked for: their
// workloads are gone.
func (m *Manager) ForgetKept() {
	m.mu.Lock()
	defer m.mu.Unlock()
	clear(m.kept)
}

// adoptLocked gives a new entry the certificate that was kept for it, unless its
// root has been replaced or it has been revoked. Its renewal stays due at once:
// nobody may have told yet.
func (m *Manager) adoptLocked(e *entry) {
	c := m.kept[e.id]
	delete(m.kept, e.id)
	if c == nil || !c.Valid(time.Now()) || !m.trust.Load().fits(c) || m.guard.names(c) {
		return
	}
	e.cert = c
	m.log.Info("certificate restored", "identity", e.id.String(), "serial", c.Leaf().SerialNumber.Text(16), "until", c.Leaf().NotAfter)
}
