package match

import (
	"fmt"
	"strings"

	"github.com/ambit-mesh/ambit/internal/mesh"
)

// String is all that an alternative asks for.
func (c *candidate) String() string {
	var parts []string
	if c.call != nil {
		parts = append(parts, c.call.String())
	} else {
		parts = append(parts, describePath(c.path))
	}
	if c.method != "" {
		parts = append(parts, "method "+c.method)
	}
	for _, t := range c.headers {
		parts = append(parts, "header "+t.String())
	}
	for _, t := range c.query {
		parts = append(parts, "query parameter "+t.String())
	}
	return strings.Join(parts, ", ")
}

func describePath(p mesh.PathMatch) string {
	switch {
	case p.Op == mesh.PathExact:
		return "path " + p.Value
	case p.Op == mesh.PathPrefix && p.Value != "":
		return "path prefix " + p.Value
	case p.Op == mesh.PathRegex:
		return "path ~ " + p.Value
	}
	return "every path"
}

func (t *valueTest) String() string {
	if t.re != nil {
		return fmt.Sprintf("%s ~ %s", t.name, t.value)
	}
	return fmt.Sprintf("%s: %s", t.name, t.value)
}

func (t *callTest) String() string {
	if t.service == "" && t.method == "" {
		return "every call"
	}
	is := "call "
	if t.regex() {
		is = "call ~ "
	}
	return is + starred(t.service) + "/" + starred(t.method)
}

func starred(name string) string {
	if name == "" {
		return "*"
	}
	return name
}
