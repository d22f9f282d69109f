package match

import (
	"fmt"
	"strings"

	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/internal/spiffe"
)

// connections is the index of a group's candidates for connections that are
// not HTTP.
type connections struct {
	// names are TLS server names in lower case; a wildcard is kept as its part
	// from the dot on.
	names map[string]*candidate
	// any is the one for everything.
	any *candidate
}

// index takes candidates in order of precedence; of equal ones the first wins.
func (s *connections) index(candidates []*candidate) {
	s.names = map[string]*candidate{}
	for _, c := range candidates {
		key := strings.TrimPrefix(c.sni, "*")
		switch {
		case key == "" && s.any == nil:
			s.any = c
		case key != "" && s.names[key] == nil:
			s.names[key] = c
		}
	}
}

// serverNames makes the alternatives of a TLS rule. They have no ranks: how they
// are looked for puts an exact name before the longest wildcard, any name last.
func serverNames(names []string) ([]*candidate, error) {
	if len(names) == 0 {
		return []*candidate{{match: -1}}, nil
	}
	var out []*candidate
	for i, n := range names {
		name := serverName(n)
		if name == "" || strings.Contains(strings.TrimPrefix(name, "*."), "*") {
			return nil, fmt.Errorf("server name %q: want a name, or one behind *.", n)
		}
		out = append(out, &candidate{match: i, sni: name})
	}
	return out, nil
}

func serverName(s string) string { return strings.ToLower(strings.TrimSuffix(s, ".")) }

// FindTLS gives the rule of TLS routes that takes a connection by the server
// name of its hello, which may be empty. A wildcard stands for one label or
// several. Routes of other kinds say nothing about it.
func (r *Routes) FindTLS(sni string, client spiffe.ID) Decision {
	g := r.group(client)
	if g == nil || g.kind != mesh.RouteTLS {
		return Decision{Rule: -1, Match: -1}
	}
	return g.connections.find(serverName(sni))
}

// FindTCP gives the rule of TCP routes that takes a connection: the first of
// the oldest route. Routes of other kinds say nothing about it.
func (r *Routes) FindTCP(client spiffe.ID) Decision {
	g := r.group(client)
	if g == nil || g.kind != mesh.RouteTCP {
		return Decision{Rule: -1, Match: -1}
	}
	return g.connections.find("")
}

func (s *connections) find(name string) Decision {
	if c := s.names[name]; c != nil && name != "" && name[0] != '.' {
		return c.decision()
	}
	for rest := name; rest != ""; {
		i := strings.IndexByte(rest[1:], '.')
		if i < 0 {
			break
		}
		rest = rest[i+1:]
		if c := s.names[rest]; c != nil {
			return c.decision()
		}
	}
	if s.any != nil {
		return s.any.decision()
	}
	return Decision{Outcome: NotFound, Rule: -1, Match: -1}
}
