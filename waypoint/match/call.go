package match

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/ambit-mesh/ambit/internal/mesh"
)

// callTest compares a gRPC service and method. Empty is any.
type callTest struct {
	service, method     string
	serviceRE, methodRE *regexp.Regexp
}

// compileCall ranks a call by its service, then its method, then its headers:
// a name before an expression, an expression before any.
func (c *candidate) compileCall(m *mesh.CallMatch) error {
	t := &callTest{service: m.Service, method: m.Method}
	var err error
	if m.Regex {
		if t.serviceRE, err = optional(m.Service); err != nil {
			return err
		}
		if t.methodRE, err = optional(m.Method); err != nil {
			return err
		}
	} else if strings.Contains(m.Service+m.Method, "/") {
		return fmt.Errorf("gRPC service %q, method %q: a name has no slash", m.Service, m.Method)
	}
	c.call = t
	c.rank = [5]int{rankName(m.Service, m.Regex), rankName(m.Method, m.Regex), len(c.headers)}
	return nil
}

func optional(expr string) (*regexp.Regexp, error) {
	if expr == "" {
		return nil, nil
	}
	re, _, err := wholly(expr)
	return re, err
}

func rankName(name string, regex bool) int {
	switch {
	case name == "":
		return rankAny
	case regex:
		return rankRegex
	}
	return rankExact
}

func (t *callTest) regex() bool { return t.serviceRE != nil || t.methodRE != nil }

func (t *callTest) matches(path string) bool {
	if t.service == "" && t.method == "" {
		return true
	}
	service, method, ok := call(path)
	return ok && name(t.service, t.serviceRE, service) && name(t.method, t.methodRE, method)
}

func name(want string, re *regexp.Regexp, got string) bool {
	if re != nil {
		return re.MatchString(got)
	}
	return want == "" || want == got
}

// call takes a gRPC path apart: /package.Service/Method.
func call(path string) (service, method string, ok bool) {
	if path == "" {
		return "", "", false
	}
	service, method, ok = strings.Cut(path[1:], "/")
	return service, method, ok && service != "" && method != "" && !strings.Contains(method, "/")
}
