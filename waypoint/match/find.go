package match

import (
	"strings"

	"github.com/ambit-mesh/ambit/internal/mesh"
)

// requests is the index of a group's candidates for requests. Its places are
// searched in the order of exact, prefixes from the longest, all that is loose,
// and the prefixes' root, which is the order of their ranks.
type requests struct {
	// exact is by path: exact paths, and gRPC calls with service and method.
	exact map[string]*bucket
	// prefixes hold by whole segments: prefixes, and gRPC calls with a service.
	// What holds for every path is at the root.
	prefixes node
}

// node is one segment of prefixes.
type node struct {
	parent   *node
	children map[string]*node
	bucket   bucket
	// loose are expressions that begin with the node's segments, and at the root
	// gRPC calls without a service's name.
	loose bucket
}

// index takes candidates in order of precedence.
func (r *requests) index(candidates []*candidate) {
	r.exact = map[string]*bucket{}
	for _, c := range candidates {
		b := r.place(c)
		b.list = append(b.list, c)
	}
	for _, b := range r.exact {
		b.spread()
	}
	r.prefixes.spread()
}

func (r *requests) place(c *candidate) *bucket {
	switch t := c.call; {
	case t != nil && t.service != "" && t.method != "" && !t.regex():
		return r.at("/" + t.service + "/" + t.method)
	case t != nil && t.service != "" && !t.regex():
		return &r.prefixes.grow("/" + t.service).bucket
	case t != nil:
		return &r.prefixes.loose
	case c.path.Op == mesh.PathRegex:
		whole := max(strings.LastIndexByte(c.literal, '/'), 0)
		return &r.prefixes.grow(c.literal[:whole]).loose
	case c.path.Op == mesh.PathExact:
		return r.at(c.path.Value)
	}
	return &r.prefixes.grow(c.path.Value).bucket
}

func (r *requests) at(path string) *bucket {
	b := r.exact[path]
	if b == nil {
		b = &bucket{}
		r.exact[path] = b
	}
	return b
}

// grow makes the node of a prefix, which has no last slash.
func (n *node) grow(prefix string) *node {
	for rest := prefix; rest != ""; {
		var segment string
		segment, rest = nextSegment(rest)
		child := n.children[segment]
		if child == nil {
			if n.children == nil {
				n.children = map[string]*node{}
			}
			child = &node{parent: n}
			n.children[segment] = child
		}
		n = child
	}
	return n
}

func (n *node) spread() {
	n.bucket.spread()
	n.loose.spread()
	for _, child := range n.children {
		child.spread()
	}
}

// deepest is the node of the longest prefix of a path.
func (n *node) deepest(path string) *node {
	for rest := path; rest != "" && rest[0] == '/'; {
		var segment string
		segment, rest = nextSegment(rest)
		child := n.children[segment]
		if child == nil {
			break
		}
		n = child
	}
	return n
}

// nextSegment cuts "/a/b" into "a" and "/b".
func nextSegment(path string) (segment, rest string) {
	if i := strings.IndexByte(path[1:], '/'); i >= 0 {
		return path[1 : i+1], path[i+1:]
	}
	return path[1:], ""
}

// Find gives the rule that takes a request.
func (r *Routes) Find(q *Request) Decision {
	g := r.group(q.Client)
	if g == nil || g.kind > mesh.RouteHTTP {
		return Decision{Rule: -1, Match: -1}
	}
	if path, err := Normalize(q.Path); err == nil {
		if c := g.requests.find(q, path); c != nil {
			return c.decision()
		}
	}
	return Decision{Outcome: NotFound, Rule: -1, Match: -1}
}

func (r *requests) find(q *Request, path string) *candidate {
	if c := r.exact[path].first(q, path); c != nil {
		return c
	}
	deepest := r.prefixes.deepest(path)
	for n := deepest; n.parent != nil; n = n.parent {
		if c := n.bucket.first(q, path); c != nil {
			return c
		}
	}
	s := search{q: q, path: path}
	for n := deepest; n != nil; n = n.parent {
		s.in(&n.loose)
	}
	if s.best != nil {
		return s.best
	}
	return r.prefixes.bucket.first(q, path)
}

// matches asks what the index has not answered.
func (c *candidate) matches(q *Request, path string) bool {
	if !c.methodMatches(q) {
		return false
	}
	for i := range c.headers {
		if !c.headers[i].matches(q.header(c.headers[i].name)) {
			return false
		}
	}
	for i := range c.query {
		if !c.query[i].matches(q.parameter(c.query[i].name)) {
			return false
		}
	}
	if c.call != nil {
		return c.call.matches(path)
	}
	return c.pathRE == nil || strings.HasPrefix(path, c.literal) && c.pathRE.MatchString(path)
}

// methodMatches takes a browser's preflight for the request that it asks about
// where a CORS filter will answer it.
func (c *candidate) methodMatches(q *Request) bool {
	if c.method == "" || c.method == q.Method {
		return true
	}
	asked, ok := q.preflight()
	return ok && asked == c.method && c.route.Rules[c.rule].Filters.CORS != nil
}
