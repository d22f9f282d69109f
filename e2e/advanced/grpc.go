package advanced

import (
	"context"
	"net"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// The echo service has one method whose request and response are a message
// with one string in field 1. So is StringValue, which saves us a .proto.
const (
	serviceName = "proto.EchoTestService"
	methodName  = "Echo"
	fullMethod  = "/" + serviceName + "/" + methodName
)

type echoService interface {
	echoGRPC(context.Context, *wrapperspb.StringValue) (*wrapperspb.StringValue, error)
}

var serviceDesc = grpc.ServiceDesc{
	ServiceName: serviceName,
	HandlerType: (*echoService)(nil),
	Methods: []grpc.MethodDesc{{
		MethodName: methodName,
		Handler: func(srv any, ctx context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
			in := new(wrapperspb.StringValue)
			if err := decode(in); err != nil {
				return nil, err
			}
			return srv.(echoService).echoGRPC(ctx, in)
		},
	}},
}

func (s *server) serveGRPC(ctx context.Context, l net.Listener) error {
	srv := grpc.NewServer()
	srv.RegisterService(&serviceDesc, s)
	return until(ctx, func() error { return srv.Serve(l) }, func() {
		t := time.AfterFunc(s.cfg.Grace, srv.Stop)
		defer t.Stop()
		srv.GracefulStop()
	})
}

// echoGRPC describes the call and adds the message that came with it.
func (s *server) echoGRPC(ctx context.Context, in *wrapperspb.StringValue) (*wrapperspb.StringValue, error) {
	var d description
	d.add("StatusCode", "200")
	d.add("ServiceVersion", s.cfg.Version)
	if p, ok := peer.FromContext(ctx); ok {
		d.add("ServicePort", portOf(p.LocalAddr))
		d.add("IP", hostOf(p.Addr.String()))
	}
	md, _ := metadata.FromIncomingContext(ctx)
	md = md.Copy()
	for _, authority := range md.Get(":authority") {
		d.add("Host", authority)
	}
	delete(md, ":authority")
	d.headers("RequestHeader", md)
	d.add("Echo", in.GetValue())
	d.add("Hostname", s.hostname)
	return wrapperspb.String(d.String()), nil
}
