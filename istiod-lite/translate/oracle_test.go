package translate_test

import (
	"math/rand/v2"
	"net/netip"
	"strconv"
	"strings"
	"testing"

	apisec "istio.io/api/security/v1beta1"
	security "istio.io/client-go/pkg/apis/security/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/internal/policy"
	"github.com/ambit-mesh/ambit/internal/spiffe"
	"github.com/ambit-mesh/ambit/istiod-lite/objects"
	"github.com/ambit-mesh/ambit/istiod-lite/translate"
)

// The oracle evaluates an AuthorizationPolicy as its author wrote it, in three
// values: what L4 cannot see, and what nobody can read, is unknown. Whatever
// the unknown may turn out to be, the converted policy must never open: an
// ALLOW passes only what is certainly allowed, a DENY stops all that is not
// certainly spared. Where nothing is unknown, both must say the same.

type truth int

const (
	no truth = iota - 1
	unknown
	yes
)

func (c truth) and(d truth) truth { return min(c, d) }
func (c truth) or(d truth) truth  { return max(c, d) }
func (c truth) not() truth        { return -c }

func known(b bool) truth {
	if b {
		return yes
	}
	return no
}

// ours are the trust domains that mean the mesh's.
var oracleMesh = objects.MeshConfig{TrustDomain: "td", TrustDomainAliases: []string{"old"}}.WithDefaults()

func home(domain string) string {
	if domain == "old" || domain == "cluster.local" {
		return "td"
	}
	return domain
}

func oneText(pattern, text string) truth {
	switch {
	case pattern == "":
		return unknown
	case pattern == "*":
		return known(text != "")
	case pattern[0] == '*':
		return known(strings.HasSuffix(text, pattern[1:]))
	case strings.HasSuffix(pattern, "*"):
		return known(strings.HasPrefix(text, strings.TrimSuffix(pattern, "*")))
	}
	return known(pattern == text)
}

func onePrincipal(pattern string, id spiffe.ID) truth {
	pattern = strings.TrimPrefix(pattern, "spiffe://")
	switch {
	case pattern == "":
		return unknown
	case id.IsZero():
		return no
	}
	if domain, rest, ok := strings.Cut(pattern, "/"); ok && domain != "" && pattern[0] != '*' {
		id.TrustDomain = home(id.TrustDomain)
		return oneText(home(domain)+"/"+rest, id.Principal())
	}
	out := no
	for _, d := range allNames(id.TrustDomain) { // a wildcard matches under any name
		id.TrustDomain = d
		out = out.or(oneText(pattern, id.Principal()))
	}
	return out
}

func allNames(domain string) []string {
	if domain == "td" || domain == "old" {
		return []string{"td", "old"}
	}
	return []string{domain}
}

func oneDomain(pattern string, id spiffe.ID) truth {
	switch {
	case pattern == "" || strings.Contains(pattern, "/") || pattern[0] == '*' && pattern != "*":
		return unknown
	case id.IsZero():
		return no
	case strings.HasSuffix(pattern, "*"):
		out := no
		for _, d := range allNames(id.TrustDomain) {
			out = out.or(oneText(pattern, d))
		}
		return out
	}
	return known(home(pattern) == home(id.TrustDomain))
}

func oneAccount(pattern string, id spiffe.ID) truth {
	if !strings.Contains(pattern, "/") {
		pattern = "shop/" + pattern
	}
	p := strings.Split(pattern, "/")
	if len(p) != 2 || p[0] == "" || p[1] == "" || strings.Contains(pattern, "*") {
		return unknown
	}
	return known(!id.IsZero() && p[0] == id.Namespace && p[1] == id.ServiceAccount)
}

func oneBlock(pattern string, a netip.Addr) truth {
	if p, err := netip.ParsePrefix(pattern); err == nil {
		return known(p.Contains(a))
	}
	if b, err := netip.ParseAddr(pattern); err == nil {
		return known(a == b)
	}
	return unknown
}

func onePort(pattern string, p uint16) truth {
	n, err := strconv.ParseUint(pattern, 10, 16)
	if err != nil || n == 0 {
		return unknown
	}
	return known(uint16(n) == p)
}

// list is an attribute: any of want, none of not.
func list[T any](want, not []string, v T, one func(string, T) truth) truth {
	any := func(patterns []string) truth {
		out := no
		for _, p := range patterns {
			if one(p, v) == unknown {
				return unknown // one that cannot be read spoils its list
			}
			out = out.or(one(p, v))
		}
		return out
	}
	out := yes
	if len(want) > 0 {
		out = any(want)
	}
	if len(not) > 0 {
		out = out.and(any(not).not())
	}
	return out
}

