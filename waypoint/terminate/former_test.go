package terminate

import (
	"testing"
	"time"

	"github.com/ambit-mesh/ambit/internal/mesh"
)

func TestWhatHasLeftIsForgottenInTime(t *testing.T) {
	r := newRig(t)
	r.service("web", 1, mesh.AppHTTP11)
	r.term.Follow(r.store.Table())
	if _, leaving := r.term.Serving(key("web")); leaving {
		t.Error("what is served is taken for leaving")
	}
	gone := *r.model.Services[key("web")]
	gone.Waypoint = mesh.GatewayAddress{}
	r.model.Services[key("web")] = &gone
	r.store.Replace(r.model)
	if table, leaving := r.term.Serving(key("web")); table == nil || !leaving {
		t.Error("what has just left is not served, before Follow")
	}
	r.term.Follow(r.store.Table())
	if table, leaving := r.term.Serving(key("web")); table == nil || !leaving {
		t.Error("what has just left is not served")
	}
	if _, err := r.open("10.96.0.1:80"); err != nil {
		t.Errorf("a new connection: %v", err)
	}
	if n := len(r.term.former.all(time.Now().Add(parting + time.Second))); n != 1 {
		t.Errorf("after its time %d tables are asked, want the last one only", n)
	}
	for range 20 {
		r.store.Replace(r.model)
		r.term.Follow(r.store.Table())
	}
	if n := len(r.term.former.tables); n != 1 {
		t.Errorf("%d tables are kept though nothing else left", n)
	}
	if table, _ := r.term.Serving(key("never")); table != nil {
		t.Error("what was never here is served")
	}
}
