package match

import (
	"fmt"
	"math/rand/v2"
	"net/url"
	"path"
	"regexp"
	"strings"
	"testing"

	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/internal/spiffe"
)

// The oracle is a second router, written from the text of the rules without
// looking at the first: it has no index and no order, compares every pair of
// rules that match, and reads paths segment by segment. Many random states
// must agree.

// winner is one alternative that matches, as the oracle sees it.
type winner struct {
	route *mesh.Route
	rule  int
	match int
	m     mesh.RequestMatch
}

func oracle(service mesh.ServiceKey, port uint16, routes []*mesh.Route, q *Request) string {
	speaking := oracleGroup(service, port, routes, q.Client)
	if len(speaking) == 0 || speaking[0].Key.Kind > mesh.RouteHTTP {
		return "default"
	}
	var best *winner
	for _, r := range speaking {
		for i, rule := range r.Rules {
			matches, first := rule.Matches, 0
			if len(matches) == 0 {
				matches, first = []mesh.RequestMatch{{}}, -1
			}
			for j, m := range matches {
				w := &winner{r, i, first + j, m}
				if oracleMatches(m, q) && (best == nil || w.beats(best)) {
					best = w
				}
			}
		}
	}
	if best == nil {
		return "not found"
	}
	return fmt.Sprintf("%s rule %d match %d", best.route.Key, best.rule, best.match)
}

// oracleGroup is the routes that speak for a client, of the strongest kind.
func oracleGroup(service mesh.ServiceKey, port uint16, routes []*mesh.Route, client spiffe.ID) []*mesh.Route {
	var producers, consumers []*mesh.Route
	for _, r := range routes {
		attached := false
		for _, p := range r.Parents {
			attached = attached || p.Service == service && (p.Port == port || p.Port == 0)
		}
		switch {
		case !attached:
		case r.Key.Namespace == service.Namespace:
			producers = append(producers, r)
		case client != (spiffe.ID{}) && r.Key.Namespace == client.Namespace:
			consumers = append(consumers, r)
		}
	}
	group := producers
	if len(consumers) > 0 {
		group = consumers
	}
	for kind := mesh.RouteGRPC; kind <= mesh.RouteTCP; kind++ {
		var same []*mesh.Route
		for _, r := range group {
			if r.Key.Kind == kind {
				same = append(same, r)
			}
		}
		if len(same) > 0 {
			return same
		}
	}
	return nil
}

func (w *winner) beats(v *winner) bool {
	type figure struct{ mine, others int }
	figures := []figure{
		{oraclePathClass(w.m), oraclePathClass(v.m)},
		{oraclePathLength(w.m), oraclePathLength(v.m)},
		{oracleMethod(w.m), oracleMethod(v.m)},
		{oracleDistinct(w.m.Headers, true), oracleDistinct(v.m.Headers, true)},
		{oracleDistinct(w.m.Query, false), oracleDistinct(v.m.Query, false)},
	}
	if w.route.Key.Kind == mesh.RouteGRPC {
		figures = []figure{
			{oracleCall(w.m, true), oracleCall(v.m, true)},
			{oracleCall(w.m, false), oracleCall(v.m, false)},
			{oracleDistinct(w.m.Headers, true), oracleDistinct(v.m.Headers, true)},
		}
	}
	figures = append(figures, figure{int(-w.route.Created), int(-v.route.Created)})
	for _, f := range figures {
		if f.mine != f.others {
			return f.mine > f.others
		}
	}
	if a, b := w.route.Key.String(), v.route.Key.String(); a != b {
		return a < b
	}
	if w.rule != v.rule {
		return w.rule < v.rule
	}
	return w.match < v.match
}

func oraclePathClass(m mesh.RequestMatch) int {
	switch {
	case m.Path.Op == mesh.PathExact:
		return 3
	case m.Path.Op == mesh.PathPrefix && oraclePathLength(m) > 0:
		return 2
	case m.Path.Op == mesh.PathRegex:
		return 1
	}
	return 0
}

