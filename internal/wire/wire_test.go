package wire

import (
	"bytes"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/internal/spiffe"
	"github.com/ambit-mesh/ambit/internal/wire/securitypb"
	"github.com/ambit-mesh/ambit/internal/wire/workloadpb"
)

var (
	waypoint = mesh.GatewayAddress{Service: mesh.ServiceKey{Namespace: "shop", Hostname: "wp.shop.svc.cluster.local"}, Port: 15008}
	gateway  = mesh.GatewayAddress{Network: "far", Address: netip.MustParseAddr("192.0.2.9"), Port: 15009}
)

func fullWorkload() *mesh.Workload {
	return &mesh.Workload{
		UID: "c1//Pod/shop/reviews", Name: "reviews", Namespace: "shop", TrustDomain: "prod.example", ServiceAccount: "reviews",
		Addresses: []netip.Addr{netip.MustParseAddr("10.1.1.3"), netip.MustParseAddr("fd00::3")}, Hostname: "h", Network: "net",
		NetworkMode: mesh.NetworkHost, Tunnel: mesh.TunnelHBONE, NativeTunnel: true, Waypoint: waypoint, NetworkGateway: gateway,
		AppTunnelPort: 15088, AppTunnelProxy: true, Node: "n1", ClusterID: "c1", Locality: mesh.Locality{Region: "r", Zone: "z", Subzone: "s"},
		CanonicalName: "reviews", CanonicalRevision: "v1", Type: mesh.WorkloadCronJob, OwnerName: "reviews",
		Services:  map[mesh.ServiceKey][]mesh.Port{{Namespace: "shop", Hostname: "reviews.shop.svc.cluster.local"}: {{Service: 80, Target: 8080, App: mesh.AppGRPC}}, {Namespace: "a", Hostname: "b"}: nil},
		Policies:  []mesh.PolicyKey{{Namespace: "shop", Name: "a"}, {Namespace: "istio-system", Name: "b"}},
		Unhealthy: true, Capacity: 0, Settings: mesh.WorkloadSettings{RegistryOnly: true, TrustDomainAliases: []string{"old.example", "older.example"}, Hostname: "web-0", Subdomain: "web", Transport: mesh.TransportH3,
			CaptureDatagrams: true, Datagrams: true, NamedDatagramPorts: []mesh.NamedPort{{Of: mesh.ServiceKey{Namespace: "shop", Hostname: "web.shop.svc.cluster.local"}, Service: 5353, Target: 53}}},
	}
}

func fullService() *mesh.Service {
	return &mesh.Service{
		Affinity: 3 * time.Hour, DatagramPorts: []mesh.Port{{Service: 5353, Target: 53}, {Service: 443}},
		Name: "reviews", Namespace: "shop", Hostname: "reviews.shop.svc.cluster.local",
		Addresses: []mesh.NetworkPrefix{{Network: "net", Prefix: netip.MustParsePrefix("10.96.0.5/32")}, {Prefix: netip.MustParsePrefix("fd00:96::/64")}},
		Ports:     []mesh.Port{{Service: 80, Target: 0, App: mesh.AppHTTP2}}, SubjectAltNames: []spiffe.ID{{TrustDomain: "td", Namespace: "n", ServiceAccount: "s"}},
		Waypoint: waypoint, WeightedWaypoints: []mesh.WeightedWaypoint{{Destination: waypoint, Weight: 90}, {Destination: gateway, Weight: 10}},
		LoadBalancing: mesh.LoadBalancing{Preference: []mesh.Scope{mesh.ScopeNetwork, mesh.ScopeNode}, Mode: mesh.BalanceFailover, AllowUnhealthy: true},
		Families:      mesh.FamiliesDual, Canonical: true, IngressUseWaypoint: true, NamespaceOnly: true,
		VisibleIn: []string{"bank", "shop"},
	}
}

func fullPolicy() *mesh.Policy {
	texts := []mesh.StringMatch{{Op: mesh.OpExact, Value: "e"}, {Op: mesh.OpPrefix, Value: "p"}, {Op: mesh.OpSuffix, Value: "s"}, {Op: mesh.OpPresence}}
	blocks := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8"), netip.MustParsePrefix("0.0.0.0/0")}
	accounts := []mesh.ServiceAccount{{Namespace: "n", Name: "s"}}
	m := mesh.Match{
		Namespaces: texts, NotNamespaces: texts, Principals: texts, NotPrincipals: texts, ServiceAccounts: accounts, NotServiceAccounts: accounts,
		SourceIPs: blocks, NotSourceIPs: blocks, DestinationIPs: blocks, NotDestinationIPs: blocks, DestinationPorts: []uint16{1, 65535}, NotDestinationPorts: []uint16{80},
	}
	return &mesh.Policy{
		Key: mesh.PolicyKey{Namespace: "shop", Name: "p"}, Scope: mesh.ScopeSelector, Action: mesh.ActionDeny, DryRun: true,
		Rules: []mesh.Rule{{}, {Clauses: []mesh.Clause{{}, {Matches: []mesh.Match{{}, m}}}}},
	}
}

