package match

import (
	"cmp"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ambit-mesh/ambit/internal/mesh"
)

// defaultMaxAge is how long a browser may remember a preflight's answer where
// the author says nothing (GEP-1767).
const defaultMaxAge = 5 * time.Second

// Sharing is what a CORS filter makes of one request. The zero value changes
// nothing.
type Sharing struct {
	// Status is not 0 where the request is a preflight and answered at once:
	// 204, or 403 for an origin that is not allowed.
	Status int
	// filter is nil without a filter.
	filter *mesh.CORS
	set    []mesh.Header
	// expose lists all headers of the answer in "*"'s place, which browsers do
	// not understand beside credentials.
	expose bool
	vary   bool
}

// Share asks the rule's CORS filter.
func (d Decision) Share(q *Request) Sharing {
	rule := d.Spec()
	if rule == nil || rule.Filters.CORS == nil {
		return Sharing{}
	}
	c := rule.Filters.CORS
	s := Sharing{filter: c}
	origin, cross := q.header("Origin")
	method, preflight := q.preflight()
	allowed := cross && slices.ContainsFunc(c.AllowOrigins, func(o string) bool { return originMatches(o, origin) })
	// Caches must not give one origin's answer to another.
	s.vary = c.AllowCredentials || !slices.Contains(c.AllowOrigins, "*")
	switch {
	case preflight && !allowed:
		s.Status = 403
		return s
	case !allowed:
		return s
	case preflight:
		s.Status = 204
	}
	if !s.vary {
		origin = "*"
	}
	s.add("Access-Control-Allow-Origin", origin)
	if c.AllowCredentials {
		s.add("Access-Control-Allow-Credentials", "true")
	}
	if preflight {
		s.preflight(q, method)
	}
	s.exposed()
	return s
}

// preflight reports whether a browser asks before a request, and for which
// method.
func (q *Request) preflight() (method string, ok bool) {
	if q.Method != "OPTIONS" || len(q.Header["Origin"]) == 0 {
		return "", false
	}
	return q.header("Access-Control-Request-Method")
}

func (s *Sharing) add(name, value string) {
	if value != "" {
		s.set = append(s.set, mesh.Header{Name: name, Value: value})
	}
}

// preflight says what may be sent. Beside credentials "*" means nothing, so
// what was asked for is repeated.
func (s *Sharing) preflight(q *Request, method string) {
	headers, asked := q.header("Access-Control-Request-Headers")
	s.add("Access-Control-Allow-Methods", s.list(s.filter.AllowMethods, method))
	if asked {
		s.add("Access-Control-Allow-Headers", s.list(s.filter.AllowHeaders, headers))
	}
	age := cmp.Or(s.filter.MaxAge, defaultMaxAge)
	s.add("Access-Control-Max-Age", strconv.FormatInt(int64(age/time.Second), 10))
}

func (s *Sharing) list(values []string, asked string) string {
	if slices.Contains(values, "*") && s.filter.AllowCredentials {
		return asked
	}
	return strings.Join(values, ", ")
}

func (s *Sharing) exposed() {
	values := s.filter.ExposeHeaders
	if s.expose = slices.Contains(values, "*") && s.filter.AllowCredentials; !s.expose {
		s.add("Access-Control-Expose-Headers", strings.Join(values, ", "))
	}
}

// Apply puts the decision on an answer. With a filter, it alone speaks of
// sharing: what the backend said of it is dropped.
func (s Sharing) Apply(header map[string][]string) {
	if s.filter == nil {
		return
	}
	maps.DeleteFunc(header, func(name string, _ []string) bool { return strings.HasPrefix(name, "Access-Control-") })
	if s.expose && s.Status == 0 {
		if names := slices.Sorted(maps.Keys(header)); len(names) > 0 {
			header["Access-Control-Expose-Headers"] = []string{strings.Join(names, ", ")}
		}
	}
	for _, h := range s.set {
		header[h.Name] = []string{h.Value}
	}
	if s.vary {
		header["Vary"] = append(slices.Clip(header["Vary"]), "Origin")
	}
}

// originMatches compares an origin with an allowed one, in which the host's
// first label may be "*" for any number of labels. A missing port is the
// scheme's.
func originMatches(allowed, origin string) bool {
	if allowed == "*" {
		return true
	}
	aScheme, aHost, aPort, ok := splitOrigin(allowed)
	scheme, host, port, ok2 := splitOrigin(origin)
	if !ok || !ok2 || aScheme != scheme || aPort != port {
		return false
	}
	if suffix, wild := strings.CutPrefix(aHost, "*"); wild {
		return len(host) > len(suffix) && strings.HasSuffix(host, suffix)
	}
	return aHost == host
}

func splitOrigin(s string) (scheme, host, port string, ok bool) {
	scheme, host, ok = strings.Cut(strings.ToLower(s), "://")
	if i := strings.LastIndexByte(host, ':'); i >= 0 && !strings.HasSuffix(host, "]") {
		host, port = host[:i], host[i+1:]
	} else if p := wellKnown[scheme]; p != 0 {
		port = strconv.Itoa(int(p))
	}
	return scheme, host, port, ok && isAuthority(host) && port != ""
}
