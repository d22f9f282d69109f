package policy

import (
	"encoding/json"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/internal/spiffe"
)

// request is client's GET /products/7 with a token.
func request() Request {
	return Request{Connection: connection(), HTTP: &HTTP{
		Method: "GET", Path: "/products/7", Host: "Web.shop:8080",
		Header: map[string][]string{"X-Token": {"admin"}, "X-Twice": {"a", "b"}, "X-Empty": {""}},
		Token: &Token{
			Principal: "issuer.example/jane", Audiences: []string{"shop", "bank"}, Presenter: "app",
			Claims: map[string]any{
				"groups": []any{"group1", "group2"}, "admin": true, "level": json.Number("7"),
				"nested": map[string]any{"key": "value"},
			},
		},
	}}
}

func hosts(m ...mesh.StringMatch) mesh.Match { return mesh.Match{HTTP: &mesh.HTTPMatch{Hosts: m}} }

func paths(template bool, op mesh.StringOp, value string) mesh.Match {
	return mesh.Match{HTTP: &mesh.HTTPMatch{Paths: []mesh.PathPattern{{StringMatch: mesh.StringMatch{Op: op, Value: value}, Template: template}}}}
}

func named(a mesh.Attribute, values, not []mesh.StringMatch, name ...string) mesh.Match {
	return mesh.Match{HTTP: &mesh.HTTPMatch{Values: []mesh.NamedMatch{{Attribute: a, Name: name, Values: values, NotValues: not}}}}
}

