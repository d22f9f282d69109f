package ztunnel

import (
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"

	"github.com/ambit-mesh/ambit/internal/certs"
	"github.com/ambit-mesh/ambit/internal/decision"
	"github.com/ambit-mesh/ambit/internal/spiffe"
	"github.com/ambit-mesh/ambit/internal/view"
	"github.com/ambit-mesh/ambit/ztunnel/dump"
)

const canWorld = `
workloads:
- {uid: k//Pod/shop/web, name: web, namespace: shop, serviceAccount: web, workloadIps: [10.1.0.6], protocol: HBONE, services: {shop/web.shop.svc.cluster.local: {80: 8080}}}
- {uid: k//Pod/shop/a, name: a, namespace: shop, serviceAccount: a, workloadIps: [10.1.0.7], protocol: HBONE, services: {shop/mixed.shop.svc.cluster.local: {80: 8080}}}
- {uid: k//Pod/bank/b, name: b, namespace: bank, serviceAccount: b, workloadIps: [10.1.0.8], protocol: HBONE, services: {shop/mixed.shop.svc.cluster.local: {80: 8080}}}
- {uid: k//Pod/shop/plain, name: plain, namespace: shop, workloadIps: [10.1.0.9], protocol: TCP, services: {shop/plain.shop.svc.cluster.local: {80: 8080}}}
services:
- {name: web, namespace: shop, hostname: web.shop.svc.cluster.local, vips: [/10.96.0.1], ports: {80: 8080}}
- {name: mixed, namespace: shop, hostname: mixed.shop.svc.cluster.local, vips: [/10.96.0.2], ports: {80: 8080}}
- {name: plain, namespace: shop, hostname: plain.shop.svc.cluster.local, vips: [/10.96.0.3], ports: {80: 8080}}
- {name: empty, namespace: shop, hostname: empty.shop.svc.cluster.local, vips: [/10.96.0.4], ports: {80: 8080}}
- {name: routed, namespace: shop, hostname: routed.shop.svc.cluster.local, vips: [/10.96.0.5], ports: {80: 8080}, waypoint: {destination: shop/wp.shop.svc.cluster.local, hboneMtlsPort: 15008}}
policies:
- {name: no-thief, namespace: shop, scope: Namespace, action: Deny, rules: [[[{principals: [{Exact: cluster.local/ns/shop/sa/thief}]}]]]}
`

func TestWhatEndpointsWouldSay(t *testing.T) {
	model, err := dump.ParseLocal([]byte(canWorld))
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{store: view.NewStore()}
	p.store.Replace(model)
	for _, tt := range []struct {
		account, host string
		port          uint16
		allowed       bool
		says          string
		waypoint      string
		policies      int
	}{
		{"client", "web", 80, true, "allowed: no policy restricts it", "", 1},
		{"thief", "web", 80, false, "denied by DENY policy shop/no-thief rule 0", "", 1},
		{"thief", "mixed.shop", 80, false, "1 of 2 endpoints would refuse it: denied by DENY policy shop/no-thief rule 0", "", 1},
		{"thief", "plain", 80, true, "allowed: no policy restricts it", "", 0},
		{"client", "empty", 80, false, "no endpoint of shop/empty.shop.svc.cluster.local is ready", "", 0},
		{"client", "routed", 80, false, "a waypoint decides on it", "shop/wp.shop.svc.cluster.local", 0},
		{"client", "web", 81, false, "error: service shop/web.shop.svc.cluster.local has no port 81", "", 0},
		{"client", "nowhere", 80, false, "error: no service nowhere is known here", "", 0},
	} {
		f, err := p.can(t.Context(), &decision.Asked{
			Source:  spiffe.ID{TrustDomain: "cluster.local", Namespace: "shop", ServiceAccount: tt.account},
			Address: netip.MustParseAddrPort("10.1.0.5:0"), Host: tt.host, Port: tt.port, Request: httptest.NewRequest("GET", "/", nil),
		})
		says := f.Says
		if err != nil {
			says = "error: " + err.Error()
		}
		if f.Allowed != tt.allowed || says != tt.says || f.Waypoint != tt.waypoint || len(f.Story.Policies) != tt.policies {
			t.Errorf("%s to %s:%d: %+v, %q; want %+v", tt.account, tt.host, tt.port, f, says, tt)
		}
		if err == nil && f.Waypoint == "" && !strings.HasSuffix(f.Story.Source.Identity, "/sa/"+tt.account) {
			t.Errorf("%s to %s: story %+v", tt.account, tt.host, f.Story)
		}
	}
}

func TestWhatBothEndsWouldSayOfAConnection(t *testing.T) {
	model, err := dump.ParseLocal([]byte(canWorld))
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{store: view.NewStore(), certs: certificates{Manager: certs.NewManager(certs.Config{})}}
	p.store.Replace(model)
	for _, tt := range []struct {
		account, address, host string
		port                   uint16
		allowed                bool
		says                   string
		waypoint               string
	}{
		{"a", "10.1.0.7", "web", 80, true, "allowed: no policy restricts it", ""},
		{"a", "", "web", 80, true, "allowed: no policy restricts it", ""},
		{"thief", "", "web", 80, false, "denied by DENY policy shop/no-thief rule 0", ""},
		{"thief", "", "mixed.shop", 80, false, "1 of 2 endpoints would refuse it: denied by DENY policy shop/no-thief rule 0", ""},
		{"thief", "", "10.1.0.6", 8080, false, "denied by DENY policy shop/no-thief rule 0", ""},
		{"thief", "10.1.0.99", "web", 80, true, "allowed: no policy restricts it", ""}, // in clear nobody knows who it is
		{"a", "10.1.0.7", "plain", 80, true, "in clear: the destination does not accept HBONE", ""},
		{"plain", "10.1.0.9", "plain", 80, true, "in clear: neither end is captured, and nobody asks a policy", ""},
		{"a", "10.1.0.7", "empty", 80, false, "service shop/empty.shop.svc.cluster.local has no endpoint to use", ""},
		{"plain", "10.1.0.9", "empty", 80, false, "no endpoint of shop/empty.shop.svc.cluster.local is ready", ""},
		{"a", "10.1.0.7", "routed", 80, false, "waypoint shop/wp.shop.svc.cluster.local", ""},
		{"a", "10.1.0.7", "web", 81, false, "service shop/web.shop.svc.cluster.local has no port 81", ""},
		{"a", "10.1.0.7", "192.0.2.1", 80, true, "passed on in clear: the destination is not in the mesh", ""},
		{"a", "10.1.0.7", "nowhere", 80, false, "error: no service nowhere is known here", ""},
	} {
		a := &decision.Asked{Source: spiffe.ID{TrustDomain: "cluster.local", Namespace: "shop", ServiceAccount: tt.account}, Host: tt.host, Port: tt.port}
		if tt.address != "" {
			a.Address = netip.AddrPortFrom(netip.MustParseAddr(tt.address), 0)
		}
		f, err := p.can(t.Context(), a)
		says := f.Says
		if err != nil {
			says = "error: " + err.Error()
		}
		if f.Allowed != tt.allowed || !strings.Contains(says, tt.says) || f.Waypoint != tt.waypoint {
			t.Errorf("%s %s to %s:%d: %+v, %q; want %+v", tt.account, tt.address, tt.host, tt.port, f, says, tt)
		}
	}
}
