package wire

import (
	"reflect"
	"testing"

	"github.com/ambit-mesh/ambit/internal/mesh"
)

// FuzzWaypoint: whatever a waypoint is sent, what is accepted has the name it was
// sent by, and a policy that cannot be read closes.
func FuzzWaypoint(f *testing.F) {
	key := mesh.PolicyKey{Namespace: "shop", Name: "p"}
	name := PolicyName(key)
	f.Add(name, []byte(`{"Key":{"Namespace":"shop","Name":"p"},"Scope":3}`))
	f.Add(RouteName(mesh.RouteKey{Kind: mesh.RouteHTTP, Namespace: "shop", Name: "r"}), []byte(`{"Rules":[{}]}`))
	f.Fuzz(func(t *testing.T, name string, body []byte) {
		w, err := UnmarshalWaypoint(name, body)
		if err != nil {
			if len(name) > len(kindPolicy) && name[:len(kindPolicy)] == kindPolicy && (w.Policy == nil || len(w.Policy.Targets) == 0) {
				t.Errorf("%s cannot be read (%v) and guards nothing", name, err)
			}
			return
		}
		again, err := UnmarshalWaypoint(name, body)
		if err != nil || !reflect.DeepEqual(w, again) {
			t.Errorf("%s is read in two ways: %v", name, err)
		}
	})
}
