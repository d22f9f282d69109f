package xds

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	grpcstatus "google.golang.org/grpc/status"
)

// TestOversizedMessagesEndWithAReasonAtBothEnds: neither end takes or sends more
// than it should, and a client's last error says what was too large.
func TestOversizedMessagesEndWithAReasonAtBothEnds(t *testing.T) {
	const most = 10_000
	large := Resources{"w/large": {Name: "w/large", Version: "1", Body: make([]byte, 2*most)}}
	for _, tt := range []struct {
		sentence string
		server   ServerConfig
		client   int
		reason   string
	}{
		{"a response that the server must not send", ServerConfig{MaxMessage: most}, 0, "proxies take 10000"},
		{"a response that the client does not take", ServerConfig{}, most, "received message larger than max"},
	} {
		t.Run(tt.sentence, func(t *testing.T) {
			ca, dir := newAuthority(t), t.TempDir()
			write(t, filepath.Join(dir, "root"), ca.pem())
			src := &fixed{snap: &Snapshot{Generation: 1, Types: map[string]Resources{TypeAddress: large}}}
			tt.server.Logger, tt.server.Source = quiet, src
			s := NewServer(tt.server)
			at, _ := serve(t, ca.server(t, "istiod.test"), "", func(g *grpc.Server) { s.Register(g) })
			t.Cleanup(s.Close)
			has := &kept{}
			c := start(t, Config{Address: at, RootFile: filepath.Join(dir, "root"), Receiver: has, MaxMessage: tt.client})
			eventually(t, tt.reason, func() bool {
				return strings.Contains(c.Status().LastError, tt.reason)
			})
			src.set(s, nil, Resources{"w/small": {Name: "w/small", Version: "1", Body: []byte("x")}})
			eventually(t, "what fits arrives", has.holds(map[string]string{"w/small": "x"}))
		})
	}
}

func TestAClientMayNotNameWithoutEnd(t *testing.T) {
	stream := listen(t, NewServer(ServerConfig{Source: &fixed{}, Logger: quiet, MaxNames: 1000}))()
	for i := range 20 {
		r := &discovery.DeltaDiscoveryRequest{Node: &core.Node{Id: "x"}, TypeUrl: TypeAddress}
		for j := range 100 {
			r.ResourceNamesSubscribe = append(r.ResourceNamesSubscribe, fmt.Sprintf("%d/%d", i, j))
		}
		if stream.Send(r) != nil {
			break
		}
	}
	if _, err := stream.Recv(); grpcstatus.Code(err) != codes.ResourceExhausted || !strings.Contains(err.Error(), "more than 1000 names") {
		t.Errorf("got %v", err)
	}
}
