package inbound

import (
	"strings"
	"testing"

	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/internal/spiffe"
)

// TestOpenConnectionsAreJudgedAgainWhateverChanges: a row is a change of the mesh
// during a connection from an account under an alias of the trust domain.
func TestOpenConnectionsAreJudgedAgainWhateverChanges(t *testing.T) {
	web := func(m mesh.Model) *mesh.Workload { return m.Workloads["k//Pod/shop/web"] }
	deny := func(m mesh.Model, scope mesh.PolicyScope, matches ...mesh.Match) mesh.PolicyKey {
		k := mesh.PolicyKey{Namespace: "shop", Name: "new"}
		m.Policies[k] = &mesh.Policy{Key: k, Scope: scope, Action: mesh.ActionDeny, Rules: []mesh.Rule{{Clauses: []mesh.Clause{{Matches: matches}}}}}
		return k
	}
	exact := func(s string) []mesh.StringMatch { return []mesh.StringMatch{{Value: s}} }
	for _, tt := range []struct {
		sentence string
		change   func(mesh.Model)
		cut      string // what the record says; empty is a connection that lives on
	}{
		{"nothing", func(mesh.Model) {}, ""},
		{"a policy that denies others", func(m mesh.Model) { deny(m, mesh.ScopeNamespace, mesh.Match{Namespaces: exact("bank")}) }, ""},
		{"a policy that denies its namespace", func(m mesh.Model) { deny(m, mesh.ScopeNamespace, mesh.Match{Namespaces: exact("shop")}) }, "shop/new"},
		{"a policy by selector that the pod does not have", func(m mesh.Model) { deny(m, mesh.ScopeSelector) }, ""},
		{"labels by which a policy selects the pod", func(m mesh.Model) {
			web(m).Policies = append(web(m).Policies, deny(m, mesh.ScopeSelector))
		}, "shop/new"},
		{"an ALLOW for others", func(m mesh.Model) {
			m.Policies[deny(m, mesh.ScopeNamespace, mesh.Match{Namespaces: exact("bank")})].Action = mesh.ActionAllow
		}, "no ALLOW policy matches"},
		{"a policy that is named and has not come", func(m mesh.Model) {
			web(m).Policies = append(web(m).Policies, mesh.PolicyKey{Namespace: "shop", Name: "gone"})
		}, "shop/gone is not known"},
		{"another alias beside its own", func(m mesh.Model) { web(m).Settings.TrustDomainAliases = []string{"new.example", "old.example"} }, ""},
		{"the end of its alias", func(m mesh.Model) { web(m).Settings.TrustDomainAliases = nil }, "another trust domain"},
		{"the client's record goes: its certificate still counts", func(m mesh.Model) { delete(m.Workloads, "k//Pod/shop/client") }, ""},
		{"the client's record is of another account: its certificate counts", func(m mesh.Model) { m.Workloads["k//Pod/shop/client"].ServiceAccount = "thief" }, ""},
	} {
		t.Run(tt.sentence, func(t *testing.T) {
			state := func() mesh.Model {
				m := model(t, "")
				web(m).Settings.TrustDomainAliases = []string{"old.example"}
				return m
			}
			r := newRig(t, "")
			r.store.Replace(state())
			in, far, done := r.call("10.1.0.6:8080", spiffe.ID{TrustDomain: "old.example", Namespace: "shop", ServiceAccount: "client"})
			if in.status != 200 {
				t.Fatalf("answer %d %s", in.status, in.reason)
			}
			now := state()
			tt.change(now)
			r.store.Replace(now)
			cut := r.follow()
			if (cut == 1) != (tt.cut != "") {
				t.Errorf("%d connections cut", cut)
			}
			if tt.cut != "" {
				if _, err := far.Read(make([]byte, 1)); err == nil {
					t.Error("the connection lives on")
				}
			}
			done()
			if rec := r.record(); !strings.Contains(rec["reason"].(string), tt.cut) {
				t.Errorf("record %v, want %q", rec, tt.cut)
			}
		})
	}
}

func TestAPeerOfAnotherTrustDomainIsRefusedWhateverItsHandshakeSaid(t *testing.T) {
	r := newRig(t, "")
	in, _, done := r.call("10.1.0.6:8080", spiffe.ID{TrustDomain: "other.example", Namespace: "shop", ServiceAccount: "client"})
	done()
	if in.status != 401 || !strings.Contains(in.reason, "another trust domain") || len(r.dialed) > 0 {
		t.Errorf("answer %d %q, dialled %v", in.status, in.reason, r.dialed)
	}
}
