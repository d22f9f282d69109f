package certs

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"slices"
)

// ErrRevoked is a peer whose certificate, or one above it, has been revoked.
var ErrRevoked = errors.New("certificate revoked")

// revocations are lists of revoked certificates (dataplane spec 6.6). They are
// honoured past their next update too: a list that is not renewed must not make
// what it names good again.
type revocations []revocationList

type revocationList struct {
	*x509.RevocationList
	serials map[string]bool
}

// ParseRevocations reads lists of revoked certificates, PEM or DER, and gives
// them as DER. No text is no list; what is not a list is an error.
func ParseRevocations(text []byte) ([][]byte, error) {
	text = bytes.TrimSpace(text)
	if len(text) == 0 {
		return nil, nil
	}
	var ders [][]byte
	for rest := text; len(rest) > 0; rest = bytes.TrimSpace(rest) {
		block, more := pem.Decode(rest)
		switch {
		case block == nil && len(ders) == 0:
			block, more = &pem.Block{Type: "X509 CRL", Bytes: rest}, nil // DER
		case block == nil:
			return nil, errors.New("list of revoked certificates: something after the last PEM block")
		case block.Type != "X509 CRL":
			return nil, fmt.Errorf("list of revoked certificates: a %q where one should be", block.Type)
		}
		ders, rest = append(ders, block.Bytes), more
	}
	_, err := newRevocations(ders)
	return ders, err
}

func newRevocations(ders [][]byte) (revocations, error) {
	var all revocations
	for _, der := range ders {
		list, err := x509.ParseRevocationList(der)
		if err != nil {
			return nil, fmt.Errorf("list of revoked certificates: %w", err)
		}
		l := revocationList{list, make(map[string]bool, len(list.RevokedCertificateEntries))}
		for _, e := range list.RevokedCertificateEntries {
			l.serials[serialKey(e.SerialNumber)] = true
		}
		all = append(all, l)
	}
	return all, nil
}

func serialKey(n *big.Int) string { return string(n.Bytes()) }

// revoked gives the certificate of a chain that has been revoked, or nil. A list
// counts only if the CA above that certificate has signed it.
func (r revocations) revoked(chain, roots []*x509.Certificate) *x509.Certificate {
	for _, c := range chain {
		for _, l := range r {
			if l.serials[serialKey(c.SerialNumber)] && bytes.Equal(l.RawIssuer, c.RawIssuer) && l.signedAbove(c, chain, roots) {
				return c
			}
		}
	}
	return nil
}

// signedAbove reports whether the list is by the CA that signed c. That its key
// may sign lists by its usage is not asked for: many roots do not say so.
func (l revocationList) signedAbove(c *x509.Certificate, chain, roots []*x509.Certificate) bool {
	return slices.ContainsFunc(slices.Concat(chain, roots), func(ca *x509.Certificate) bool {
		return bytes.Equal(ca.RawSubject, c.RawIssuer) &&
			ca.CheckSignature(c.SignatureAlgorithm, c.RawTBSCertificate, c.Signature) == nil &&
			ca.CheckSignature(l.SignatureAlgorithm, l.RawTBSRevocationList, l.Signature) == nil
	})
}
