package dump

import (
	"encoding/json"
	"errors"
	"reflect"
	"testing"

	"github.com/ambit-mesh/ambit/internal/view"
	"github.com/ambit-mesh/ambit/internal/zds"
	"github.com/ambit-mesh/ambit/ztunnel/connections"
)

// upstream is what upstream's tools read of a dump, with their types
// (dataplane spec 7.7).
type upstream struct {
	Workloads []struct {
		UID, Protocol, NetworkMode, Name, Namespace, ServiceAccount, WorkloadName, WorkloadType string
		CanonicalName, CanonicalRevision, Node, Network, TrustDomain, Status, ClusterID         string
		WorkloadIPs, AuthorizationPolicies, Services                                            []string
		Locality                                                                                struct{ Region, Zone, Subzone string }
		Waypoint                                                                                struct{ Destination string }
		Capacity                                                                                int
	}
	Services []struct {
		Name, Namespace, Hostname, IPFamilies, Visibility string
		VIPs, CIDRVIPs, SubjectAltNames                   []string
		Ports                                             map[string]int
		Endpoints                                         map[string]struct {
			WorkloadUID, Status string
			Port                map[uint16]uint16
		}
		LoadBalancer struct {
			Mode, HealthPolicy string
			RoutingPreferences []string
		}
	}
	Policies []struct {
		Name, Namespace, Scope, Action string
		DryRun                         bool
		Rules                          [][][]struct {
			Principals, NotPrincipals []struct {
				Exact, Prefix, Suffix string
				Presence              any
			}
			SourceIPs, DestinationIPs []string
			DestinationPorts          []uint16
		}
	}
	Certificates []struct {
		Identity, State      string
		CertChain, RootCerts []struct{ PEM, SerialNumber, ValidFrom, ExpirationTime string }
	}
	WorkloadState map[string]struct {
		State       string
		Connections struct {
			Inbound, Outbound []struct{ Src, OriginalDst, ActualDst, Protocol string }
		}
		Info struct{ Name, Namespace, ServiceAccount string }
	}
	StagedServices, StaticConfig, Config map[string]any
	Version                              map[string]string
}

const whole = `
workloads:
- uid: k//Pod/shop/web
  name: web
  namespace: shop
  serviceAccount: web
  workloadIps: [10.1.0.6]
  protocol: HBONE
  node: n1
  network: net
  workloadName: web
  canonicalName: web
  canonicalRevision: v1
  locality: {region: r, zone: z, subzone: s}
  waypoint: {destination: shop/wp.shop.svc.cluster.local, hboneMtlsPort: 15008}
  authorizationPolicies: [shop/p]
  services: {shop/web.shop.svc.cluster.local: {80: 8080}}
services:
- {name: web, namespace: shop, hostname: web.shop.svc.cluster.local, vips: [net/10.96.0.1, net/10.97.0.0/16], ports: {80: 8080}}
policies:
- {name: p, namespace: shop, scope: Namespace, action: Deny, rules: [[[{principals: [{Exact: a}, {Prefix: b}, {Suffix: c}], notPrincipals: [{Presence: ""}], sourceIps: [10.0.0.0/8], destinationPorts: [80]}]]]}
`

// TestUpstreamsToolsReadEveryField of a dump, each of its kind.
func TestUpstreamsToolsReadEveryField(t *testing.T) {
	model, err := ParseLocal([]byte(whole))
	if err != nil {
		t.Fatal(err)
	}
	store := view.NewStore()
	store.Replace(model)
	d := &Dump{
		Version: map[string]string{"version": "dev"}, Config: map[string]any{"node": "n1"},
		Certificates: []Certificate{{Identity: "spiffe://x", State: "Available", Chain: []Cert{{PEM: []byte("p"), SerialNumber: "1"}}, Roots: []Cert{{PEM: []byte("p"), SerialNumber: "2"}}}},
	}
	d.AddView(store.View())
	d.AddPod(zds.Pod{UID: "u", Name: "web", Namespace: "shop", ServiceAccount: "web"}, "Up", errors.New("no"), []connections.Info{{HBONE: true}})
	b, err := json.Marshal(d)
	if err != nil {
		t.Fatal(err)
	}
	var got upstream
	if err := json.Unmarshal(b, &got); err != nil {
		t.Fatal(err)
	}
	empty := map[string]bool{ // what this mesh does not have
		"SubjectAltNames": true, "IPFamilies": true, "RoutingPreferences": true, "DryRun": true, "DestinationIPs": true,
		"Outbound": true, "StagedServices": true, "StaticConfig": true, "Presence": true, "Prefix": true, "Suffix": true, "Exact": true,
	}
	missing(t, reflect.ValueOf(got), "", empty)
	if m := got.Policies[0].Rules[0][0][0]; m.Principals[0].Exact != "a" || m.Principals[1].Prefix != "b" || m.Principals[2].Suffix != "c" || m.NotPrincipals[0].Presence == nil {
		t.Errorf("comparisons %+v", m)
	}
	if s := got.Services[0]; s.Endpoints["k//Pod/shop/web"].Port[80] != 8080 || s.VIPs[0] != "net/10.96.0.1" || s.CIDRVIPs[0] != "net/10.97.0.0/16" {
		t.Errorf("service %+v", s)
	}
}

// missing complains of fields that nothing filled.
func missing(t *testing.T, v reflect.Value, path string, empty map[string]bool) {
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			if name := v.Type().Field(i).Name; !empty[name] {
				missing(t, v.Field(i), path+"."+name, empty)
			}
		}
	case reflect.Slice, reflect.Map:
		if v.Len() == 0 {
			t.Errorf("%s is empty", path)
		}
		if v.Kind() == reflect.Slice && v.Len() > 0 {
			missing(t, v.Index(0), path, empty)
		} else if v.Len() > 0 {
			missing(t, v.MapIndex(v.MapKeys()[0]), path, empty)
		}
	default:
		if v.IsZero() {
			t.Errorf("%s is empty", path)
		}
	}
}
