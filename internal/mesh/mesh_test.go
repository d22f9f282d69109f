package mesh

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/ambit-mesh/ambit/internal/spiffe"
)

func TestAWorkloadHasAnIdentityUnderEachNameOfItsTrustDomain(t *testing.T) {
	w := &Workload{TrustDomain: "new", Namespace: "shop", ServiceAccount: "web", Settings: WorkloadSettings{TrustDomainAliases: []string{"old"}}}
	for domain, want := range map[string]bool{"new": true, "old": true, "other": false, "": false} {
		id := spiffe.ID{TrustDomain: domain, Namespace: "shop", ServiceAccount: "web"}
		if got := w.Trusts(id); got != want {
			t.Errorf("trusts %q: %v", domain, got)
		}
		if got := slices.Contains(w.Identities(), id); got != want {
			t.Errorf("may be %q: %v", domain, got)
		}
	}
	if w.Identities()[0] != w.Identity() {
		t.Error("its own name is not the first")
	}
}

func TestKeysAreReadAndWritten(t *testing.T) {
	for _, tt := range []struct {
		text    string
		service bool
		policy  bool
	}{
		{"shop/reviews.shop.svc.cluster.local", true, true},
		{"shop/", false, false},
		{"/reviews", false, true}, // a policy may have no namespace
		{"reviews", false, false},
		{"", false, false},
		{"a/b/c", false, false},
	} {
		s, err := ParseServiceKey(tt.text)
		if (err == nil) != tt.service {
			t.Errorf("service key %q: error %v, want one: %v", tt.text, err, !tt.service)
		}
		if err == nil && s.String() != tt.text {
			t.Errorf("service key %q is written %q", tt.text, s)
		}
		p, err := ParsePolicyKey(tt.text)
		if (err == nil) != tt.policy {
			t.Errorf("policy key %q: error %v, want one: %v", tt.text, err, !tt.policy)
		}
		if err == nil && p.String() != tt.text {
			t.Errorf("policy key %q is written %q", tt.text, p)
		}
	}
}

func TestStringMatches(t *testing.T) {
	for _, tt := range []struct {
		m    StringMatch
		yes  []string
		no   []string
		text string
	}{
		{StringMatch{OpExact, "ab"}, []string{"ab"}, []string{"", "a", "abc"}, "ab"},
		{StringMatch{OpPrefix, "ab"}, []string{"ab", "abc"}, []string{"", "a", "cab"}, "ab*"},
		{StringMatch{OpSuffix, "ab"}, []string{"ab", "cab"}, []string{"", "b", "abc"}, "*ab"},
		{StringMatch{Op: OpPresence}, []string{"a"}, []string{""}, "*"},
	} {
		for _, s := range tt.yes {
			if !tt.m.Matches(s) {
				t.Errorf("%s does not match %q", tt.m, s)
			}
		}
		for _, s := range tt.no {
			if tt.m.Matches(s) {
				t.Errorf("%s matches %q", tt.m, s)
			}
		}
		if tt.m.String() != tt.text {
			t.Errorf("%+v is written %q, want %q", tt.m, tt.m, tt.text)
		}
	}
}

func TestAGatewayAddressShowsWhatItRefersTo(t *testing.T) {
	for _, tt := range []struct {
		g    GatewayAddress
		want string
	}{
		{GatewayAddress{}, ""},
		{GatewayAddress{Service: ServiceKey{"shop", "wp.shop.svc.cluster.local"}, Port: 15008}, "shop/wp.shop.svc.cluster.local"},
		{GatewayAddress{Network: "n", Address: netip.MustParseAddr("10.0.0.1")}, "n/10.0.0.1"},
	} {
		if got := tt.g.String(); got != tt.want {
			t.Errorf("got %q, want %q", got, tt.want)
		}
	}
}

func TestWorkloadTypesHaveTheNamesOfBaggage(t *testing.T) {
	for typ, want := range map[WorkloadType]string{WorkloadDeployment: "deployment", WorkloadCronJob: "cronjob", WorkloadPod: "pod", WorkloadJob: "job"} {
		if got := typ.String(); got != want {
			t.Errorf("type %d is %q, want %q", typ, got, want)
		}
	}
}