func hidden(lists ...[]string) truth {
	for _, l := range lists {
		if len(l) > 0 {
			return unknown
		}
	}
	return yes
}

func oracleRule(r *apisec.Rule, c policy.Connection) truth {
	from, to, out := no, no, yes
	for _, f := range r.From {
		s := f.Source
		from = from.or(oracleSource(s, c).and(hidden(s.RequestPrincipals, s.RemoteIpBlocks)))
	}
	for _, t := range r.To {
		o := t.Operation
		to = to.or(list(o.Ports, o.NotPorts, c.Destination.Port(), onePort).and(hidden(o.Methods, o.NotPaths, o.Hosts)))
	}
	if len(r.From) > 0 {
		out = from
	}
	if len(r.To) > 0 {
		out = out.and(to)
	}
	for _, w := range r.When {
		out = out.and(oracleWhen(w, c))
	}
	return out
}

func oracleSource(s *apisec.Source, c policy.Connection) truth {
	return list(s.Principals, s.NotPrincipals, c.Source, onePrincipal).
		and(list(s.Namespaces, s.NotNamespaces, c.Source.Namespace, oneText)).
		and(list(s.ServiceAccounts, s.NotServiceAccounts, c.Source, oneAccount)).
		and(list(s.TrustDomains, s.NotTrustDomains, c.Source, oneDomain)).
		and(list(s.IpBlocks, s.NotIpBlocks, c.SourceIP, oneBlock))
}

func oracleWhen(w *apisec.Condition, c policy.Connection) truth {
	switch w.Key {
	case "source.principal":
		return list(w.Values, w.NotValues, c.Source, onePrincipal)
	case "source.namespace":
		return list(w.Values, w.NotValues, c.Source.Namespace, oneText)
	case "source.serviceAccount":
		return list(w.Values, w.NotValues, c.Source, oneAccount)
	case "source.trustDomain":
		return list(w.Values, w.NotValues, c.Source, oneDomain)
	case "source.ip":
		return list(w.Values, w.NotValues, c.SourceIP, oneBlock)
	case "destination.ip":
		return list(w.Values, w.NotValues, c.Destination.Addr(), oneBlock)
	case "destination.port":
		return list(w.Values, w.NotValues, c.Destination.Port(), onePort)
	}
	return unknown
}

// unreadable are the values below that nobody can read at L4.
var unreadable = map[string]bool{"": true, "*r": true, "a/b": true, "a/*": true, "a/b/c": true, "nonsense": true, "10.0.0.0/99": true, "http": true, "0": true, "70000": true, "/{**}/{*}": true, "/{*}x": true}

// values draws a list that is mostly empty.
func (w writer) values(texts ...string) []string {
	var out []string
	for w.IntN(4) == 0 {
		if text := w.of(texts...); !w.careful || !unreadable[text] {
			out = append(out, text)
		}
	}
	return out
}

// writer is an author of rules. A careful one writes only what L4 can see.
type writer struct {
	chance
	careful bool
}

var (
	somePrincipals = []string{"td/ns/a/sa/x", "old/ns/a/sa/x", "cluster.local/ns/b/*", "far/ns/a/sa/x", "*/sa/x", "*", "td*", "ol*", "*ld/ns/a/sa/x", "*d/ns/b/sa/y", "spiffe://td/ns/b/sa/y", ""}
	someNamespaces = []string{"a", "b", "a*", "*b", "*", ""}
	someDomains    = []string{"td", "old", "far", "f*", "o*", "*", "*r", "a/b", "cluster.local"}
	someAccounts   = []string{"x", "a/x", "b/y", "a/*", "a/b/c", ""}
	someBlocks     = []string{"10.0.0.0/31", "10.0.0.1", "0.0.0.0/0", "fd00::/8", "nonsense", "10.0.0.0/99"}
	somePorts      = []string{"80", "81", "http", "0", "70000"}
)

