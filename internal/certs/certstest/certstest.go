// Package certstest is a CA in memory, for the tests of everything that needs
// certificates. It issues what a real one does, and on request what it must not:
// expired certificates, certificates of the wrong use, answers that do not fit.
package certstest

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net/url"
	"sync"
	"testing"
	"time"

	"github.com/ambit-mesh/ambit/internal/certs"
	"github.com/ambit-mesh/ambit/internal/hbone"
	"github.com/ambit-mesh/ambit/internal/spiffe"
)

// CA signs whatever it is asked for. It implements certs.CA.
type CA struct {
	mu    sync.Mutex
	key   *ecdsa.PrivateKey
	root  *x509.Certificate
	extra []string // roots given beside our own
	age   time.Duration
	usage []x509.ExtKeyUsage
	err   error
	asked map[spiffe.ID]int
	block chan struct{}
}

var _ certs.CA = (*CA)(nil)

// New makes a CA with a root of its own.
func New(t testing.TB) *CA {
	t.Helper()
	ca, err := Make()
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

// Make is New for programs.
func Make() (*CA, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("making key: %w", err)
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{Organization: []string{"certstest"}},
		NotBefore: now.Add(-24 * time.Hour), NotAfter: now.Add(10 * 365 * 24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("making root: %w", err)
	}
	root, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("making root: %w", err)
	}
	return &CA{
		key: key, root: root, asked: map[spiffe.ID]int{},
		usage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}, nil
}

func serial() *big.Int {
	n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		panic(err)
	}
	return n
}

// RootPEM is the root.
func (ca *CA) RootPEM() string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.root.Raw}))
}

// Trust gives other roots beside our own with each certificate from now on.
func (ca *CA) Trust(others ...*CA) {
	ca.mu.Lock()
	defer ca.mu.Unlock()
	for _, o := range others {
		ca.extra = append(ca.extra, o.RootPEM())
	}
}

// Age back-dates certificates from now on; more than their lifetime makes them
// expired at birth.
func (ca *CA) Age(d time.Duration) {
	ca.mu.Lock()
	defer ca.mu.Unlock()
	ca.age = d
}

// Usage sets what certificates are for from now on.
func (ca *CA) Usage(u ...x509.ExtKeyUsage) {
	ca.mu.Lock()
	defer ca.mu.Unlock()
	ca.usage = u
}

// Fail makes requests fail from now on, until Fail(nil).
func (ca *CA) Fail(err error) {
	ca.mu.Lock()
	defer ca.mu.Unlock()
	ca.err = err
}

// Block makes requests wait until the function it returns is called.
func (ca *CA) Block() (release func()) {
	ca.mu.Lock()
	defer ca.mu.Unlock()
	c := make(chan struct{})
	ca.block = c
	return sync.OnceFunc(func() {
		ca.mu.Lock()
		ca.block = nil
		ca.mu.Unlock()
		close(c)
	})
}

// Asked is how many requests came for an identity.
func (ca *CA) Asked(id spiffe.ID) int {
	ca.mu.Lock()
	defer ca.mu.Unlock()
	return ca.asked[id]
}

// Sign implements certs.CA.
func (ca *CA) Sign(ctx context.Context, id spiffe.ID, csrPEM []byte, ttl time.Duration) ([]string, error) {
	if err := ca.ask(ctx, id); err != nil {
		return nil, err
	}
	block, _ := pem.Decode(csrPEM)
	if block == nil {
		return nil, errors.New("request is not PEM")
	}
	csr, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("parsing request: %w", err)
	}
	if err := csr.CheckSignature(); err != nil {
		return nil, fmt.Errorf("checking request: %w", err)
	}
	uri, err := url.Parse(id.String())
	if err != nil {
		return nil, err
	}
	return ca.issue(csr, uri, ttl)
}

func (ca *CA) ask(ctx context.Context, id spiffe.ID) error {
	ca.mu.Lock()
	ca.asked[id]++
	block := ca.block
	ca.mu.Unlock()
	if block != nil {
		select {
		case <-block:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	ca.mu.Lock()
	defer ca.mu.Unlock()
	return ca.err
}

func (ca *CA) issue(csr *x509.CertificateRequest, uri *url.URL, ttl time.Duration) ([]string, error) {
	ca.mu.Lock()
	defer ca.mu.Unlock()
	begin := time.Now().Add(-ca.age)
	template := &x509.Certificate{
		SerialNumber: serial(), URIs: []*url.URL{uri},
		NotBefore: begin, NotAfter: begin.Add(ttl),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: ca.usage,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, ca.root, csr.PublicKey, ca.key)
	if err != nil {
		return nil, fmt.Errorf("signing: %w", err)
	}
	leaf := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	roots := ca.RootPEM()
	for _, e := range ca.extra {
		roots += e
	}
	return []string{leaf, roots}, nil
}

// Credentials gives a running Manager, with the certificates of ids at hand. It
// stops with the test.
func (ca *CA) Credentials(t testing.TB, ids ...spiffe.ID) *certs.Manager {
	t.Helper()
	return Run(t, certs.Config{CA: ca}, ids...)
}

// Run is Credentials of any configuration.
func Run(t testing.TB, cfg certs.Config, ids ...spiffe.ID) *certs.Manager {
	t.Helper()
	m := certs.NewManager(cfg)
	ctx, cancel := context.WithCancel(context.Background())
	var run sync.WaitGroup
	run.Go(func() { m.Run(ctx) })
	t.Cleanup(func() { cancel(); run.Wait() })
	for _, id := range ids {
		if _, err := m.Certificate(ctx, id); err != nil {
			t.Fatal(err)
		}
	}
	return m
}

// Expired gives credentials whose certificates are past their end, as those of
// a workload that could not renew for too long. A Manager would refuse them.
func (ca *CA) Expired() hbone.Credentials { return stale{ca} }

// ID makes an identity of the default trust domain.
func ID(namespace, account string) spiffe.ID {
	return spiffe.ID{TrustDomain: spiffe.DefaultTrustDomain, Namespace: namespace, ServiceAccount: account}
}
