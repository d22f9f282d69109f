package certs

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"maps"
	"os"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/structpb"
	authpb "istio.io/api/security/v1alpha1"

	"github.com/ambit-mesh/ambit/internal/spiffe"
)

// CAConfig is how to reach a CA that speaks istio.v1.auth (dataplane spec 6.1).
type CAConfig struct {
	// Address is host:port. Required.
	Address string
	// ServerName is the name in the CA's certificate. Empty: Address's host.
	ServerName string
	// RootFile has the PEM roots of the CA's TLS. It is read again for each
	// request, as it is rotated. Empty: the system's roots.
	RootFile string
	// TokenFile has the bearer token, read again for each request. Empty: none.
	TokenFile string
	// ClusterID says whose API server knows the token. Empty: not sent.
	ClusterID string
	// Header is sent with each request. Nil: nothing more.
	Header map[string]string
	// OwnIdentity asks for the caller's own certificate rather than another's:
	// the CA is not told whom to impersonate.
	OwnIdentity bool
}

// CAClient is a CA over gRPC.
type CAClient struct {
	cfg CAConfig

	mu    sync.Mutex
	conn  *grpc.ClientConn
	roots []byte // that conn trusts
}

var _ CA = (*CAClient)(nil)

// NewCAClient makes a client; it connects with the first request.
func NewCAClient(cfg CAConfig) *CAClient { return &CAClient{cfg: cfg} }

// Sign implements CA.
func (c *CAClient) Sign(ctx context.Context, id spiffe.ID, csrPEM []byte, ttl time.Duration) ([]string, error) {
	conn, err := c.dial()
	if err != nil {
		return nil, err
	}
	header, err := c.header()
	if err != nil {
		return nil, err
	}
	req := &authpb.IstioCertificateRequest{Csr: string(csrPEM), ValidityDuration: int64(ttl / time.Second)}
	if !c.cfg.OwnIdentity {
		req.Metadata = &structpb.Struct{Fields: map[string]*structpb.Value{
			"ImpersonatedIdentity": structpb.NewStringValue(id.String()),
		}}
	}
	resp, err := authpb.NewIstioCertificateServiceClient(conn).CreateCertificate(metadata.NewOutgoingContext(ctx, header), req)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", c.cfg.Address, err)
	}
	return resp.GetCertChain(), nil
}

func (c *CAClient) header() (metadata.MD, error) {
	h := maps.Clone(c.cfg.Header)
	if h == nil {
		h = map[string]string{}
	}
	if c.cfg.TokenFile != "" {
		token, err := os.ReadFile(c.cfg.TokenFile)
		if err != nil {
			return nil, fmt.Errorf("reading token: %w", err)
		}
		h["authorization"] = "Bearer " + strings.TrimSpace(string(token))
	}
	if c.cfg.ClusterID != "" {
		h["clusterid"] = c.cfg.ClusterID
	}
	return metadata.New(h), nil
}

// dial gives a connection that trusts the roots as they are now.
func (c *CAClient) dial() (*grpc.ClientConn, error) {
	var roots []byte
	var pool *x509.CertPool
	if c.cfg.RootFile != "" {
		var err error
		if roots, err = os.ReadFile(c.cfg.RootFile); err != nil {
			return nil, fmt.Errorf("reading the CA's roots: %w", err)
		}
		pool = x509.NewCertPool()
		if !pool.AppendCertsFromPEM(roots) {
			return nil, fmt.Errorf("reading the CA's roots: no certificate in %s", c.cfg.RootFile)
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.conn != nil && bytes.Equal(roots, c.roots) {
		return c.conn, nil
	}
	conn, err := grpc.NewClient(c.cfg.Address, grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{
		MinVersion: tls.VersionTLS12,
		RootCAs:    pool,
		ServerName: c.cfg.ServerName,
	})))
	if err != nil {
		return nil, fmt.Errorf("connecting to the CA: %w", err)
	}
	if c.conn != nil {
		c.conn.Close()
	}
	c.conn, c.roots = conn, roots
	return conn, nil
}

// Close ends the connection; a later Sign makes another.
func (c *CAClient) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.conn == nil {
		return nil
	}
	err := c.conn.Close()
	c.conn = nil
	return err
}
