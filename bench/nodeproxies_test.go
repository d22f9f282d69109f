package bench

import (
	"fmt"
	"testing"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/ambit-mesh/ambit/internal/xds"
)

func TestAProxyThatKeepsNothingCountsWhatItHears(t *testing.T) {
	msg := &discovery.DeltaDiscoveryResponse{TypeUrl: xds.TypeAddress, Nonce: "5.1", SystemVersionInfo: "5", RemovedResources: []string{"gone"}}
	for i := range 3 * named {
		name := fmt.Sprint("w", i)
		msg.Resources = append(msg.Resources, &discovery.Resource{Name: name, Version: "v", Aliases: []string{"/10.0.0.1"}, Resource: &anypb.Any{TypeUrl: xds.TypeAddress, Value: []byte(name)}})
	}
	b, err := proto.Marshal(msg)
	if err != nil {
		t.Fatal(err)
	}
	in := func(b []byte) *mem.Reader { // in two buffers, as it comes in many
		return mem.BufferSlice{mem.SliceBuffer(b[:101]), mem.SliceBuffer(b[101:])}.Reader()
	}
	var h heard
	if err := h.read(in(b)); err != nil {
		t.Fatal(err)
	}
	if h.typ != xds.TypeAddress || h.nonce != "5.1" || h.resources != 3*named || h.size != len(b) || len(h.names) != named || h.names[7] != "w7" {
		t.Errorf("heard %+v", h)
	}
	if err := h.read(in(b[:len(b)-3])); err == nil {
		t.Error("half a message is heard")
	}
}
