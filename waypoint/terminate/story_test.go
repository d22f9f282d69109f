package terminate

import (
	"io"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/ambit-mesh/ambit/internal/decision"
	"github.com/ambit-mesh/ambit/internal/hbone"
	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/waypoint/backendtest"
)

// denying is a policy of the service db against the rig's client.
func denying() *mesh.Policy {
	return &mesh.Policy{
		Key: mesh.PolicyKey{Namespace: "shop", Name: "no-client"}, Scope: mesh.ScopeTargets, Action: mesh.ActionDeny, Targets: []mesh.Target{{Service: key("db")}},
		Rules: []mesh.Rule{{Clauses: []mesh.Clause{{Matches: []mesh.Match{{Principals: []mesh.StringMatch{{Value: client.Principal()}}}}}}}},
	}
}

func TestConnectionsAreRememberedUnderTheClientsId(t *testing.T) {
	r := newRig(t)
	r.service("db", 1, mesh.AppTCP, r.pod("db", backendtest.TCP(echo)))
	open := func(id string) (hbone.Stream, error) {
		s, _, err := r.tunnel.Open(backendtest.Within(t), hbone.Request{Authority: "10.96.0.1:80", Header: map[string]string{hbone.HeaderDecision: id}})
		return s, err
	}
	find := func(id string) decision.Story {
		t.Helper()
		for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
			if s := r.term.Decisions.Find(id); len(s) == 1 {
				return s[0]
			}
		}
		t.Fatalf("nothing is remembered of %s", id)
		return decision.Story{}
	}
	s, err := open("k7q2m4xa")
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(s, "hello\n")
	s.CloseWrite()
	io.ReadAll(s)
	s.Close()
	if story := find("k7q2m4xa"); story.Outcome.Received != 6 || story.Outcome.Sent != 6 || story.Ruling != "allowed: no policy restricts it" || story.Destination.Workload != "shop/db" || story.Asked != "10.96.0.1:80" {
		t.Errorf("a connection that was carried: %+v", story)
	}
	r.model.Policies[denying().Key] = denying()
	r.store.Replace(r.model)
	if _, err := open("k7q2m4xb"); err == nil {
		t.Error("a denied connection was accepted")
	}
	if story := find("k7q2m4xb"); story.Outcome.Flag != "DENY" || len(story.Policies) != 1 || !story.Policies[0].Decided || story.Source.Identity != client.String() {
		t.Errorf("a denied connection: %+v", story)
	}
}

func TestConnectionsAreForeseen(t *testing.T) {
	r := newRig(t)
	r.service("db", 1, mesh.AppTCP, r.pod("db", backendtest.TCP(echo)))
	r.service("web", 2, mesh.AppHTTP11, r.pod("web", backendtest.Named("web")))
	r.service("other", 3, mesh.AppTCP).Waypoint = mesh.GatewayAddress{Service: key("another")}
	r.store.Replace(r.model)
	ask := func(host string, port uint16) (requests bool, f decision.Forecast, err error) {
		a, f, err := r.term.Foresee(&decision.Asked{Source: client, Address: netip.MustParseAddrPort("10.1.0.5:0"), Host: host, Port: port})
		return a != nil && a.Port == port && a.Peer == client, f, err
	}
	if _, f, err := ask("db", 80); err != nil || !f.Allowed || !strings.Contains(f.Says, "would be carried") || f.Story.Ruling == "" {
		t.Errorf("a connection: %+v, %v", f, err)
	}
	r.model.Policies[denying().Key] = denying()
	r.store.Replace(r.model)
	if _, f, err := ask("db.shop", 80); err != nil || f.Allowed || f.Says != "denied by DENY policy shop/no-client rule 0" || len(f.Story.Policies) != 1 {
		t.Errorf("a denied connection: %+v, %v", f, err)
	}
	if requests, _, err := ask("web", 80); err != nil || !requests {
		t.Errorf("a port of HTTP is the engine's: %v, %v", requests, err)
	}
	for host, want := range map[string]string{"nowhere": "no service nowhere is known here", "other": "does not use this waypoint"} {
		if _, _, err := ask(host, 80); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", host, err, want)
		}
	}
	if _, _, err := ask("db", 81); err == nil || !strings.Contains(err.Error(), "has no port 81") {
		t.Errorf("a port that is none: %v", err)
	}
}
