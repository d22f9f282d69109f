package translate

import (
	"regexp"
	"slices"
	"strings"

	gateway "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/ambit-mesh/ambit/internal/mesh"
)

// everyPath is what a match without a path means.
var everyPath = mesh.PathMatch{Op: mesh.PathPrefix, Value: "/"}

func httpMatches(in []gateway.HTTPRouteMatch) ([]mesh.RequestMatch, *wrong) {
	if len(in) == 0 {
		return []mesh.RequestMatch{{Path: everyPath}}, nil
	}
	var out []mesh.RequestMatch
	for i := range in {
		m, w := httpMatch(&in[i])
		if w != nil {
			return nil, w
		}
		out = append(out, m)
	}
	return out, nil
}

func httpMatch(in *gateway.HTTPRouteMatch) (out mesh.RequestMatch, w *wrong) {
	if out.Path, w = pathMatch(in.Path); w != nil {
		return out, w
	}
	if in.Method != nil {
		if !slices.Contains(methods, *in.Method) {
			return out, unsupported("method %q is not known", *in.Method)
		}
		out.Method = string(*in.Method)
	}
	for _, h := range in.Headers {
		m, w := valueMatch("header", valueOf(h.Type), string(h.Name), h.Value)
		if w != nil {
			return out, w
		}
		// Of one name, the first counts.
		if !slices.ContainsFunc(out.Headers, func(o mesh.ValueMatch) bool { return strings.EqualFold(o.Name, m.Name) }) {
			out.Headers = append(out.Headers, m)
		}
	}
	for _, q := range in.QueryParams {
		m, w := valueMatch("query parameter", valueOf(q.Type), string(q.Name), q.Value)
		if w != nil {
			return out, w
		}
		if !slices.ContainsFunc(out.Query, func(o mesh.ValueMatch) bool { return o.Name == m.Name }) {
			out.Query = append(out.Query, m)
		}
	}
	return out, nil
}

var methods = []gateway.HTTPMethod{
	gateway.HTTPMethodGet, gateway.HTTPMethodHead, gateway.HTTPMethodPost, gateway.HTTPMethodPut, gateway.HTTPMethodDelete,
	gateway.HTTPMethodConnect, gateway.HTTPMethodOptions, gateway.HTTPMethodTrace, gateway.HTTPMethodPatch,
}

func pathMatch(in *gateway.HTTPPathMatch) (mesh.PathMatch, *wrong) {
	if in == nil {
		return everyPath, nil
	}
	m := everyPath
	if in.Value != nil {
		m.Value = *in.Value
	}
	switch t := valueOf(in.Type); t {
	case "", gateway.PathMatchPathPrefix:
		if len(m.Value) > 1 { // a slash at the end says nothing
			m.Value = strings.TrimSuffix(m.Value, "/")
		}
	case gateway.PathMatchExact:
		m.Op = mesh.PathExact
	case gateway.PathMatchRegularExpression:
		m.Op = mesh.PathRegex
		return m, expression("path", m.Value)
	default:
		return m, unsupported("a path match is of type %q", t)
	}
	if !strings.HasPrefix(m.Value, "/") {
		return m, unsupported("path %q does not begin with a slash", m.Value)
	}
	return m, askable(m.Value)
}

// valueMatch reads a match of a header or a query parameter; both have the
// same types.
func valueMatch[T ~string](what string, typ T, name, value string) (mesh.ValueMatch, *wrong) {
	m := mesh.ValueMatch{Name: name, Value: value}
	switch string(typ) {
	case "", string(gateway.HeaderMatchExact):
		return m, nil
	case string(gateway.HeaderMatchRegularExpression):
		m.Regex = true
		return m, expression(what+" "+name, value)
	}
	return m, unsupported("the match of %s %s is of type %q", what, name, typ)
}

// expression reports whether a regular expression can be read.
func expression(what, text string) *wrong {
	if _, err := regexp.Compile(text); err != nil {
		return unsupported("the regular expression %q for %s is not RE2", text, what)
	}
	return nil
}

func grpcMatches(in []gateway.GRPCRouteMatch) ([]mesh.RequestMatch, *wrong) {
	if len(in) == 0 {
		return []mesh.RequestMatch{{Call: &mesh.CallMatch{}}}, nil
	}
	var out []mesh.RequestMatch
	for i := range in {
		var m mesh.RequestMatch
		var w *wrong
		if m.Call, w = callMatch(in[i].Method); w != nil {
			return nil, w
		}
		for _, h := range in[i].Headers {
			v, w := valueMatch("header", valueOf(h.Type), string(h.Name), h.Value)
			if w != nil {
				return nil, w
			}
			if !slices.ContainsFunc(m.Headers, func(o mesh.ValueMatch) bool { return strings.EqualFold(o.Name, v.Name) }) {
				m.Headers = append(m.Headers, v)
			}
		}
		out = append(out, m)
	}
	return out, nil
}

func callMatch(in *gateway.GRPCMethodMatch) (*mesh.CallMatch, *wrong) {
	if in == nil {
		return &mesh.CallMatch{}, nil
	}
	m := &mesh.CallMatch{Service: valueOf(in.Service), Method: valueOf(in.Method)}
	switch t := valueOf(in.Type); t {
	case "", gateway.GRPCMethodMatchExact:
		return m, nil
	case gateway.GRPCMethodMatchRegularExpression:
		m.Regex = true
		return m, firstWrong(
			func() *wrong { return expression("the gRPC service", m.Service) },
			func() *wrong { return expression("the gRPC method", m.Method) },
		)
	default:
		return nil, unsupported("a method match is of type %q", t)
	}
}
