package match

import (
	"fmt"
	"net/url"
	"regexp"
	"strings"

	"github.com/ambit-mesh/ambit/internal/mesh"
)

// valueTest compares the first value of a header or query parameter, which
// must be there.
type valueTest struct {
	name, value string
	re          *regexp.Regexp
}

// valueTests compiles matches. Of equal names only the first counts (Gateway
// API); header names are without case.
func valueTests(matches []mesh.ValueMatch, header bool) ([]valueTest, error) {
	var out []valueTest
	seen := map[string]bool{}
	for _, m := range matches {
		t := valueTest{name: m.Name, value: m.Value}
		if header {
			t.name = canonical(m.Name)
		}
		if m.Regex {
			var err error
			if t.re, _, err = wholly(m.Value); err != nil {
				return nil, fmt.Errorf("%s: %w", m.Name, err)
			}
		}
		if !seen[t.name] {
			seen[t.name] = true
			out = append(out, t)
		}
	}
	return out, nil
}

func (t *valueTest) matches(value string, there bool) bool {
	if t.re != nil {
		return there && t.re.MatchString(value)
	}
	return there && value == t.value
}

// header is the first value of a header. Host is none of net/http's headers.
func (q *Request) header(name string) (string, bool) {
	if name == "Host" {
		return q.Host, q.Host != ""
	}
	if values := q.Header[name]; len(values) > 0 {
		return values[0], true
	}
	return "", false
}

// parameters gives the pairs of the query. One that cannot be unescaped is
// none; a semicolon is data.
func (q *Request) parameters(yield func(name, value string) bool) {
	for rest := q.Query; rest != ""; {
		var pair string
		pair, rest, _ = strings.Cut(rest, "&")
		key, value, _ := strings.Cut(pair, "=")
		name, ok := unescape(key)
		value, ok2 := unescape(value)
		if pair != "" && ok && ok2 && !yield(name, value) {
			return
		}
	}
}

// parameter is the first value of a query parameter.
func (q *Request) parameter(name string) (string, bool) {
	for key, value := range q.parameters {
		if key == name {
			return value, true
		}
	}
	return "", false
}

func unescape(s string) (string, bool) {
	if !strings.ContainsAny(s, "%+") {
		return s, true
	}
	s, err := url.QueryUnescape(s)
	return s, err == nil
}
