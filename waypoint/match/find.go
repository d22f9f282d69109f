package match

import (
	"strings"

	"github.com/ambit-mesh/ambit/internal/mesh"
)

// requests is the index of a group's candidates for requests. The four places
// are searched in this order, which is that of their ranks.
type requests struct {
	// exact is by path: exact paths, and gRPC calls with service and method.
	exact map[string]bucket
	// prefixes hold by whole segments: prefixes, and gRPC calls with a service.
	prefixes node
	// loose are expressions, and gRPC calls without a service's name.
	loose bucket
	// The candidates for every path are prefixes' root.
}

// bucket is candidates of which the first that matches wins.
type bucket []*candidate

// node is one segment of prefixes.
type node struct {
	parent   *node
	children map[string]*node
	bucket   bucket
}

// add takes candidates in order of precedence.
func (r *requests) add(c *candidate) {
	if r.exact == nil {
		r.exact = map[string]bucket{}
	}
	t := c.call
	switch {
	case t != nil && t.service != "" && t.method != "" && t.serviceRE == nil && t.methodRE == nil:
		path := "/" + t.service + "/" + t.method
		r.exact[path] = append(r.exact[path], c)
	case t != nil && t.service != "" && t.serviceRE == nil:
		n := r.prefixes.grow("/" + t.service)
		n.bucket = append(n.bucket, c)
	case t != nil || c.pathRE != nil:
		r.loose = append(r.loose, c)
	case c.path.Op == mesh.PathExact:
		r.exact[c.path.Value] = append(r.exact[c.path.Value], c)
	default:
		n := r.prefixes.grow(c.path.Value)
		n.bucket = append(n.bucket, c)
	}
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
	n := r.prefixes.deepest(path)
	for ; n.parent != nil; n = n.parent {
		if c := n.bucket.first(q, path); c != nil {
			return c
		}
	}
	if c := r.loose.first(q, path); c != nil {
		return c
	}
	return n.bucket.first(q, path)
}

func (b bucket) first(q *Request, path string) *candidate {
	for _, c := range b {
		if c.matches(q, path) {
			return c
		}
	}
	return nil
}

// matches asks what the index has not answered.
func (c *candidate) matches(q *Request, path string) bool {
	if c.method != "" && c.method != q.Method {
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
	return c.pathRE == nil || c.pathRE.MatchString(path)
}