// everyField fails for a field that the full values leave at its zero value,
// so that a new field cannot be forgotten in the round trip.
func everyField(t *testing.T, v any, zero ...string) {
	t.Helper()
	r := reflect.ValueOf(v).Elem()
	for i := range r.NumField() {
		name := r.Type().Field(i).Name
		if r.Field(i).IsZero() && !strings.Contains(strings.Join(zero, " "), name) {
			t.Errorf("%T.%s is not set by the test", v, name)
		}
	}
}

func TestEveryFieldComesBack(t *testing.T) {
	w := fullWorkload()
	everyField(t, w, "Capacity")
	everyField(t, &w.Settings)
	if got, _, err := UnmarshalAddress(MarshalWorkload(w)); err != nil || !reflect.DeepEqual(got, w) {
		t.Errorf("workload came back as\n%+v, %v\nwant\n%+v", got, err, w)
	}
	s := fullService()
	everyField(t, s)
	if _, got, err := UnmarshalAddress(MarshalService(s)); err != nil || !reflect.DeepEqual(got, s) {
		t.Errorf("service came back as\n%+v, %v\nwant\n%+v", got, err, s)
	}
	p := fullPolicy()
	everyField(t, p, "Targets", "Provider") // of waypoints' policies, which have a form of their own
	everyField(t, &p.Rules[1].Clauses[1].Matches[1], "HTTP")
	if got, err := UnmarshalPolicy("shop/p", MarshalPolicy(p)); err != nil || !reflect.DeepEqual(got, p) {
		t.Errorf("policy came back as\n%+v, %v\nwant\n%+v", got, err, p)
	}
}

func TestDefaultsAreLeftOutAndFilledIn(t *testing.T) {
	w := &mesh.Workload{UID: "u", TrustDomain: "cluster.local", ServiceAccount: "default", ClusterID: "Kubernetes", Capacity: 1, Addresses: []netip.Addr{netip.MustParseAddr("10.0.0.1")}}
	var a workloadpb.Address
	if err := proto.Unmarshal(MarshalWorkload(w), &a); err != nil {
		t.Fatal(err)
	}
	want := &workloadpb.Workload{Uid: "u", Addresses: [][]byte{{10, 0, 0, 1}}}
	if !proto.Equal(a.GetWorkload(), want) {
		t.Errorf("on the wire it is %v, want %v", a.GetWorkload(), want)
	}
	got, _, err := UnmarshalAddress(MarshalWorkload(w))
	if err != nil || !reflect.DeepEqual(got, w) {
		t.Errorf("it came back as %+v, %v", got, err)
	}
}

func TestEqualValuesAreEqualBytes(t *testing.T) {
	for range 20 { // a map has no order of its own
		if !bytes.Equal(MarshalWorkload(fullWorkload()), MarshalWorkload(fullWorkload())) {
			t.Fatal("one workload has two forms")
		}
	}
	if Version([]byte("a")) == Version([]byte("b")) || Version(nil) == "" {
		t.Error("versions do not tell contents apart")
	}
}

// address marshals a workload that is valid but for what change does to it.
func address(change func(*workloadpb.Workload)) []byte {
	w := writeWorkload(fullWorkload())
	change(w)
	return marshal(&workloadpb.Address{Type: &workloadpb.Address_Workload{Workload: w}})
}

func service(change func(*workloadpb.Service)) []byte {
	s := writeService(fullService())
	change(s)
	return marshal(&workloadpb.Address{Type: &workloadpb.Address_Service{Service: s}})
}

