package translate_test

import (
	"math/rand/v2"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"testing"

	apisec "istio.io/api/security/v1beta1"
	typev1 "istio.io/api/type/v1beta1"
	security "istio.io/client-go/pkg/apis/security/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/internal/policy"
	"github.com/ambit-mesh/ambit/istiod-lite/objects"
	"github.com/ambit-mesh/ambit/istiod-lite/translate"
)

// The oracle for waypoints goes on where that for L4 stops: it evaluates what
// an author wrote about requests. Unknown is what a plain connection does not
// have, and a header sent twice that programs may read in different ways.

// anyOf is list for attributes with several values, of which any may match.
func anyOf(want, not []string, have []string, one func(pattern, text string) truth) truth {
	return list(want, not, have, func(pattern string, have []string) truth {
		if one(pattern, "probe") == unknown {
			return unknown
		}
		out := no
		for _, text := range have {
			out = out.or(one(pattern, text))
		}
		return out
	})
}

func oneHost(pattern, host string) truth {
	pattern, host = strings.ToLower(pattern), strings.ToLower(host)
	if !strings.Contains(pattern, ":") {
		host, _, _ = strings.Cut(host, ":")
	}
	return oneText(pattern, host)
}

func onePath(pattern, path string) truth {
	if !strings.Contains(pattern, "{*}") && !strings.Contains(pattern, "{**}") {
		return oneText(pattern, path)
	}
	if regexp.MustCompile(`\{\*\*\}.*\{`).MatchString(pattern) || !regexp.MustCompile(`^(/(\{\*\*?\}|[^*{}/]*))*$`).MatchString(pattern) {
		return unknown
	}
	e := regexp.QuoteMeta(pattern)
	e = strings.ReplaceAll(e, `\{\*\*\}`, ".*")
	e = strings.ReplaceAll(e, `\{\*\}`, "[^/]+")
	return known(regexp.MustCompile("^" + e + "$").MatchString(path))
}

// ofRequest is unknown for a connection that is not HTTP, if anything is asked.
func ofRequest(q policy.Request, lists [2][]string, holds func(h *policy.HTTP) truth) truth {
	switch {
	case len(lists[0])+len(lists[1]) == 0:
		return yes
	case q.HTTP == nil:
		return unknown
	}
	return holds(q.HTTP)
}

func tokenOf(h *policy.HTTP) policy.Token {
	if h.Token == nil {
		return policy.Token{}
	}
	return *h.Token
}

// ofToken is unknown in a CUSTOM policy, whose provider is asked before.
func ofToken(q policy.Request, custom bool, want, not []string, values func(policy.Token) []string) truth {
	return ofRequest(q, [2][]string{want, not}, func(h *policy.HTTP) truth {
		if custom {
			return unknown
		}
		return anyOf(want, not, values(tokenOf(h)), oneText)
	})
}

func present(texts ...string) []string {
	return slices.DeleteFunc(slices.Clone(texts), func(s string) bool { return s == "" })
}

func oracleRequest(r *apisec.Rule, q policy.Request, custom bool) truth {
	from, to, out := no, no, yes
	for _, f := range r.From {
		s := f.Source
		from = from.or(oracleSource(s, q.Connection).
			and(ofToken(q, custom, s.RequestPrincipals, s.NotRequestPrincipals, func(t policy.Token) []string { return present(t.Principal) })).
			and(list(s.RemoteIpBlocks, s.NotRemoteIpBlocks, q.RemoteIP, oneBlock)))
	}
	for _, t := range r.To {
		o := t.Operation
		to = to.or(list(o.Ports, o.NotPorts, q.Destination.Port(), onePort).
			and(ofRequest(q, [2][]string{o.Hosts, o.NotHosts}, func(h *policy.HTTP) truth { return list(o.Hosts, o.NotHosts, h.Host, oneHost) })).
			and(ofRequest(q, [2][]string{o.Methods, o.NotMethods}, func(h *policy.HTTP) truth { return list(o.Methods, o.NotMethods, h.Method, oneText) })).
			and(ofRequest(q, [2][]string{o.Paths, o.NotPaths}, func(h *policy.HTTP) truth { return list(o.Paths, o.NotPaths, h.Path, onePath) })))
	}
	if len(r.From) > 0 {
		out = from
	}
	if len(r.To) > 0 {
		out = out.and(to)
	}
	for _, w := range r.When {
		out = out.and(oracleRequestWhen(w, q, custom))
	}
	return out
}