func (c writer) rule() *apisec.Rule {
	r := &apisec.Rule{}
	for range c.IntN(3) {
		r.From = append(r.From, &apisec.Rule_From{Source: &apisec.Source{
			Principals: c.values(somePrincipals...), NotPrincipals: c.values(somePrincipals...),
			Namespaces: c.values(someNamespaces...), NotNamespaces: c.values(someNamespaces...),
			ServiceAccounts: c.values(someAccounts...), NotServiceAccounts: c.values(someAccounts...),
			TrustDomains: c.values(someDomains...), NotTrustDomains: c.values(someDomains...),
			IpBlocks: c.values(someBlocks...), NotIpBlocks: c.values(someBlocks...),
		}})
		s := r.From[len(r.From)-1].Source
		if c.careful {
			s.NotNamespaces = append(s.NotNamespaces, "ab")
		} else if c.IntN(6) == 0 {
			s.RequestPrincipals = []string{"*"}
		}
	}
	for range c.IntN(3) {
		o := &apisec.Operation{Ports: c.values(somePorts...), NotPorts: c.values(somePorts...)}
		if c.careful {
			o.NotPorts = append(o.NotPorts, "82")
		} else if c.IntN(5) == 0 {
			o.Methods = []string{"GET"}
		}
		r.To = append(r.To, &apisec.Rule_To{Operation: o})
	}
	for range c.IntN(2) {
		w := &apisec.Condition{Key: c.of("source.principal", "source.namespace", "source.serviceAccount", "source.trustDomain", "source.ip", "destination.ip", "destination.port", "request.headers[x]")}
		texts := map[string][]string{"source.principal": somePrincipals, "source.namespace": someNamespaces, "source.serviceAccount": someAccounts, "source.trustDomain": someDomains, "destination.port": somePorts}[w.Key]
		if texts == nil {
			texts = someBlocks
		}
		w.Values, w.NotValues = c.values(texts...), c.values(texts...)
		if c.careful && (len(w.Values)+len(w.NotValues) == 0 || w.Key == "request.headers[x]") {
			continue
		}
		r.When = append(r.When, w)
	}
	return r
}

func (c chance) connection() policy.Connection {
	out := policy.Connection{
		SourceIP:    netip.MustParseAddr(c.of("10.0.0.0", "10.0.0.1", "10.0.0.2", "fd00::1")),
		Destination: netip.AddrPortFrom(netip.MustParseAddr(c.of("10.0.0.1", "fd00::2")), uint16(80+c.IntN(3))),
	}
	if c.IntN(4) > 0 {
		out.Source = spiffe.ID{TrustDomain: c.of("td", "old", "far"), Namespace: c.of("a", "b", "ab"), ServiceAccount: c.of("x", "y")}
	}
	return out
}

func TestConversionNeverOpens(t *testing.T) {
	seed := rand.Uint64()
	c := chance{rand.New(rand.NewPCG(seed, 0))}
	exact, doubtful := 0, 0
	for range 1500 {
		ap := &security.AuthorizationPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "p"}}
		deny := c.IntN(2) == 0
		if deny {
			ap.Spec.Action = apisec.AuthorizationPolicy_DENY
		}
		author := writer{c, c.IntN(2) == 0}
		for range 1 + c.IntN(2) {
			ap.Spec.Rules = append(ap.Spec.Rules, author.rule())
		}
		set := objects.Set{Mesh: oracleMesh}
		if _, err := set.Put(ap); err != nil {
			t.Fatal(err)
		}
		m, conditions := translate.Translate(set)
		p := m.Policies[mesh.PolicyKey{Namespace: "shop", Name: "p"}]
		for range 20 {
			conn := c.connection()
			want := no
			for _, r := range ap.Spec.Rules {
				want = want.or(oracleRule(r, conn))
			}
			passes := policy.Evaluate(policy.Set{Policies: []*mesh.Policy{p}}, conn).Allow
			matched := passes != deny
			wrong := ""
			switch {
			case !deny && matched && want != yes:
				wrong = "an ALLOW passes what its author does not certainly allow"
			case deny && !matched && want != no:
				wrong = "a DENY passes what its author does not certainly spare"
			case conditions[0].Status && want == unknown:
				wrong = "the owner is not told of what cannot be evaluated"
			case conditions[0].Status && matched != (want == yes):
				wrong = "a policy that was taken as written says something else"
			}
			if wrong != "" {
				t.Fatalf("seed %d: %s\nauthor says %d, matched %v\nconnection %+v\npolicy %v\nconverted %+v\n%s", seed, wrong, want, matched, conn, &ap.Spec, p.Rules, conditions[0].Message)
			}
		}
		if conditions[0].Status {
			exact++
		} else {
			doubtful++
		}
	}
	if exact < 400 || doubtful < 400 {
		t.Errorf("%d policies taken as written and %d not: too few of one to prove anything", exact, doubtful)
	}
}