func oraclePathLength(m mesh.RequestMatch) int {
	if m.Path.Op != mesh.PathPrefix {
		return 0
	}
	return len(strings.TrimRight(oracleNormal(m.Path.Value), "/"))
}

func oracleMethod(m mesh.RequestMatch) int {
	if m.Method == "" {
		return 0
	}
	return 1
}

func oracleDistinct(matches []mesh.ValueMatch, fold bool) int {
	names := map[string]bool{}
	for _, m := range matches {
		if fold {
			names[strings.ToLower(m.Name)] = true
		} else {
			names[m.Name] = true
		}
	}
	return len(names)
}

func oracleCall(m mesh.RequestMatch, service bool) int {
	name := ""
	if m.Call != nil && service {
		name = m.Call.Service
	} else if m.Call != nil {
		name = m.Call.Method
	}
	switch {
	case name == "":
		return 0
	case m.Call.Regex:
		return 1
	}
	return 2
}

func oracleMatches(m mesh.RequestMatch, q *Request) bool {
	p := oracleNormal(q.Path)
	if m.Method != "" && m.Method != q.Method {
		return false
	}
	switch m.Path.Op {
	case mesh.PathExact:
		if p != oracleNormal(m.Path.Value) {
			return false
		}
	case mesh.PathPrefix:
		want, got := oracleSegments(oracleNormal(m.Path.Value)), oracleSegments(p)
		if len(got) < len(want) {
			return false
		}
		for i := range want {
			if want[i] != got[i] {
				return false
			}
		}
	case mesh.PathRegex:
		if !oracleRegex(m.Path.Value, p) {
			return false
		}
	}
	return oracleCallMatches(m.Call, p) && oracleValues(m.Headers, true, q) && oracleValues(m.Query, false, q)
}

func oracleCallMatches(c *mesh.CallMatch, p string) bool {
	if c == nil || c.Service == "" && c.Method == "" {
		return true
	}
	parts := strings.Split(p, "/")
	if len(parts) != 3 || parts[1] == "" || parts[2] == "" {
		return false
	}
	for i, want := range []string{c.Service, c.Method} {
		if want != "" && (c.Regex && !oracleRegex(want, parts[i+1]) || !c.Regex && want != parts[i+1]) {
			return false
		}
	}
	return true
}

func oracleValues(matches []mesh.ValueMatch, header bool, q *Request) bool {
	done := map[string]bool{}
	for _, m := range matches {
		name := m.Name
		if header {
			name = strings.ToLower(name)
		}
		if done[name] {
			continue
		}
		done[name] = true
		value, there := oracleParameter(q.Query, name)
		if header {
			value, there = oracleHeader(q, name)
		}
		if !there || m.Regex && !oracleRegex(m.Value, value) || !m.Regex && m.Value != value {
			return false
		}
	}
	return true
}

func oracleHeader(q *Request, name string) (string, bool) {
	if name == "host" {
		return q.Host, q.Host != ""
	}
	for key, values := range q.Header {
		if strings.ToLower(key) == name && len(values) > 0 {
			return values[0], true
		}
	}
	return "", false
}

func oracleParameter(query, name string) (string, bool) {
	for _, pair := range strings.Split(query, "&") {
		key, value, _ := strings.Cut(pair, "=")
		key, err := url.QueryUnescape(key)
		value, err2 := url.QueryUnescape(value)
		if pair != "" && err == nil && err2 == nil && key == name {
			return value, true
		}
	}
	return "", false
}

func oracleRegex(expr, text string) bool {
	if oracleExpressions[expr] == nil {
		oracleExpressions[expr] = regexp.MustCompile("^(?:" + expr + ")$")
	}
	return oracleExpressions[expr].MatchString(text)
}

var oracleExpressions = map[string]*regexp.Regexp{}

func oracleSegments(p string) []string {
	return strings.FieldsFunc(p, func(r rune) bool { return r == '/' })
}

var (
	oracleEscape     = regexp.MustCompile("%[0-9a-fA-F]{2}")
	oracleUnreserved = regexp.MustCompile(`^[A-Za-z0-9._~-]$`)
	oracleDirectory  = regexp.MustCompile(`(^|/)(\.|\.\.)?$`)
	oracleForms      = map[string]string{}
)