func oracleRequestWhen(w *apisec.Condition, q policy.Request, custom bool) truth {
	yes, no := w.Values, w.NotValues
	switch w.Key {
	case "remote.ip":
		return list(yes, no, q.RemoteIP, oneBlock)
	case "connection.sni":
		return list(yes, no, q.SNI, oneText)
	case "request.headers[x-user]":
		return ofRequest(q, [2][]string{yes, no}, func(h *policy.HTTP) truth { return oracleHeader(yes, no, h.Header["X-User"]) })
	case "request.auth.principal":
		return ofToken(q, custom, yes, no, func(t policy.Token) []string { return present(t.Principal) })
	case "request.auth.audiences":
		return ofToken(q, custom, yes, no, func(t policy.Token) []string { return t.Audiences })
	case "request.auth.presenter":
		return ofToken(q, custom, yes, no, func(t policy.Token) []string { return present(t.Presenter) })
	case "request.auth.claims[groups]":
		return ofToken(q, custom, yes, no, func(t policy.Token) (out []string) {
			groups, _ := t.Claims["groups"].([]any)
			for _, g := range groups {
				out = append(out, g.(string))
			}
			return out
		})
	case "request.auth.claims[deep][in]":
		return ofToken(q, custom, yes, no, func(t policy.Token) []string {
			deep, _ := t.Claims["deep"].(map[string]any)
			in, _ := deep["in"].(string)
			return present(in)
		})
	}
	return oracleWhen(w, q.Connection)
}

// oracleHeader agrees with itself over all readings, or does not know.
func oracleHeader(want, not, lines []string) truth {
	if len(lines) == 0 {
		return anyOf(want, not, nil, oneText)
	}
	out := list(want, not, strings.Join(lines, ","), oneText)
	for _, line := range lines {
		if list(want, not, line, oneText) != out {
			return unknown
		}
	}
	return out
}

var (
	someHosts   = []string{"shop.example", "SHOP.*", "*.example", "shop.example:8080", "*", "", "shop.example:*"}
	someMethods = []string{"GET", "POST", "P*", "*", ""}
	somePaths   = []string{"/a", "/a/*", "*/b", "/a/{*}", "/a/{**}", "/{*}/b", "/{**}/{*}", "/{*}x", "*", ""}
	someTexts   = []string{"jane", "j*", "*e", "*", "iss/jane", "iss/*", ""}
	someKeys    = []string{
		"remote.ip", "connection.sni", "request.headers[x-user]", "request.auth.principal", "request.auth.audiences",
		"request.auth.presenter", "request.auth.claims[groups]", "request.auth.claims[deep][in]", "experimental.envoy.filters.x",
	}
)

// requestRule is a rule that speaks of requests too.
func (c writer) requestRule() *apisec.Rule {
	r := c.rule()
	for _, f := range r.From {
		f.Source.RequestPrincipals, f.Source.NotRequestPrincipals = c.values(someTexts...), c.values(someTexts...)
		f.Source.RemoteIpBlocks, f.Source.NotRemoteIpBlocks = c.values(someBlocks...), c.values(someBlocks...)
	}
	for _, t := range r.To {
		o := t.Operation
		o.Hosts, o.NotHosts = c.values(someHosts...), c.values(someHosts...)
		o.Methods, o.NotMethods = c.values(someMethods...), c.values(someMethods...)
		o.Paths, o.NotPaths = c.values(somePaths...), c.values(somePaths...)
	}
	for _, w := range r.When {
		if w.Key == "request.headers[x]" {
			w.Key = "request.headers[x-user]"
		}
	}
	for range c.IntN(3) {
		w := &apisec.Condition{Key: c.of(someKeys...)}
		texts := someTexts
		if w.Key == "remote.ip" {
			texts = someBlocks
		}
		w.Values, w.NotValues = c.values(texts...), c.values(texts...)
		if c.careful && (len(w.Values)+len(w.NotValues) == 0 || strings.HasPrefix(w.Key, "experimental")) {
			continue
		}
		r.When = append(r.When, w)
	}
	return r
}

