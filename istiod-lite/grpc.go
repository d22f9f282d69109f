package istiodlite

import (
	"context"
	"crypto/tls"
	"fmt"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"

	"github.com/ambit-mesh/ambit/internal/xds"
	"github.com/ambit-mesh/ambit/istiod-lite/ca"
)

const (
	// maxRequest bounds a request: a returning proxy names all it holds,
	// about 100 bytes per workload.
	maxRequest = 32 << 20
	// unread is how much of a stream is taken before it is read, for those who
	// wait until others have arrived.
	unread = 128 << 10
	// connectionAge makes proxies spread over replicas again, and tokens be
	// looked at again; gRPC adds a tenth at random.
	connectionAge = 30 * time.Minute
	// stopGrace is how long calls may take to end when the server stops.
	stopGrace = 5 * time.Second
)

// serveGRPC serves xDS and certificates until ctx ends.
func (p *plane) serveGRPC(ctx context.Context) error {
	serving := ca.NewServing(p.authority, p.cfg.servingNames())
	s := grpc.NewServer(
		grpc.Creds(xds.Credentials(&tls.Config{MinVersion: tls.VersionTLS13, GetCertificate: serving.GetCertificate})),
		grpc.WriteBufferSize(xds.WriteBuffer),
		grpc.MaxRecvMsgSize(maxRequest),
		grpc.StaticStreamWindowSize(unread),
		grpc.MaxConcurrentStreams(1000),
		grpc.SharedWriteBuffer(true), // hundreds of connections are idle most of the time
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second, PermitWithoutStream: true}),
		grpc.KeepaliveParams(keepalive.ServerParameters{
			Time: 30 * time.Second, Timeout: 10 * time.Second,
			MaxConnectionAge: connectionAge, MaxConnectionAgeGrace: 10 * time.Second,
		}),
	)
	p.pusher.Register(s)
	p.guides.Serve(s, p.platform.authenticator, p.pods.member)
	ca.NewService(ca.ServiceConfig{
		Authority: p.authority, Authenticator: p.platform.authenticator, Pods: p.pods,
		TrustDomain: p.trustDomain, Trusted: p.cfg.Trusted, Lengthen: p.conductor.Lengthen,
		Observe: p.metrics.certificate, Logger: p.cfg.Logger.With("component", "ca"),
	}).Register(s)
	served := make(chan error, 1)
	go func() { served <- s.Serve(p.cfg.GRPC) }()
	select {
	case err := <-served:
		return fmt.Errorf("serving proxies: %w", err)
	case <-ctx.Done():
	}
	p.ready.Store(false)
	p.pusher.Close()
	p.guides.Close()
	hard := time.AfterFunc(stopGrace, s.Stop)
	defer hard.Stop()
	s.GracefulStop()
	<-served
	return nil
}
