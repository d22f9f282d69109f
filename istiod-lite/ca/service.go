package ca

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	api "istio.io/api/security/v1alpha1"

	"github.com/ambit-mesh/ambit/internal/spiffe"
)

// Authenticator finds whom a bearer token belongs to.
type Authenticator interface {
	Authenticate(ctx context.Context, token string) (Caller, error)
}

// Outcome is how a certificate request ended, for metrics.
type Outcome string

// The outcomes.
const (
	Issued        Outcome = "issued"
	Unauthentic   Outcome = "authentication"
	Unauthorized  Outcome = "authorization"
	BadRequest    Outcome = "request"
	SigningFailed Outcome = "signing"
)

// impersonateKey names the identity wanted in a request's metadata.
const impersonateKey = "ImpersonatedIdentity"

// ServiceConfig configures the certificate request service. All fields but
// the last three must be set.
type ServiceConfig struct {
	Authority     *Authority
	Authenticator Authenticator
	Pods          Pods
	// TrustDomain is asked at each request, since the mesh settings may change.
	TrustDomain func() string
	// Trusted are the accounts of node proxies.
	Trusted []Account
	// Lengthen is told of a lifetime before a certificate is issued for it; may
	// be nil.
	Lengthen func(context.Context, time.Duration) error
	// Observe is told of each request; may be nil.
	Observe func(Outcome)
	// Logger is slog.Default() if nil.
	Logger *slog.Logger
}

// Service answers istio.v1.auth.IstioCertificateService.
type Service struct{ cfg ServiceConfig }

// NewService makes the service; Register it at a gRPC server.
func NewService(cfg ServiceConfig) *Service {
	if cfg.Observe == nil {
		cfg.Observe = func(Outcome) {}
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	return &Service{cfg: cfg}
}

// Register adds the service to a gRPC server.
func (s *Service) Register(g grpc.ServiceRegistrar) {
	api.RegisterIstioCertificateServiceServer(g, endpoint{svc: s})
}

// endpoint keeps the gRPC method out of Service's API.
type endpoint struct {
	api.UnimplementedIstioCertificateServiceServer
	svc *Service
}

// CreateCertificate implements the service.
func (e endpoint) CreateCertificate(ctx context.Context, r *api.IstioCertificateRequest) (*api.IstioCertificateResponse, error) {
	wanted := r.GetMetadata().GetFields()[impersonateKey].GetStringValue()
	chain, id, outcome, err := e.svc.create(ctx, []byte(r.GetCsr()), wanted, r.GetValidityDuration())
	e.svc.cfg.Observe(outcome)
	if err != nil {
		e.svc.cfg.Logger.Warn("certificate refused", "addr", address(ctx), "wanted", wanted, "outcome", string(outcome), "reason", err)
		return nil, answer(outcome, err)
	}
	e.svc.cfg.Logger.Debug("certificate issued", "addr", address(ctx), "identity", id.String())
	return &api.IstioCertificateResponse{CertChain: chain}, nil
}

func (s *Service) create(ctx context.Context, csr []byte, wanted string, seconds int64) ([]string, spiffe.ID, Outcome, error) {
	caller, err := CallerOf(ctx, s.cfg.Authenticator)
	if err != nil {
		return nil, spiffe.ID{}, Unauthentic, err
	}
	// Without impersonation the identity is the caller's own, whatever the
	// request's names say.
	id := spiffe.ID{TrustDomain: s.cfg.TrustDomain(), Namespace: caller.Account.Namespace, ServiceAccount: caller.Account.Name}
	if wanted != "" {
		if id, err = spiffe.Parse(wanted); err != nil {
			return nil, id, Unauthorized, err
		}
		if err := Authorize(caller, s.cfg.Trusted, s.cfg.Pods, s.cfg.TrustDomain(), id); err != nil {
			return nil, id, Unauthorized, fmt.Errorf("%s asks for %s: %w", caller.Account, id, err)
		}
	}
	if s.cfg.Lengthen != nil && lifetime(seconds) <= s.cfg.Authority.cfg.MaxTTL {
		if err := s.cfg.Lengthen(ctx, lifetime(seconds)); err != nil {
			return nil, id, SigningFailed, err
		}
	}
	chain, err := s.cfg.Authority.Sign(csr, id, lifetime(seconds))
	switch {
	case err == nil:
		return chain, id, Issued, nil
	case errors.Is(err, ErrRequest):
		return nil, id, BadRequest, err
	}
	return nil, id, SigningFailed, err
}

// lifetime is the duration of a client's number of seconds, which may be any.
func lifetime(seconds int64) time.Duration {
	return time.Duration(min(max(seconds, 0), math.MaxInt64/int64(time.Second))) * time.Second
}

// answer is what the caller learns: nothing about why it is not trusted.
func answer(o Outcome, err error) error {
	switch o {
	case Unauthentic:
		return status.Error(codes.Unauthenticated, "request authenticate failure")
	case Unauthorized:
		return status.Error(codes.Unauthenticated, "request impersonation authentication failure")
	case SigningFailed:
		return status.Error(codes.Internal, "signing failed")
	}
	return status.Error(codes.InvalidArgument, err.Error())
}

// CallerOf authenticates the bearer token of a gRPC call.
func CallerOf(ctx context.Context, a Authenticator) (Caller, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	for _, v := range md.Get("authorization") {
		if scheme, token, ok := strings.Cut(v, " "); ok && strings.EqualFold(scheme, "bearer") {
			caller, err := a.Authenticate(ctx, strings.TrimSpace(token))
			if err != nil {
				return Caller{}, fmt.Errorf("authenticating: %w", err)
			}
			return caller, nil
		}
	}
	return Caller{}, errors.New("the call carries no bearer token")
}

func address(ctx context.Context) string {
	if p, ok := peer.FromContext(ctx); ok {
		return p.Addr.String()
	}
	return ""
}
