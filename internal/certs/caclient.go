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
	grpcbackoff "google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
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

	mu   sync.Mutex
	link *link
}

// link is a connection and who uses it; one that trusts older roots is closed
// when its last user is done.
type link struct {
	conn  *grpc.ClientConn
	roots []byte // that conn trusts
	users int
	old   bool
}

var _ CA = (*CAClient)(nil)

// NewCAClient makes a client; it connects with the first request.
func NewCAClient(cfg CAConfig) *CAClient { return &CAClient{cfg: cfg} }

// Sign implements CA.
func (c *CAClient) Sign(ctx context.Context, id spiffe.ID, csrPEM []byte, ttl time.Duration) ([]string, error) {
	conn, release, err := c.dial()
	if err != nil {
		return nil, err
	}
	defer release()
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

// reconnecting is soon: a CA that is back after minutes must not be waited for
// longer because it had been away long, as gRPC would.
var reconnecting = grpc.ConnectParams{
	Backoff:           grpcbackoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 3 * time.Second},
	MinConnectTimeout: 5 * time.Second,
}

// dial gives a connection that trusts the roots as they are now. release must
// follow.
func (c *CAClient) dial() (conn *grpc.ClientConn, release func(), err error) {
	roots, pool, err := c.trusted()
	if err != nil {
		return nil, nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.link == nil || !bytes.Equal(roots, c.link.roots) {
		conn, err := grpc.NewClient(c.cfg.Address, grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{
			MinVersion: tls.VersionTLS12,
			RootCAs:    pool,
			ServerName: c.cfg.ServerName,
		})), grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 30 * time.Second, Timeout: 10 * time.Second}),
			grpc.WithConnectParams(reconnecting))
		if err != nil {
			return nil, nil, fmt.Errorf("connecting to the CA: %w", err)
		}
		if c.link != nil {
			c.link.old = true
			c.link.endLocked()
		}
		c.link = &link{conn: conn, roots: roots}
	}
	l := c.link
	l.users++
	return l.conn, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		l.users--
		l.endLocked()
	}, nil
}

// endLocked closes an old connection that nobody uses.
func (l *link) endLocked() {
	if l.old && l.users == 0 {
		l.conn.Close()
	}
}

// trusted are the roots of the CA's own certificate; a nil pool is the system's.
func (c *CAClient) trusted() (text []byte, pool *x509.CertPool, err error) {
	if c.cfg.RootFile == "" {
		return nil, nil, nil
	}
	if text, err = os.ReadFile(c.cfg.RootFile); err != nil {
		return nil, nil, fmt.Errorf("reading the CA's roots: %w", err)
	}
	pool = x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, nil, fmt.Errorf("reading the CA's roots: no certificate in %s", c.cfg.RootFile)
	}
	return text, pool, nil
}

// Close ends the connection; a later Sign makes another.
func (c *CAClient) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.link == nil {
		return nil
	}
	err := c.link.conn.Close()
	c.link = nil
	return err
}