// oracleNormal rewrites a path step by step.
func oracleNormal(p string) string {
	if oracleForms[p] == "" {
		oracleForms[p] = oracleRewritten(p)
	}
	return oracleForms[p]
}

func oracleRewritten(p string) string {
	p = oracleEscape.ReplaceAllStringFunc(p, func(e string) string {
		plain, _ := url.PathUnescape(e)
		if oracleUnreserved.MatchString(plain) {
			return plain
		}
		return strings.ToUpper(e)
	})
	p = strings.ReplaceAll(p, `\`, "/")
	directory := oracleDirectory.MatchString(p)
	if p = path.Clean("/" + p); directory && p != "/" {
		p += "/"
	}
	return p
}

// picker draws random routes and requests of few words, so that they meet
// often.
type picker struct{ *rand.Rand }

func (p picker) one(words ...string) string { return words[p.IntN(len(words))] }

func (p picker) often(n int) bool { return p.IntN(n) != 0 }

func (p picker) path() string {
	text := ""
	for range p.IntN(4) {
		text += "/" + p.one("a", "b", "v2", "a%2Fb", "%61", "A", "a.b", "..", ".", "", "pkg.Svc")
	}
	return text + p.one("", "", "/")
}

func (p picker) requestPath() string {
	if p.IntN(30) == 0 {
		return `/a\b`
	}
	if text := p.path(); text != "" {
		return text
	}
	return "/"
}

func (p picker) pathMatch() mesh.PathMatch {
	switch p.IntN(6) {
	case 0:
		return mesh.PathMatch{}
	case 1, 2:
		return mesh.PathMatch{Op: mesh.PathExact, Value: p.requestPath()}
	case 3:
		return mesh.PathMatch{Op: mesh.PathRegex, Value: p.one("/a.*", "/a|/b", ".*", "/[ab]/v2", "/(a|b)", "a", "(?i)/A", "/a/b.*", "/a/(b|v2)/.*", "/a/b/?", "(?i)/a/B", "/a/b|/a/b/a")}
	}
	return mesh.PathMatch{Op: mesh.PathPrefix, Value: p.requestPath()}
}

func (p picker) values(names ...string) []mesh.ValueMatch {
	var out []mesh.ValueMatch
	for range max(0, p.IntN(6)-2) {
		m := mesh.ValueMatch{Name: p.one(names...), Value: p.one("1", "2", "3", "x y")}
		if p.IntN(5) == 0 {
			m.Regex, m.Value = true, p.one("1|2", ".*", "[0-9]", "")
		}
		out = append(out, m)
	}
	return out
}

func (p picker) match(kind mesh.RouteKind) mesh.RequestMatch {
	m := mesh.RequestMatch{Headers: p.values("X-Env", "x-env", "User", "host", "Version")}
	if kind == mesh.RouteHTTP {
		m.Path, m.Query = p.pathMatch(), p.values("q", "animal", "Q")
		m.Method = p.one("", "", "GET", "POST")
		return m
	}
	if p.often(5) {
		m.Call = &mesh.CallMatch{Service: p.one("", "a", "b", "pkg.Svc"), Method: p.one("", "a", "b", "v2"), Regex: p.IntN(4) == 0}
	}
	return m
}

func (p picker) route(i, most int, kinds []mesh.RouteKind) *mesh.Route {
	r := &mesh.Route{
		Key:     mesh.RouteKey{Kind: kinds[p.IntN(len(kinds))], Namespace: p.one("shop", "shop", "shop", "team"), Name: fmt.Sprintf("r%d", i)},
		Created: int64(p.IntN(3)),
		Parents: []mesh.RouteParent{{Service: oracleService, Port: uint16(p.IntN(3)) * 80}},
	}
	if p.IntN(10) == 0 {
		r.Parents[0].Service.Hostname = "another"
	}
	for range 1 + p.IntN(most) {
		rule := mesh.RouteRule{Index: 2 * len(r.Rules)} // as if every second one were left out
		for range p.IntN(4) {
			rule.Matches = append(rule.Matches, p.match(r.Key.Kind))
		}
		r.Rules = append(r.Rules, rule)
	}
	return r
}

func (p picker) routes() []*mesh.Route {
	kinds := []mesh.RouteKind{mesh.RouteHTTP}
	switch p.IntN(4) {
	case 0:
		kinds = []mesh.RouteKind{mesh.RouteGRPC}
	case 1:
		kinds = []mesh.RouteKind{mesh.RouteGRPC, mesh.RouteHTTP, mesh.RouteTCP, mesh.RouteTLS}
	}
	most := 3
	if p.IntN(5) == 0 {
		most = 40 // enough to spread buckets
	}
	var out []*mesh.Route
	for i := range p.IntN(6) {
		out = append(out, p.route(i, most, kinds))
	}
	return out
}

func (p picker) request() *Request {
	q := &Request{Method: p.one("GET", "POST", "PUT"), Path: p.requestPath(), Host: p.one("1", "2", "echo"), Header: map[string][]string{}}
	if p.often(4) {
		q.Client = clientOf(p.one("shop", "team", "other"))
	}
	for range p.IntN(4) {
		name := p.one("X-Env", "User", "Version")
		q.Header[name] = append(q.Header[name], p.one("1", "2", "3", "x y"))
	}
	var pairs []string
	for range p.IntN(4) {
		pairs = append(pairs, p.one("q", "animal", "Q", "%71", "%zz")+p.one("=1", "=2", "=3", "=x+y", "=%31", "", "=%"))
	}
	q.Query = strings.Join(pairs, "&")
	return q
}

var oracleService = mesh.ServiceKey{Namespace: "shop", Hostname: "reviews.shop.svc.cluster.local"}

// agree compares the router with the oracle for requests, and the explanation
// with both.
func agree(t *testing.T, p picker, requests int) (outcomes map[Outcome]int) {
	routes := p.routes()
	compiled, err := Compile(oracleService, 80, routes)
	if err != nil {
		t.Fatal(err)
	}
	outcomes = map[Outcome]int{}
	for range requests {
		q := p.request()
		d := compiled.Find(q)
		got := d.Outcome.String()
		if d.Outcome == Matched {
			got = fmt.Sprintf("%s rule %d match %d", d.Route.Key, d.Rule, d.Match)
		}
		if want := oracle(oracleService, 80, routes, q); got != want {
			t.Fatalf("%+v: %s, want %s", q, got, want)
		}
		if last := lastOf(compiled.Explain(q)); !tells(last, d) {
			t.Fatalf("%+v: %v is explained by %q", q, got, last)
		}
		outcomes[d.Outcome]++
	}
	return outcomes
}

func lastOf(steps []Step) Step { return steps[len(steps)-1] }

// tells reports whether an explanation's end is the decision.
func tells(last Step, d Decision) bool {
	switch d.Outcome {
	case Matched:
		return last.Taken() && last.Route == d.Route.Key && last.Rule == d.Spec().Index && last.Match == d.Match
	case NotFound:
		return last.Reason == ReasonNotFound
	}
	return last.Reason == ReasonNoRoutes || last.Reason == ReasonNotHTTP
}

func TestTheOracleAgrees(t *testing.T) {
	total := map[Outcome]int{}
	for seed := range uint64(3_000) {
		for outcome, n := range agree(t, picker{rand.New(rand.NewPCG(seed, 1))}, 40) {
			total[outcome] += n
		}
	}
	t.Logf("120,000 pairs: %v", total)
	for _, outcome := range []Outcome{Default, Matched, NotFound} {
		if total[outcome] < 15_000 {
			t.Errorf("only %d pairs are %v: the comparison looks away", total[outcome], outcome)
		}
	}
}

// FuzzOracle lets the fuzzer choose the random numbers.
func FuzzOracle(f *testing.F) {
	f.Add(uint64(1), uint64(2))
	f.Fuzz(func(t *testing.T, a, b uint64) {
		agree(t, picker{rand.New(rand.NewPCG(a, b))}, 20)
	})
}