func TestBadAddressesAreRejected(t *testing.T) {
	type w = workloadpb.Workload
	type s = workloadpb.Service
	for _, tt := range []struct {
		sentence string
		body     []byte
		want     string // in the error; empty if it is accepted
	}{
		{"the full workload", address(func(*w) {}), ""},
		{"the full service", service(func(*s) {}), ""},
		{"bytes that are no message", []byte{0xff}, "decoding address"},
		{"neither workload nor service", nil, "neither workload nor service"},
		{"no uid", address(func(x *w) { x.Uid = "" }), "no uid"},
		{"an address of 5 bytes", address(func(x *w) { x.Addresses = [][]byte{{1, 2, 3, 4, 5}} }), "address of 5 bytes"},
		{"an empty address", address(func(x *w) { x.Addresses = [][]byte{{}} }), "address of 0 bytes"},
		{"legacy mTLS", address(func(x *w) { x.TunnelProtocol = workloadpb.TunnelProtocol_LEGACY_ISTIO_MTLS }), "LEGACY_ISTIO_MTLS is not supported"},
		{"a later tunnel protocol", address(func(x *w) { x.TunnelProtocol = 9 }), "tunnel protocol 9"},
		{"a later network mode", address(func(x *w) { x.NetworkMode = 9 }), "network mode 9"},
		{"a later status", address(func(x *w) { x.Status = 9 }), "status 9"},
		{"a later application tunnel", address(func(x *w) { x.ApplicationTunnel.Protocol = 9 }), "application tunnel protocol 9"},
		{"an application tunnel port too big", address(func(x *w) { x.ApplicationTunnel.Port = 65536 }), "port 65536"},
		{"a gateway port too big", address(func(x *w) { x.Waypoint.HboneMtlsPort = 65536 }), "waypoint: port 65536"},
		{"a waypoint without destination", address(func(x *w) { x.Waypoint.Destination = nil }), "waypoint: no destination"},
		{"a waypoint with half a name", address(func(x *w) { x.Waypoint.GetHostname().Namespace = "" }), "waypoint: an incomplete hostname"},
		{"a gateway without address", address(func(x *w) { x.NetworkGateway.GetAddress().Address = nil }), "network gateway: an address of 0 bytes"},
		{"a policy key without a name", address(func(x *w) { x.AuthorizationPolicies = []string{"p"} }), "policy key"},
		{"a service key without a namespace", address(func(x *w) { x.Services = map[string]*workloadpb.PortList{"b": {}} }), "service key"},
		{"a port too big", address(func(x *w) { x.Services["a/b"] = &workloadpb.PortList{Ports: []*workloadpb.Port{{ServicePort: 65536}}} }), "port 65536"},
		{"a later application protocol", address(func(x *w) {
			x.Services["a/b"] = &workloadpb.PortList{Ports: []*workloadpb.Port{{AppProtocol: 77}}}
		}), "application protocol 77"},
		{"no way to reach it", address(func(x *w) { x.Addresses, x.Hostname, x.NetworkGateway = nil, "", nil }), "neither address nor hostname"},
		{"only a hostname", address(func(x *w) { x.Addresses, x.NetworkGateway = nil, nil }), ""},
		{"others' extensions are passed over", address(func(x *w) { x.Extensions = []*workloadpb.Extension{{Name: "x"}} }), ""},
		{"settings without a body", address(func(x *w) { x.Extensions[0].Config = nil }), "extension ambit.workload"},
		{"settings of another type", address(func(x *w) { x.Extensions[0].Config.TypeUrl = "type.googleapis.com/x.Y" }), "extension ambit.workload"},
		{"settings of bytes that are no message", address(func(x *w) { x.Extensions[0].Config.Value = []byte{0xff} }), "extension ambit.workload"},
		{"settings with a later field", address(func(x *w) {
			x.Extensions[0].Config.Value = protowire.AppendVarint(protowire.AppendTag(nil, 99, protowire.VarintType), 1)
		}), ""},

		{"a service without namespace", service(func(x *s) { x.Namespace = "" }), "no namespace"},
		{"a service without hostname", service(func(x *s) { x.Hostname = "" }), "no hostname"},
		{"a VIP of 3 bytes", service(func(x *s) { x.Addresses[0].Address = []byte{1, 2, 3} }), "address of 3 bytes"},
		{"a VIP block too long", service(func(x *s) { x.Addresses[0].Length = proto.Uint32(33) }), "prefix of 33 bits"},
		{"a later balancing mode", service(func(x *s) { x.LoadBalancing.Mode = 9 }), "balancing mode 9"},
		{"a later health policy", service(func(x *s) { x.LoadBalancing.HealthPolicy = 9 }), "health policy 9"},
		{"a later scope", service(func(x *s) { x.LoadBalancing.RoutingPreference = []workloadpb.LoadBalancing_Scope{9} }), "routing scope 9"},
		{"an unspecified scope", service(func(x *s) { x.LoadBalancing.RoutingPreference = []workloadpb.LoadBalancing_Scope{0} }), "unspecified routing scope"},
		{"later families", service(func(x *s) { x.IpFamilies = 9 }), "ip families 9"},
		{"a name that is no identity", service(func(x *s) { x.SubjectAltNames = []string{"nobody"} }), "parsing identity"},
		{"a weighted waypoint without destination", service(func(x *s) { x.WeightedWaypoints[0].Destination = nil }), "weighted waypoint: no destination"},
		{"a later visibility is public", service(func(x *s) { x.Visibility = 9 }), ""},
	} {
		w, s, err := UnmarshalAddress(tt.body)
		switch {
		case tt.want == "" && err != nil:
			t.Errorf("%s is rejected: %v", tt.sentence, err)
		case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
			t.Errorf("%s: error %v, want one with %q", tt.sentence, err, tt.want)
		case err != nil && (w != nil || s != nil):
			t.Errorf("%s: a value beside the error", tt.sentence)
		}
	}
}

