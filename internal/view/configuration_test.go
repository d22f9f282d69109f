package view

import (
	"net/netip"
	"testing"

	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/internal/wire"
	"github.com/ambit-mesh/ambit/internal/xds"
)

func TestAViewKnowsTheControlPlanesGeneration(t *testing.T) {
	s := NewStore()
	w := &mesh.Workload{UID: "k//Pod/shop/web", Name: "web", Namespace: "shop", ServiceAccount: "web", TrustDomain: "cluster.local", Capacity: 1, Addresses: []netip.Addr{netip.MustParseAddr("10.1.0.6")}}
	body := wire.MarshalWorkload(w)
	for _, tt := range []struct {
		sentence string
		update   xds.Update
		want     uint64
	}{
		{"the first", xds.Update{Type: xds.TypeAddress, Generation: 7, Upserts: []xds.Resource{{Name: w.UID, Body: body}}}, 7},
		{"one in which nothing concerns it", xds.Update{Type: xds.TypeAddress, Generation: 8}, 7},
		{"one of a control plane that does not count in public", xds.Update{Type: xds.TypeAddress, Removed: []string{w.UID}}, 7},
		{"a later one", xds.Update{Type: xds.TypeAddress, Generation: 9, Upserts: []xds.Resource{{Name: w.UID, Body: body}}}, 9},
	} {
		if rejected := s.Receive(t.Context(), tt.update); len(rejected) > 0 {
			t.Fatalf("%s: rejected %v", tt.sentence, rejected)
		}
		if got := s.View().Configuration(); got != tt.want {
			t.Errorf("%s: generation %d, want %d", tt.sentence, got, tt.want)
		}
	}
	s.Replace(mesh.Model{})
	if got := s.View().Configuration(); got != 0 {
		t.Errorf("a model from elsewhere has generation %d", got)
	}
}
