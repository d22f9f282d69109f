package ca

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"sync"
	"time"
)

// servingTTL is how long the control plane's own certificate lasts; it is
// replaced at half of it.
const servingTTL = 24 * time.Hour

// Serving is the control plane's own server certificate, replaced as it ages
// and when the signing material changes.
type Serving struct {
	authority *Authority
	names     []string
	addresses []net.IP

	mu       sync.Mutex
	cert     *tls.Certificate
	material *Material
	renew    time.Time
}

// NewServing makes the certificate's keeper. Names that are IP addresses
// become address entries.
func NewServing(a *Authority, names []string) *Serving {
	s := &Serving{authority: a}
	for _, name := range names {
		if ip := net.ParseIP(name); ip != nil {
			s.addresses = append(s.addresses, ip)
		} else {
			s.names = append(s.names, name)
		}
	}
	return s
}

// GetCertificate is for tls.Config.
func (s *Serving) GetCertificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	m, now := s.authority.material.Load(), s.authority.cfg.Now()
	if s.cert != nil && s.material == m && now.Before(s.renew) {
		return s.cert, nil
	}
	cert, err := s.issueLocked(m)
	if err != nil {
		if s.cert != nil && now.Before(s.cert.Leaf.NotAfter) {
			return s.cert, nil // better old than none
		}
		return nil, fmt.Errorf("issuing the control plane's certificate: %w", err)
	}
	s.cert, s.material = cert, m
	s.renew = now.Add(cert.Leaf.NotAfter.Sub(now) / 2)
	return cert, nil
}

func (s *Serving) issueLocked(m *Material) (*tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	leaf, err := s.authority.issue(m, key.Public(), &x509.Certificate{DNSNames: s.names, IPAddresses: s.addresses}, servingTTL)
	if err != nil {
		return nil, err
	}
	cert := &tls.Certificate{Certificate: [][]byte{leaf.Raw}, PrivateKey: key, Leaf: leaf}
	for _, c := range m.Intermediates {
		cert.Certificate = append(cert.Certificate, c.Raw)
	}
	return cert, nil
}
