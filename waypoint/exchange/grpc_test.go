package exchange

import (
	"context"
	"net"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/interop"
	testgrpc "google.golang.org/grpc/interop/grpc_testing"

	"github.com/ambit-mesh/ambit/internal/mesh"
)

// serveInterop is the test server of gRPC's own interoperability cases.
func serveInterop(l net.Listener) {
	s := grpc.NewServer()
	testgrpc.RegisterTestServiceServer(s, interop.NewTestServer())
	s.Serve(l)
	s.Stop()
}

// TestGRPCInterop runs gRPC's interoperability cases, as far as they need no
// credentials, through the waypoint. A case that fails ends the process.
func TestGRPCInterop(t *testing.T) {
	r := newRig(t)
	r.service("web", mesh.AppGRPC, r.pod("web", serveInterop))
	conn, err := grpc.NewClient("passthrough:///web", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", r.at)
		}))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	client, unknown := testgrpc.NewTestServiceClient(conn), testgrpc.NewUnimplementedServiceClient(conn)
	for name, run := range map[string]func(context.Context){
		"empty_unary":                 func(ctx context.Context) { interop.DoEmptyUnaryCall(ctx, client) },
		"large_unary":                 func(ctx context.Context) { interop.DoLargeUnaryCall(ctx, client) },
		"client_streaming":            func(ctx context.Context) { interop.DoClientStreaming(ctx, client) },
		"server_streaming":            func(ctx context.Context) { interop.DoServerStreaming(ctx, client) },
		"ping_pong":                   func(ctx context.Context) { interop.DoPingPong(ctx, client) },
		"empty_stream":                func(ctx context.Context) { interop.DoEmptyStream(ctx, client) },
		"timeout_on_sleeping_server":  func(ctx context.Context) { interop.DoTimeoutOnSleepingServer(ctx, client) },
		"cancel_after_begin":          func(ctx context.Context) { interop.DoCancelAfterBegin(ctx, client) },
		"cancel_after_first_response": func(ctx context.Context) { interop.DoCancelAfterFirstResponse(ctx, client) },
		"custom_metadata":             func(ctx context.Context) { interop.DoCustomMetadata(ctx, client) },
		"status_code_and_message":     func(ctx context.Context) { interop.DoStatusCodeAndMessage(ctx, client) },
		"special_status_message":      func(ctx context.Context) { interop.DoSpecialStatusMessage(ctx, client) },
		"unimplemented_service":       func(ctx context.Context) { interop.DoUnimplementedService(ctx, unknown) },
		"unimplemented_method":        func(ctx context.Context) { interop.DoUnimplementedMethod(ctx, conn) },
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			run(ctx)
		})
	}
}
