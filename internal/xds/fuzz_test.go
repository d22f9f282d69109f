package xds

import (
	"testing"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
)

// FuzzResponse: whatever a control plane sends, what is given on has a name and
// the type it came under, and the rest is rejected with one.
func FuzzResponse(f *testing.F) {
	add := func(m proto.Message) {
		b, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	add(&discovery.DeltaDiscoveryResponse{TypeUrl: TypeAddress, Nonce: "1", RemovedResources: []string{"gone"}, Resources: []*discovery.Resource{
		{Name: "a", Version: "1", Resource: &anypb.Any{TypeUrl: TypeAddress, Value: []byte("x")}},
		{Name: "b", Resource: &anypb.Any{TypeUrl: "other"}}, {}, {Name: "c"},
	}})
	add(&discovery.DeltaDiscoveryRequest{TypeUrl: TypeAddress, ResourceNamesSubscribe: []string{"*", "a"}, ResourceNamesUnsubscribe: []string{"*", "b"}})
	f.Fuzz(func(t *testing.T, in []byte) {
		var resp discovery.DeltaDiscoveryResponse
		if proto.Unmarshal(in, &resp) == nil {
			u, bad := parse(&resp)
			for _, r := range u.Upserts {
				if r.Name == "" {
					t.Errorf("a resource without a name is given on: %+v", r)
				}
			}
			if len(u.Upserts)+len(bad) > len(resp.GetResources()) {
				t.Errorf("%d resources become %d and %d", len(resp.GetResources()), len(u.Upserts), len(bad))
			}
			if text := rejections(bad); len(text) > 2*maxReason {
				t.Errorf("a reason of %d bytes", len(text))
			}
		}
		var req discovery.DeltaDiscoveryRequest
		if proto.Unmarshal(in, &req) == nil {
			if sub := subscribe(&req); sub.wildcard && len(req.GetResourceNamesSubscribe()) == 0 && len(req.GetResourceNamesUnsubscribe()) > 0 {
				t.Error("who leaves something gets everything")
			}
		}
	})
}