func TestAddressesHaveOneForm(t *testing.T) {
	mapped := netip.MustParseAddr("::ffff:10.0.0.1")
	w, _, err := UnmarshalAddress(address(func(x *workloadpb.Workload) { x.Addresses = [][]byte{mapped.AsSlice()} }))
	if err != nil || w.Addresses[0] != netip.MustParseAddr("10.0.0.1") {
		t.Errorf("an IPv4 address in IPv6 form came back as %v, %v", w.Addresses, err)
	}
	p, err := readPrefix(mapped.AsSlice(), 120)
	if err != nil || p != netip.MustParsePrefix("10.0.0.0/24") {
		t.Errorf("an IPv4 block in IPv6 form came back as %v, %v", p, err)
	}
	if p, err = readPrefix([]byte{10, 1, 2, 3}, 8); err != nil || p != netip.MustParsePrefix("10.0.0.0/8") {
		t.Errorf("a block with host bits came back as %v, %v", p, err)
	}
}

func TestPoliciesThatAreNotUnderstoodAreRejected(t *testing.T) {
	type match = securitypb.Match
	body := func(change func(*securitypb.Authorization, *match)) []byte {
		m := &match{Principals: []*securitypb.StringMatch{{MatchType: &securitypb.StringMatch_Exact{Exact: "x"}}}}
		a := &securitypb.Authorization{Name: "p", Namespace: "shop", Scope: securitypb.Scope_WORKLOAD_SELECTOR, Rules: []*securitypb.Rule{{Clauses: []*securitypb.Clause{{Matches: []*match{m}}}}}}
		change(a, m)
		return marshal(a)
	}
	later := protowire.AppendVarint(protowire.AppendTag(nil, 99, protowire.VarintType), 1)
	for _, tt := range []struct {
		sentence string
		body     []byte
		want     string
		scope    mesh.PolicyScope
	}{
		{"a policy that is understood", body(func(*securitypb.Authorization, *match) {}), "", mesh.ScopeSelector},
		{"an extension of the policy is passed over", body(func(a *securitypb.Authorization, _ *match) { a.Extensions = []*securitypb.Extension{{Name: "x"}} }), "", mesh.ScopeSelector},
		{"a global policy without a namespace in its body", body(func(a *securitypb.Authorization, _ *match) { a.Scope, a.Namespace = securitypb.Scope_GLOBAL, "" }), "", mesh.ScopeGlobal},
		{"bytes that are no message", []byte{0xff}, "decoding policy", mesh.ScopeNamespace},
		{"a later scope", body(func(a *securitypb.Authorization, _ *match) { a.Scope = 9 }), "scope 9", mesh.ScopeNamespace},
		{"a later action", body(func(a *securitypb.Authorization, _ *match) { a.Action = 9 }), "action 9", mesh.ScopeSelector},
		{"a later action of a global policy", body(func(a *securitypb.Authorization, _ *match) { a.Action, a.Scope = 9, securitypb.Scope_GLOBAL }), "action 9", mesh.ScopeGlobal},
		{"another policy's body", body(func(a *securitypb.Authorization, _ *match) { a.Name = "q" }), "body is of policy shop/q", mesh.ScopeSelector},
		{"a later field of the policy", body(func(a *securitypb.Authorization, _ *match) { a.ProtoReflect().SetUnknown(later) }), "Authorization has fields", mesh.ScopeSelector},
		{"a later field of a rule", body(func(a *securitypb.Authorization, _ *match) { a.Rules[0].ProtoReflect().SetUnknown(later) }), "Rule has fields", mesh.ScopeSelector},
		{"a later field of a clause", body(func(a *securitypb.Authorization, _ *match) { a.Rules[0].Clauses[0].ProtoReflect().SetUnknown(later) }), "Clause has fields", mesh.ScopeSelector},
		{"a later field of a match", body(func(_ *securitypb.Authorization, m *match) { m.ProtoReflect().SetUnknown(later) }), "Match has fields", mesh.ScopeSelector},
		{"an extension of a match", body(func(_ *securitypb.Authorization, m *match) {
			m.Extensions = []*securitypb.Extension{{Name: "x", Config: &anypb.Any{}}}
		}), `extension "x"`, mesh.ScopeSelector},
		{"a text of a later kind", body(func(_ *securitypb.Authorization, m *match) { m.Principals[0].MatchType = nil }), "no known type", mesh.ScopeSelector},
		{"a block of 5 bytes", body(func(_ *securitypb.Authorization, m *match) {
			m.SourceIps = []*securitypb.Address{{Address: make([]byte, 5)}}
		}), "address of 5 bytes", mesh.ScopeSelector},
		{"a block too long", body(func(_ *securitypb.Authorization, m *match) {
			m.NotSourceIps = []*securitypb.Address{{Address: make([]byte, 4), Length: 33}}
		}), "prefix of 33 bits", mesh.ScopeSelector},
		{"a port too big", body(func(_ *securitypb.Authorization, m *match) { m.DestinationPorts = []uint32{80, 70000} }), "port 70000", mesh.ScopeSelector},
		{"an account without a name", body(func(_ *securitypb.Authorization, m *match) {
			m.ServiceAccounts = []*securitypb.ServiceAccountMatch{{Namespace: "n"}}
		}), "account without a name", mesh.ScopeSelector},
	} {
		p, err := UnmarshalPolicy("shop/p", tt.body)
		switch {
		case tt.want == "" && err != nil:
			t.Errorf("%s is rejected: %v", tt.sentence, err)
		case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
			t.Errorf("%s: error %v, want one with %q", tt.sentence, err, tt.want)
		case p == nil || p.Key.String() != "shop/p" || p.Scope != tt.scope:
			t.Errorf("%s: what is left is %+v, want its key and scope %d", tt.sentence, p, tt.scope)
		}
	}
	if p, err := UnmarshalPolicy("p", body(func(*securitypb.Authorization, *match) {})); err == nil || p != nil {
		t.Errorf("a policy without a namespace in its name is %+v, %v", p, err)
	}
}

