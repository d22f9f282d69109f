package certs

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"github.com/ambit-mesh/ambit/internal/hbone"
	"github.com/ambit-mesh/ambit/internal/spiffe"
)

// ClientTLS presents c and accepts a server that is exactly one of accept.
func (c *Certificate) ClientTLS(accept []spiffe.ID) *tls.Config { return c.holder().client(accept) }

// ServerTLS presents c and accepts any client of c's trust domain, under its own
// name or one of its aliases.
func (c *Certificate) ServerTLS(aliases ...string) *tls.Config {
	return c.holder().server(aliases...)
}

// holder of a certificate without a Manager: its roots are those that came with
// it, and nobody is revoked.
func (c *Certificate) holder() holder {
	return holder{Certificate: c, trusted: func() roots { return c.Roots }}
}

// holder is who presents a certificate. Whom it trusts is asked for when a peer
// is verified, as that may change during a handshake.
type holder struct {
	*Certificate
	trusted func() roots
	guard   *guard  // nil: nobody is revoked
	proofs  *proofs // nil: every peer's signatures are verified
}

func (h holder) client(accept []spiffe.ID) *tls.Config {
	cfg := h.config(side{usage: x509.ExtKeyUsageServerAuth, reporter: "source", want: accept, admit: func(got spiffe.ID) error {
		if len(accept) == 0 {
			return errors.New("no identity is expected there")
		}
		if !slices.Contains(accept, got) {
			return fmt.Errorf("it is not who was asked for, %s", join(accept))
		}
		return nil
	}})
	// There is no name to verify or to send: crypto/tls sends none without
	// ServerName, and VerifyConnection does the verification.
	cfg.InsecureSkipVerify = true
	return cfg
}

func (h holder) server(aliases ...string) *tls.Config {
	cfg := h.config(side{usage: x509.ExtKeyUsageClientAuth, reporter: "destination", admit: func(got spiffe.ID) error {
		if got.TrustDomain != h.ID.TrustDomain && !slices.Contains(aliases, got.TrustDomain) {
			return fmt.Errorf("its trust domain is %s, ours %s", got.TrustDomain, h.ID.TrustDomain)
		}
		return nil
	}})
	cfg.ClientAuth = tls.RequireAnyClientCert
	return cfg
}

// side is how the two ends of a connection differ.
type side struct {
	usage    x509.ExtKeyUsage
	reporter string // of metrics
	want     []spiffe.ID
	admit    func(spiffe.ID) error
}

// config is what both sides share (dataplane spec 1.1). Without tickets each
// connection is verified in full.
func (h holder) config(s side) *tls.Config {
	return &tls.Config{
		MinVersion:                  tls.VersionTLS13,
		Certificates:                []tls.Certificate{h.tls},
		NextProtos:                  []string{"h2"},
		SessionTicketsDisabled:      true,
		DynamicRecordSizingDisabled: true,
		VerifyConnection: func(state tls.ConnectionState) error {
			trusted := h.trusted()
			got, err := verify(state.PeerCertificates, trusted, s.usage, h.proofs)
			if err == nil {
				err = s.admit(got)
			}
			if err == nil && h.guard != nil {
				err = h.guard.check(hbone.Peer{ID: got, Chain: state.PeerCertificates}, trusted, s.reporter)
			}
			if err != nil {
				return &hbone.PeerError{Want: s.want, Got: got, Err: err}
			}
			return nil
		},
	}
}

// verify checks a peer's chain and returns who it is, also if it is refused.
func verify(chain []*x509.Certificate, trusted roots, usage x509.ExtKeyUsage, known *proofs) (spiffe.ID, error) {
	if len(chain) == 0 {
		return spiffe.ID{}, errors.New("it presented no certificate")
	}
	got, ok := spiffe.FromCertificate(chain[0])
	if !ok {
		return spiffe.ID{}, errors.New("its certificate carries no workload identity")
	}
	if shown := proofOf(chain, trusted); !known.known(shown, time.Now()) {
		_, verified, err := x509svid.Verify(chain, trusted)
		if err != nil {
			return got, explain(chain[0], err)
		}
		known.remember(shown, verified[0], trusted)
	}
	if usages := chain[0].ExtKeyUsage; !slices.Contains(usages, usage) && !slices.Contains(usages, x509.ExtKeyUsageAny) {
		return got, errors.New("its certificate is not for this side of a connection")
	}
	return got, nil
}

// roots is one bundle for every trust domain: in Istio's model the roots that
// come with a certificate sign all of the mesh (dataplane spec 6.5). Which trust
// domains are met is decided after that.
type roots []*x509.Certificate

// GetX509BundleForTrustDomain implements x509bundle.Source.
func (r roots) GetX509BundleForTrustDomain(td spiffeid.TrustDomain) (*x509bundle.Bundle, error) {
	return x509bundle.FromX509Authorities(td, r), nil
}

// explain says in a user's words why a chain was refused.
func explain(leaf *x509.Certificate, err error) error {
	if invalid, ok := errors.AsType[x509.CertificateInvalidError](err); ok && invalid.Reason == x509.Expired {
		at := func(t time.Time) string { return t.UTC().Format(time.RFC3339) }
		switch now := time.Now(); {
		case invalid.Cert != nil && !invalid.Cert.Equal(leaf):
			return fmt.Errorf("a CA certificate above its own is outside its validity, %s to %s: %w", at(invalid.Cert.NotBefore), at(invalid.Cert.NotAfter), err)
		case now.Before(leaf.NotBefore):
			return fmt.Errorf("its certificate is valid only from %s: %w", at(leaf.NotBefore), err)
		default:
			return fmt.Errorf("its certificate expired at %s: %w", at(leaf.NotAfter), err)
		}
	}
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		return fmt.Errorf("its certificate is signed by a CA that is not ours: %w", err)
	}
	return fmt.Errorf("its certificate does not hold: %w", err)
}

func join(ids []spiffe.ID) string {
	texts := make([]string, len(ids))
	for i, id := range ids {
		texts[i] = id.String()
	}
	return strings.Join(texts, " or ")
}