func TestMatchesOfRequests(t *testing.T) {
	const header, claim = mesh.AttributeHeader, mesh.AttributeClaim
	path := func(p string) Request { q := request(); q.HTTP.Path = p; return q }
	host := func(h string) Request { q := request(); q.HTTP.Host = h; return q }
	tokenless := request()
	tokenless.HTTP.Token = nil
	remote := request()
	remote.RemoteIP = netip.MustParseAddr("203.0.113.9")
	sni := Request{Connection: connection(), SNI: "Db.shop"}
	for _, tt := range []struct {
		sentence string
		match    mesh.Match
		q        Request
		want     bool
	}{
		{"an HTTP match without attributes never matches", mesh.Match{HTTP: &mesh.HTTPMatch{}}, request(), false},
		{"L4 and HTTP attributes are and-ed", mesh.Match{DestinationPorts: []uint16{81}, HTTP: &mesh.HTTPMatch{Methods: exact("GET")}}, request(), false},
		{"a method", mesh.Match{HTTP: &mesh.HTTPMatch{Methods: exact("GET")}}, request(), true},
		{"a method has case", mesh.Match{HTTP: &mesh.HTTPMatch{Methods: exact("get")}}, request(), false},
		{"not a method", mesh.Match{HTTP: &mesh.HTTPMatch{NotMethods: exact("GET")}}, request(), false},

		{"a host without case and port", hosts(exact("web.SHOP")...), request(), true},
		{"a host with its port", hosts(exact("web.shop:8080")...), request(), true},
		{"a host with another port", hosts(exact("web.shop:80")...), request(), false},
		{"a host at any port", hosts(prefix("web.shop:")...), request(), true},
		{"a host by suffix, without its port", hosts(suffix(".shop")...), request(), true},
		{"a host with a final dot is the same", hosts(exact("web.shop")...), host("web.shop."), true},
		{"a host with a final dot and a port is the same", hosts(exact("web.shop:80")...), host("web.shop.:80"), true},
		{"an IPv6 host has colons that are no port", hosts(exact("[::1]")...), host("[::1]:80"), true},
		{"no host is present", hosts(present...), host(""), false},

		{"a path", paths(false, mesh.OpExact, "/products/7"), request(), true},
		{"a path by prefix", paths(false, mesh.OpPrefix, "/products"), request(), true},
		{"a path has case", paths(false, mesh.OpExact, "/Products/7"), request(), false},
		{"{*} is a segment", paths(true, mesh.OpExact, "/foo/{*}"), path("/foo/bar"), true},
		{"{*} is one segment", paths(true, mesh.OpExact, "/foo/{*}"), path("/foo/bar/baz"), false},
		{"{*} is not nothing", paths(true, mesh.OpExact, "/foo/{*}"), path("/foo/"), false},
		{"{**} is any number of segments", paths(true, mesh.OpExact, "/foo/{*}/bar/{**}"), path("/foo/buzz/bar/baz/z"), true},
		{"{**} is nothing too", paths(true, mesh.OpExact, "/foo/{*}/bar/{**}"), path("/foo/buzz/bar/"), true},
		{"{**} begins after its slash", paths(true, mesh.OpExact, "/foo/{**}"), path("/foo"), false},
		{"a text follows {**}", paths(true, mesh.OpExact, "/foo/{**}/"), path("/foo/bar/baz/"), true},
		{"a text that follows {**} is demanded", paths(true, mesh.OpExact, "/foo/{**}/"), path("/foo/bar"), false},

		{"a header", named(header, exact("admin"), nil, "x-token"), request(), true},
		{"a header that is not there", named(header, present, nil, "x-other"), request(), false},
		{"a header that must not be there", named(header, nil, present, "x-other"), request(), true},
		{"an empty header is present", named(header, present, nil, "x-empty"), request(), true},
		{"the host is a header too", named(header, exact("Web.shop:8080"), nil, "host"), request(), true},
		{"a claim", named(claim, exact("value"), nil, "nested", "key"), request(), true},
		{"a claim below one that is a list", named(claim, exact("value"), nil, "groups", "key"), request(), false},
		{"a claim that is a list, by any element", named(claim, exact("group2"), nil, "groups"), request(), true},
		{"a claim that is a list, by no element", named(claim, nil, exact("group2"), "groups"), request(), false},
		{"a boolean claim by its text", named(claim, exact("true"), nil, "admin"), request(), true},
		{"a number by its text", named(claim, exact("7"), nil, "level"), request(), true},
		{"a claim without a token", named(claim, present, nil, "groups"), tokenless, false},
		{"an audience", named(mesh.AttributeAudience, exact("bank"), nil), request(), true},
		{"a presenter", named(mesh.AttributePresenter, exact("app"), nil), request(), true},
		{"a request principal", mesh.Match{HTTP: &mesh.HTTPMatch{RequestPrincipals: suffix("/jane")}}, request(), true},
		{"no token is not of any principal", mesh.Match{HTTP: &mesh.HTTPMatch{NotRequestPrincipals: present}}, tokenless, true},
		{"a token is of one", mesh.Match{HTTP: &mesh.HTTPMatch{NotRequestPrincipals: present}}, request(), false},
		{"no token is no principal by an empty prefix", mesh.Match{HTTP: &mesh.HTTPMatch{RequestPrincipals: prefix("")}}, tokenless, false},

		{"a remote address", mesh.Match{HTTP: &mesh.HTTPMatch{RemoteIPs: block("203.0.113.0/24")}}, remote, true},
		{"the remote address is the peer's unless told", mesh.Match{HTTP: &mesh.HTTPMatch{RemoteIPs: block("10.1.0.0/16")}}, request(), true},
		{"the source is the peer whatever is told", mesh.Match{SourceIPs: block("203.0.113.0/24")}, remote, false},
		{"a TLS name without case, on a plain connection", named(mesh.AttributeSNI, exact("db.shop"), nil), sni, true},
		{"a remote address of a plain connection", mesh.Match{HTTP: &mesh.HTTPMatch{RemoteIPs: block("10.1.0.0/16")}}, sni, true},
	} {
		p := &mesh.Policy{Key: mesh.PolicyKey{Namespace: "shop", Name: "p"}, Rules: []mesh.Rule{rule(tt.match)}}
		if got := EvaluateRequest(Set{Policies: []*mesh.Policy{p}}, tt.q).Allow; got != tt.want {
			t.Errorf("%s: matches %v, want %v", tt.sentence, got, tt.want)
		}
		p.Action = mesh.ActionDeny
		if got := !EvaluateRequest(Set{Policies: []*mesh.Policy{p}}, tt.q).Allow; got != tt.want {
			t.Errorf("%s: denies %v, want %v", tt.sentence, got, tt.want)
		}
	}
}