// FuzzUnmarshal: whatever comes in, what is accepted can be written and comes
// back the same.
func FuzzUnmarshal(f *testing.F) {
	f.Add(MarshalWorkload(fullWorkload()))
	f.Add(MarshalService(fullService()))
	f.Add(MarshalPolicy(fullPolicy()))
	f.Fuzz(func(t *testing.T, body []byte) {
		switch w, s, err := UnmarshalAddress(body); {
		case err != nil:
		case w != nil:
			if again, _, err := UnmarshalAddress(MarshalWorkload(w)); err != nil || !reflect.DeepEqual(w, again) {
				t.Errorf("workload %+v came back as %+v, %v", w, again, err)
			}
		default:
			if _, again, err := UnmarshalAddress(MarshalService(s)); err != nil || !reflect.DeepEqual(s, again) {
				t.Errorf("service %+v came back as %+v, %v", s, again, err)
			}
		}
		if p, err := UnmarshalPolicy("shop/p", body); err == nil {
			if again, err := UnmarshalPolicy("shop/p", MarshalPolicy(p)); err != nil || !reflect.DeepEqual(p, again) {
				t.Errorf("policy %+v came back as %+v, %v", p, again, err)
			}
		}
	})
}

// TestDamagedBodiesNeverPanic flips bytes of good bodies.
func TestDamagedBodiesNeverPanic(t *testing.T) {
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 0))
	for _, body := range [][]byte{MarshalWorkload(fullWorkload()), MarshalService(fullService()), MarshalPolicy(fullPolicy())} {
		for range 2000 {
			b := bytes.Clone(body)
			for range 1 + r.IntN(3) {
				b[r.IntN(len(b))] = byte(r.Uint32())
			}
			_, _, _ = UnmarshalAddress(b)
			if p, err := UnmarshalPolicy("shop/p", b); p == nil {
				t.Fatalf("seed %d: a damaged policy lost its key: %v", seed, err)
			}
		}
	}
}
