package match

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/ambit-mesh/ambit/internal/mesh"
)

// candidate is one alternative of one rule, compiled.
type candidate struct {
	route *mesh.Route
	rule  int
	match int // -1 of a rule that needs none
	// rank is its precedence, the strongest part first, larger wins.
	rank [5]int
	// age orders its route among those of its group, the oldest first.
	age int
	// order is its place among all of its group.
	order int

	path    mesh.PathMatch // in normal form
	pathRE  *regexp.Regexp
	literal string // what every path begins with that pathRE matches
	call    *callTest
	method  string
	headers []valueTest
	query   []valueTest
	sni     string // of a TLSRoute: empty is any
}

// compare puts the candidate that wins first.
func (c *candidate) compare(d *candidate) int {
	return cmp.Or(-slices.Compare(c.rank[:], d.rank[:]), cmp.Compare(c.age, d.age), cmp.Compare(c.rule, d.rule), cmp.Compare(c.match, d.match))
}

// candidatesOf compiles all of a route.
func candidatesOf(r *mesh.Route, age int) ([]*candidate, error) {
	var out []*candidate
	for i := range r.Rules {
		alternatives, err := alternativesOf(r, i)
		if err != nil {
			return nil, fmt.Errorf("rule %d: %w", i, err)
		}
		for _, c := range alternatives {
			c.route, c.rule, c.age = r, i, age
			out = append(out, c)
		}
	}
	return out, nil
}

func alternativesOf(r *mesh.Route, rule int) ([]*candidate, error) {
	spec := &r.Rules[rule]
	switch r.Key.Kind {
	case mesh.RouteTCP:
		return []*candidate{{match: -1}}, nil
	case mesh.RouteTLS:
		return serverNames(spec.SNI)
	case mesh.RouteGRPC, mesh.RouteHTTP:
	}
	if err := checkRule(spec); err != nil {
		return nil, err
	}
	if len(spec.Matches) == 0 {
		c, err := newCandidate(r.Key.Kind, &mesh.RequestMatch{}, -1)
		return []*candidate{c}, err
	}
	var out []*candidate
	for i := range spec.Matches {
		c, err := newCandidate(r.Key.Kind, &spec.Matches[i], i)
		if err != nil {
			return nil, fmt.Errorf("match %d: %w", i, err)
		}
		out = append(out, c)
	}
	return out, nil
}

func newCandidate(kind mesh.RouteKind, m *mesh.RequestMatch, index int) (*candidate, error) {
	c := &candidate{match: index, method: m.Method}
	var err error
	if c.headers, err = valueTests(m.Headers, true); err != nil {
		return nil, err
	}
	if c.query, err = valueTests(m.Query, false); err != nil {
		return nil, err
	}
	if kind == mesh.RouteGRPC {
		return c, c.compileCall(cmp.Or(m.Call, &mesh.CallMatch{}))
	}
	if err := c.compilePath(m.Path); err != nil {
		return nil, err
	}
	c.rank[2], c.rank[3], c.rank[4] = rankIf(m.Method != "", 1), len(c.headers), len(c.query)
	return c, nil
}

// The ranks of paths. An expression comes after every prefix that says
// something, and before "/", which the API server writes where an author wrote
// no path at all: it would hide every expression.
const (
	rankAny = iota
	rankRegex
	rankPrefix
	rankExact
)

func (c *candidate) compilePath(m mesh.PathMatch) error {
	c.path = m
	switch m.Op {
	case mesh.PathAny:
		return nil
	case mesh.PathRegex:
		c.rank[0] = rankRegex
		var err error
		c.pathRE, c.literal, err = wholly(m.Value)
		return err
	case mesh.PathExact, mesh.PathPrefix:
	}
	path, err := Normalize(m.Value)
	switch {
	case err != nil:
		return fmt.Errorf("path %q: %w", m.Value, err)
	case m.Op == mesh.PathExact:
		c.path.Value, c.rank[0] = path, rankExact
		return nil
	}
	c.path.Value = strings.TrimSuffix(path, "/")
	c.rank[0], c.rank[1] = rankIf(c.path.Value != "", rankPrefix), len(c.path.Value)
	return nil
}

func rankIf(yes bool, rank int) int {
	if yes {
		return rank
	}
	return 0
}

// wholly compiles an expression that must match all of a text, and gives what
// such a text begins with.
func wholly(expr string) (re *regexp.Regexp, literal string, err error) {
	// By itself first: "a)|(b" is no expression, but would be one in brackets.
	part, err := regexp.Compile(expr)
	if err != nil {
		return nil, "", fmt.Errorf("expression %q: %w", expr, err)
	}
	literal, _ = part.LiteralPrefix()
	re, err = regexp.Compile(`\A(?:` + expr + `)\z`)
	return re, literal, err
}

// prefix is what a path edit of this candidate replaces.
func (c *candidate) prefix() string {
	if c.path.Op == mesh.PathExact || c.path.Op == mesh.PathPrefix {
		return c.path.Value
	}
	return ""
}

func (c *candidate) decision() Decision {
	return Decision{Outcome: Matched, Route: c.route, Rule: c.rule, Match: c.match, Prefix: c.prefix()}
}