func TestWhatCannotBeToldCloses(t *testing.T) {
	tcp := Request{Connection: connection()}
	method := mesh.Match{HTTP: &mesh.HTTPMatch{Methods: exact("GET")}}
	notMethod := mesh.Match{HTTP: &mesh.HTTPMatch{NotMethods: exact("GET")}}
	elsewhere := mesh.Match{DestinationPorts: []uint16{81}, HTTP: method.HTTP}
	twice := func(values, not []mesh.StringMatch) mesh.Match {
		return named(mesh.AttributeHeader, values, not, "X-Twice")
	}
	for _, tt := range []struct {
		sentence    string
		match       mesh.Match
		q           Request
		allow, deny bool // whether it matches in an ALLOW and in a DENY
	}{
		{"a method of a plain connection", method, tcp, false, true},
		{"another method of a plain connection", notMethod, tcp, false, true},
		{"the rest of such a match must hold", elsewhere, tcp, false, false},
		{"a header sent twice is not just its first value", twice(exact("a"), nil), request(), false, true},
		{"nor just its last", twice(exact("b"), nil), request(), false, true},
		{"nor just both joined", twice(exact("a,b"), nil), request(), false, true},
		{"nor is it without its first", twice(nil, exact("a")), request(), false, true},
		{"it may be all of them at once", twice(present, nil), request(), true, true},
		{"and none of them", twice(nil, exact("c")), request(), true, true},
	} {
		p := &mesh.Policy{Key: mesh.PolicyKey{Namespace: "shop", Name: "p"}, Rules: []mesh.Rule{rule(tt.match)}}
		if got := EvaluateRequest(Set{Policies: []*mesh.Policy{p}}, tt.q).Allow; got != tt.allow {
			t.Errorf("%s: an ALLOW matches: %v, want %v", tt.sentence, got, tt.allow)
		}
		p.Action = mesh.ActionDeny
		if got := !EvaluateRequest(Set{Policies: []*mesh.Policy{p}}, tt.q).Allow; got != tt.deny {
			t.Errorf("%s: a DENY matches: %v, want %v", tt.sentence, got, tt.deny)
		}
	}
}

func TestCustomPoliciesAreAskedFirst(t *testing.T) {
	all := []mesh.Rule{{}}
	p := func(name string, a mesh.Action, rules []mesh.Rule) *mesh.Policy {
		return &mesh.Policy{Key: mesh.PolicyKey{Namespace: "shop", Name: name}, Action: a, Rules: rules}
	}
	other := []mesh.Rule{rule(mesh.Match{HTTP: &mesh.HTTPMatch{Methods: exact("POST")}})}
	dry := p("dry", mesh.ActionCustom, all)
	dry.DryRun = true
	s := Set{Policies: []*mesh.Policy{
		p("deny", mesh.ActionDeny, all), p("ask", mesh.ActionCustom, append(other, all...)), p("other", mesh.ActionCustom, other),
		p("note", mesh.ActionAudit, all), dry, p("allow", mesh.ActionAllow, all),
	}}
	q := request()
	asks := Asks(s, q)
	if len(asks) != 1 || asks[0].Policy.Key.Name != "ask" || asks[0].Rule != 1 {
		t.Fatalf("asks %+v, want rule 1 of shop/ask alone", asks)
	}
	v := EvaluateRequest(s, q)
	if want := "denied: the provider of CUSTOM policy shop/ask rule 1 was not asked"; v.String() != want {
		t.Errorf("unasked: %q, want %q", v, want)
	}
	if len(v.Audit) != 1 || len(v.DryRun) != 1 {
		t.Errorf("noted %v and, dry, %v; want one of each", v.Audit, v.DryRun)
	}
	q.Asked = true
	if got, want := EvaluateRequest(s, q).String(), "denied by DENY policy shop/deny rule 0"; got != want {
		t.Errorf("asked: %q, want %q", got, want)
	}
	s.Policies = s.Policies[1:]
	if got, want := EvaluateRequest(s, q).String(), "allowed by ALLOW policy shop/allow rule 0"; got != want {
		t.Errorf("asked, without the DENY: %q, want %q", got, want)
	}
	for cause, want := range map[Cause]string{
		CauseNoProvider: "denied: the provider of CUSTOM policy shop/ask is not configured",
		CauseRefused:    "denied by the provider of CUSTOM policy shop/ask rule 1",
		CauseUnanswered: "denied: the provider of CUSTOM policy shop/ask rule 1 did not answer",
	} {
		if v := asks[0].Verdict(cause); v.String() != want || v.Allow {
			t.Errorf("got %q (allows: %v), want %q", v, v.Allow, want)
		}
	}
}

