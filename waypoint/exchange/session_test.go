package exchange

import (
	"fmt"
	"strings"
	"testing"

	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/waypoint/backendtest"
)

func TestASessionStaysWithItsEndpoint(t *testing.T) {
	for _, header := range []bool{false, true} {
		r := newRig(t)
		r.service("web", mesh.AppUnknown)
		r.service("v1", mesh.AppUnknown, r.pod("v1-a", backendtest.Named("v1-a")), r.pod("v1-b", backendtest.Named("v1-b")))
		r.service("v2", mesh.AppUnknown, r.pod("v2-a", backendtest.Named("v2-a")))
		r.rules(mesh.RouteRule{Backends: []mesh.Backend{to("v1", 1), to("v2", 1)}, Persistence: &mesh.Persistence{Name: "Stay", Header: header}})
		seen := map[string]bool{}
		for range 10 {
			resp, first := r.do(false, "GET /", "")
			session := "Cookie: " + strings.Split(resp.Header.Get("Set-Cookie"), ";")[0]
			if header {
				session = "Stay: " + resp.Header.Get("Stay")
			}
			for range 5 {
				if resp, body := r.do(false, "GET /", "", session); body != first || resp.Header.Get("Set-Cookie")+resp.Header.Get("Stay") != "" {
					t.Errorf("header %v: a session with %s was answered by %s, %v", header, first, body, resp.Header)
				}
			}
			seen[first] = true
		}
		if len(seen) < 2 {
			t.Errorf("all sessions are with %v", seen)
		}
	}
}

func TestTheStoryOfARequest(t *testing.T) {
	r := newRig(t)
	r.service("web", mesh.AppUnknown, r.pod("web", backendtest.Named("web")))
	r.rules(mesh.RouteRule{Matches: []mesh.RequestMatch{{Path: mesh.PathMatch{Op: mesh.PathExact, Value: "/cart"}}}, Backends: []mesh.Backend{to("web", 1)}})
	k := mesh.PolicyKey{Namespace: "shop", Name: "readers"}
	r.state.model.Policies[k] = &mesh.Policy{Key: k, Rules: []mesh.Rule{{Clauses: []mesh.Clause{{Matches: []mesh.Match{{
		HTTP: &mesh.HTTPMatch{Methods: []mesh.StringMatch{{Value: "GET"}}},
	}}}}}}}
	r.publish()
	r.do(false, "GET /cart", "")
	passed := r.ring.Find(r.last().ID)[0]
	if len(passed.Policies) != 1 || passed.Policies[0].Says != "rule 0 matches" || !passed.Policies[0].Decided || len(passed.Routes) < 2 || passed.Destination.Workload != "shop/web" {
		t.Errorf("story %+v", passed)
	}
	r.do(false, "GET /other", "")
	if lost := r.ring.Find(r.last().ID)[0]; !strings.Contains(fmt.Sprint(lost.Routes), "/cart is another") {
		t.Errorf("story %+v", lost)
	}
	r.do(false, "DELETE /cart", "")
	if denied := r.ring.Find(r.last().ID)[0]; len(denied.Routes) > 0 || !strings.Contains(denied.Ruling, "no ALLOW policy") {
		t.Errorf("story %+v", denied)
	}
}
