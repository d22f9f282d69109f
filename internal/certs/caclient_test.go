package certs_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	authpb "istio.io/api/security/v1alpha1"

	"github.com/ambit-mesh/ambit/internal/certs"
	"github.com/ambit-mesh/ambit/internal/certs/certstest"
	"github.com/ambit-mesh/ambit/internal/spiffe"
)

// service is a control plane's CA. It serves with whatever serving is.
type service struct {
	authpb.UnimplementedIstioCertificateServiceServer
	ca      *certstest.CA
	serving *tls.Certificate

	mu   sync.Mutex
	last metadata.MD
	req  *authpb.IstioCertificateRequest
}

func (s *service) CreateCertificate(ctx context.Context, r *authpb.IstioCertificateRequest) (*authpb.IstioCertificateResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last, _ = metadata.FromIncomingContext(ctx)
	s.req = r
	id, err := spiffe.Parse(r.GetMetadata().GetFields()["ImpersonatedIdentity"].GetStringValue())
	if err != nil {
		return nil, err
	}
	chain, err := s.ca.Sign(ctx, id, []byte(r.Csr), time.Duration(r.ValidityDuration)*time.Second)
	return &authpb.IstioCertificateResponse{CertChain: chain}, err
}

// selfSigned is a server certificate and its own root.
func selfSigned(t *testing.T, name string) (*tls.Certificate, []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func write(t *testing.T, path string, b []byte) {
	t.Helper()
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestRequestsOverGRPC(t *testing.T) {
	const name = "istiod.istio-system.svc"
	s := &service{ca: certstest.New(t)}
	var roots []byte
	s.serving, roots = selfSigned(t, name)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := grpc.NewServer(grpc.Creds(credentials.NewTLS(&tls.Config{GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.serving, nil
	}})))
	authpb.RegisterIstioCertificateServiceServer(srv, s)
	go srv.Serve(l)
	defer srv.Stop()

	dir := t.TempDir()
	rootFile, tokenFile := filepath.Join(dir, "root.pem"), filepath.Join(dir, "token")
	write(t, rootFile, roots)
	write(t, tokenFile, []byte("first\n"))
	client := certs.NewCAClient(certs.CAConfig{
		Address: l.Addr().String(), ServerName: name, RootFile: rootFile, TokenFile: tokenFile,
		ClusterID: "Kubernetes", Header: map[string]string{"x-extra": "1"},
	})
	defer client.Close()
	m := certs.NewManager(certs.Config{CA: client, TTL: 2 * time.Hour})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	var run sync.WaitGroup
	run.Go(func() { m.Run(ctx) })
	defer run.Wait()
	defer cancel()

	c := get(t, m, front)
	if life := c.Leaf().NotAfter.Sub(c.Leaf().NotBefore); life != 2*time.Hour {
		t.Errorf("asked for 2 h, got %v", life)
	}
	s.mu.Lock()
	for name, want := range map[string]string{"authorization": "Bearer first", "clusterid": "Kubernetes", "x-extra": "1"} {
		if got := s.last.Get(name); !slices.Equal(got, []string{want}) {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	if !strings.HasPrefix(s.req.Csr, "-----BEGIN CERTIFICATE REQUEST") {
		t.Errorf("request %q", s.req.Csr)
	}
	// The control plane moves to another root, and the token is rotated.
	s.serving, roots = selfSigned(t, name)
	s.mu.Unlock()
	write(t, rootFile, roots)
	write(t, tokenFile, []byte("second"))
	get(t, m, back)
	if got := s.last.Get("authorization"); !slices.Equal(got, []string{"Bearer second"}) {
		t.Errorf("token %q", got)
	}
	// A control plane that the roots do not sign is not talked to.
	_, foreign := selfSigned(t, name)
	write(t, rootFile, foreign)
	short, cancelShort := context.WithTimeout(ctx, 300*time.Millisecond)
	defer cancelShort()
	if _, err := client.Sign(short, front, nil, time.Hour); err == nil {
		t.Error("a foreign control plane signed")
	}
	write(t, rootFile, []byte("not PEM"))
	if _, err := client.Sign(ctx, front, nil, time.Hour); err == nil || !strings.Contains(err.Error(), "no certificate in") {
		t.Errorf("roots that are none: %v", err)
	}
}