func TestEveryPolicyHasItsOwnOpinion(t *testing.T) {
	key := func(name string) mesh.PolicyKey { return mesh.PolicyKey{Namespace: "shop", Name: name} }
	s := Set{Policies: []*mesh.Policy{
		{Key: key("a"), Action: mesh.ActionDeny, Rules: []mesh.Rule{rule(mesh.Match{HTTP: &mesh.HTTPMatch{Methods: exact("POST")}})}},
		{Key: key("b"), Rules: []mesh.Rule{rule(mesh.Match{NotPrincipals: present}), {}}},
	}}
	want := []Opinion{{Policy: key("a"), Action: mesh.ActionDeny, Rule: -1}, {Policy: key("b"), Rule: 1}}
	if d := cmp.Diff(want, Judge(s, request())); d != "" {
		t.Errorf("opinions (-want +got):\n%s", d)
	}
}

func TestRemoteAddress(t *testing.T) {
	for _, tt := range []struct {
		sentence  string
		forwarded []string
		hops      int
		want      string
	}{
		{"nobody is believed by default", []string{"203.0.113.9"}, 0, "10.0.0.1"},
		{"one proxy wrote the last entry", []string{"192.0.2.1, 203.0.113.9"}, 1, "203.0.113.9"},
		{"two proxies wrote two", []string{"192.0.2.1,203.0.113.9, 198.51.100.1"}, 2, "203.0.113.9"},
		{"entries may be on lines of their own", []string{"192.0.2.1, 203.0.113.9", "198.51.100.1"}, 2, "203.0.113.9"},
		{"a list that is too short", []string{"203.0.113.9"}, 2, "10.0.0.1"},
		{"no list", nil, 1, "10.0.0.1"},
		{"an entry that is no address", []string{"203.0.113.9, unknown"}, 1, "10.0.0.1"},
		{"IPv6", []string{"2001:db8::1"}, 1, "2001:db8::1"},
	} {
		if got := RemoteAddress(netip.MustParseAddr("10.0.0.1"), tt.forwarded, tt.hops); got.String() != tt.want {
			t.Errorf("%s: %s, want %s", tt.sentence, got, tt.want)
		}
	}
}

func TestPrincipalsAreComparedAsTheirText(t *testing.T) {
	ids := []spiffe.ID{client, {TrustDomain: "t", Namespace: "n", ServiceAccount: "s"}, {TrustDomain: "t", Namespace: "/sa/", ServiceAccount: "/ns/"}}
	for _, id := range ids {
		text := id.Principal()
		for i := range len(text) + 1 {
			for _, value := range []string{text[:i], text[i:], text[:i] + "x", "x" + text[i:], text + "x", "x" + text} {
				for _, op := range []mesh.StringOp{mesh.OpExact, mesh.OpPrefix, mesh.OpSuffix, mesh.OpPresence} {
					m := mesh.StringMatch{Op: op, Value: value}
					if got := matchesPrincipal(m, id); got != m.Matches(text) {
						t.Fatalf("%s against %s: %v", m, text, got)
					}
				}
			}
		}
	}
}
