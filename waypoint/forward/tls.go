package forward

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"slices"

	"github.com/ambit-mesh/ambit/internal/mesh"
)

// originate starts TLS towards a backend, as its service's settings say.
func originate(ctx context.Context, c net.Conn, to *Endpoint, protocols ...string) (*tls.Conn, error) {
	config, err := clientTLS(&to.TLS, to.serverName())
	if err != nil {
		c.Close()
		return nil, fmt.Errorf("starting TLS: %w", err)
	}
	config.NextProtos = protocols
	t := tls.Client(c, config)
	if err := t.HandshakeContext(ctx); err != nil {
		c.Close()
		return nil, fmt.Errorf("starting TLS: %w", err)
	}
	if got := t.ConnectionState().NegotiatedProtocol; len(protocols) > 0 && got != "" && !slices.Contains(protocols, got) {
		t.Close()
		return nil, fmt.Errorf("starting TLS: the server speaks %q", got)
	}
	return t, nil
}

// serverName is whom the certificate must name.
func (e *Endpoint) serverName() string {
	service := ""
	if e.Service != nil {
		service = e.Service.Hostname
	}
	return cmp.Or(e.TLS.SNI, e.Workload.Hostname, service)
}

var (
	errNoRoots = errors.New("the roots of the server's certificate cannot be read")
	errNoName  = errors.New("the server's certificate has none of the names that it may have")
)

func clientTLS(o *mesh.OriginateTLS, name string) (*tls.Config, error) {
	c := &tls.Config{ServerName: name, MinVersion: tls.VersionTLS12, InsecureSkipVerify: o.Insecure}
	if o.CA != "" {
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM([]byte(o.CA)) {
			return nil, errNoRoots
		}
	}
	if o.CertPEM != "" {
		own, err := tls.X509KeyPair([]byte(o.CertPEM), []byte(o.KeyPEM))
		if err != nil {
			return nil, fmt.Errorf("own certificate: %w", err)
		}
		c.Certificates = []tls.Certificate{own}
	}
	if len(o.SubjectAltNames) > 0 && !o.Insecure {
		// The names take the place of the server's: the chain is verified here.
		c.InsecureSkipVerify = true
		c.VerifyConnection = func(s tls.ConnectionState) error {
			return verifyNames(s.PeerCertificates, c.RootCAs, o.SubjectAltNames)
		}
	}
	return c, nil
}

// verifyNames verifies a chain, whose leaf must have one of the names.
func verifyNames(chain []*x509.Certificate, roots *x509.CertPool, names []string) error {
	if len(chain) == 0 {
		return errNoName
	}
	between := x509.NewCertPool()
	for _, c := range chain[1:] {
		between.AddCert(c)
	}
	leaf := chain[0]
	if _, err := leaf.Verify(x509.VerifyOptions{Roots: roots, Intermediates: between}); err != nil {
		return err
	}
	for _, n := range names {
		if leaf.VerifyHostname(n) == nil {
			return nil
		}
		for _, u := range leaf.URIs {
			if u.String() == n {
				return nil
			}
		}
	}
	return errNoName
}

func sameTLS(a, b *mesh.OriginateTLS) bool {
	return a.On == b.On && a.SNI == b.SNI && a.CA == b.CA && a.CertPEM == b.CertPEM && a.KeyPEM == b.KeyPEM &&
		a.Insecure == b.Insecure && slices.Equal(a.SubjectAltNames, b.SubjectAltNames)
}