func (c chance) request() policy.Request {
	q := policy.Request{Connection: c.connection(), RemoteIP: netip.MustParseAddr(c.of("10.0.0.0", "10.0.0.1", "fd00::1")), SNI: c.of("", "jane", "joe"), Asked: true}
	if c.IntN(5) == 0 {
		return q
	}
	h := &policy.HTTP{
		Method: c.of("GET", "POST", "PUT"), Host: c.of("shop.example", "Shop.Example:8080", "other"),
		Path: c.of("/a", "/a/b", "/a/b/c", "/x"), Header: map[string][]string{},
	}
	for range c.IntN(3) {
		h.Header["X-User"] = append(h.Header["X-User"], c.of("jane", "joe", "jake"))
	}
	if c.IntN(2) == 0 {
		h.Token = &policy.Token{
			Principal: c.of("iss/jane", "iss/joe"), Audiences: []string{c.of("jane", "x"), c.of("joe", "y")}, Presenter: c.of("", "jane"),
			Claims: map[string]any{"groups": []any{c.of("jane", "x"), c.of("joe", "y")}, "deep": map[string]any{"in": c.of("jane", "x")}},
		}
	}
	q.HTTP = h
	return q
}

func TestConversionForWaypointsNeverOpens(t *testing.T) {
	seed := rand.Uint64()
	c := chance{rand.New(rand.NewPCG(seed, 0))}
	exact, doubtful := 0, 0
	world, err := objects.Parse([]byte(guarded))
	if err != nil {
		t.Fatal(err)
	}
	for range 3000 {
		ap := &security.AuthorizationPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "p"}}
		ap.Spec.TargetRefs = []*typev1.PolicyTargetReference{{Kind: "Service", Name: "web"}}
		ap.Spec.Action = apisec.AuthorizationPolicy_Action(c.IntN(4))
		custom := ap.Spec.Action == apisec.AuthorizationPolicy_CUSTOM
		if custom {
			ap.Spec.ActionDetail = &apisec.AuthorizationPolicy_Provider{Provider: &apisec.AuthorizationPolicy_ExtensionProvider{Name: "authz"}}
		}
		author := writer{c, c.IntN(2) == 0}
		for range 1 + c.IntN(2) {
			ap.Spec.Rules = append(ap.Spec.Rules, author.requestRule())
		}
		set := objects.Set{Mesh: oracleMesh}
		set.Mesh.Providers = []objects.Provider{{At: "authz.example", Provider: mesh.Provider{Name: "authz"}}}
		put := func(_ objects.Ref, o any) {
			if _, err := set.Put(o); err != nil {
				t.Fatal(err)
			}
		}
		world.Each(put)
		put(objects.Ref{}, ap)
		m, conditions := translate.Translate(set)
		told := conditions[slices.IndexFunc(conditions, func(c translate.Condition) bool { return c.Type == translate.TypeWaypointAccepted })]
		p := m.Policies[mesh.PolicyKey{Namespace: "shop", Name: "p"}]
		for range 20 {
			q := c.request()
			want := no
			for _, r := range ap.Spec.Rules {
				want = want.or(oracleRequest(r, q, custom))
			}
			matched := policy.Judge(policy.Set{Policies: []*mesh.Policy{p}}, q)[0].Rule >= 0
			allow := ap.Spec.Action == apisec.AuthorizationPolicy_ALLOW
			wrong := ""
			switch {
			case allow && matched && want != yes:
				wrong = "an ALLOW passes what its author does not certainly allow"
			case !allow && !matched && want != no:
				wrong = "another action spares what its author does not certainly spare"
			case told.Status && matched != (want == yes || want == unknown && !allow):
				wrong = "a policy that was taken as written says something else"
			}
			if wrong != "" {
				t.Fatalf("seed %d: %s\nauthor says %d, matched %v\nrequest %+v\nHTTP %+v\npolicy %v\nconverted %+v\n%s", seed, wrong, want, matched, q, q.HTTP, &ap.Spec, p.Rules, told.Message)
			}
		}
		if told.Status {
			exact++
		} else {
			doubtful++
		}
	}
	t.Logf("%d policies taken as written, %d not", exact, doubtful)
	if exact < 400 || doubtful < 400 {
		t.Error("too few of one to prove anything")
	}
}
