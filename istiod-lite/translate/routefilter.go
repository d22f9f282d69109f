package translate

import (
	"regexp"
	"slices"
	"strings"
	"time"

	gateway "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/ambit-mesh/ambit/internal/mesh"
)

// filters reads the filters of a rule. Each may be there once, mirrors often.
func (c *ruleConversion) filters(in []gateway.HTTPRouteFilter, matches []mesh.RequestMatch, out *mesh.Filters) *wrong {
	seen := map[gateway.HTTPRouteFilterType]bool{}
	for i := range in {
		f := &in[i]
		if seen[f.Type] && f.Type != gateway.HTTPRouteFilterRequestMirror {
			return incompatible("filter %s is there twice", f.Type)
		}
		seen[f.Type] = true
		if w := c.filter(f, matches, out); w != nil {
			return w
		}
	}
	if out.Redirect != nil && out.Rewrite != nil {
		return incompatible("filters RequestRedirect and URLRewrite exclude each other")
	}
	return nil
}

func (c *ruleConversion) filter(f *gateway.HTTPRouteFilter, matches []mesh.RequestMatch, out *mesh.Filters) (w *wrong) {
	switch {
	case f.Type == gateway.HTTPRouteFilterRequestHeaderModifier && f.RequestHeaderModifier != nil:
		out.Request = headerEdit(f.RequestHeaderModifier)
		w = sendable(out.Request)
	case f.Type == gateway.HTTPRouteFilterResponseHeaderModifier && f.ResponseHeaderModifier != nil:
		out.Response = headerEdit(f.ResponseHeaderModifier)
		w = sendable(out.Response)
	case f.Type == gateway.HTTPRouteFilterRequestRedirect && f.RequestRedirect != nil:
		out.Redirect, w = redirect(f.RequestRedirect, matches)
	case f.Type == gateway.HTTPRouteFilterURLRewrite && f.URLRewrite != nil:
		out.Rewrite = &mesh.Rewrite{Host: string(valueOf(f.URLRewrite.Hostname))}
		out.Rewrite.Path, w = pathEdit(f.URLRewrite.Path, matches)
	case f.Type == gateway.HTTPRouteFilterRequestMirror && f.RequestMirror != nil:
		w = c.mirror(f.RequestMirror, out)
	case f.Type == gateway.HTTPRouteFilterCORS && f.CORS != nil:
		out.CORS, w = cors(f.CORS)
	case slices.Contains(knownFilters, f.Type):
		w = unsupported("filter %s has no settings", f.Type)
	default:
		w = unsupported("filter %s is not supported", f.Type)
	}
	return w
}

var knownFilters = []gateway.HTTPRouteFilterType{
	gateway.HTTPRouteFilterRequestHeaderModifier, gateway.HTTPRouteFilterResponseHeaderModifier, gateway.HTTPRouteFilterRequestRedirect,
	gateway.HTTPRouteFilterURLRewrite, gateway.HTTPRouteFilterRequestMirror, gateway.HTTPRouteFilterCORS,
}

// grpcFilters are the filters of a GRPCRoute as those of an HTTPRoute, which
// has them all under the same names.
func grpcFilters(in []gateway.GRPCRouteFilter) []gateway.HTTPRouteFilter {
	var out []gateway.HTTPRouteFilter
	for _, f := range in {
		out = append(out, gateway.HTTPRouteFilter{
			Type:                   gateway.HTTPRouteFilterType(f.Type),
			RequestHeaderModifier:  f.RequestHeaderModifier,
			ResponseHeaderModifier: f.ResponseHeaderModifier,
			RequestMirror:          f.RequestMirror,
			ExtensionRef:           f.ExtensionRef,
		})
	}
	return out
}

// headerEdit reads a header modifier; of one name, the first counts.
func headerEdit(in *gateway.HTTPHeaderFilter) *mesh.HeaderEdit {
	return &mesh.HeaderEdit{Set: headers(in.Set), Add: headers(in.Add), Remove: slices.Clone(in.Remove)}
}

func headers(in []gateway.HTTPHeader) []mesh.Header {
	var out []mesh.Header
	for _, h := range in {
		if !slices.ContainsFunc(out, func(o mesh.Header) bool { return strings.EqualFold(o.Name, string(h.Name)) }) {
			out = append(out, mesh.Header{Name: string(h.Name), Value: h.Value})
		}
	}
	return out
}

func redirect(in *gateway.HTTPRequestRedirectFilter, matches []mesh.RequestMatch) (*mesh.Redirect, *wrong) {
	out := &mesh.Redirect{Scheme: valueOf(in.Scheme), Host: string(valueOf(in.Hostname)), Status: 302}
	if out.Scheme != "" && out.Scheme != "http" && out.Scheme != "https" {
		return nil, unsupported("the scheme of a redirect is %q", out.Scheme)
	}
	if in.StatusCode != nil {
		out.Status = *in.StatusCode
	}
	if !slices.Contains([]int{301, 302, 303, 307, 308}, out.Status) {
		return nil, unsupported("the status of a redirect is %d", out.Status)
	}
	if p := valueOf(in.Port); p < 0 || p > 65535 {
		return nil, unsupported("the port of a redirect is %d", p)
	}
	out.Port = uint16(valueOf(in.Port))
	var w *wrong
	out.Path, w = pathEdit(in.Path, matches)
	return out, w
}

func pathEdit(in *gateway.HTTPPathModifier, matches []mesh.RequestMatch) (*mesh.PathEdit, *wrong) {
	switch {
	case in == nil:
		return nil, nil
	case in.Type == gateway.FullPathHTTPPathModifier && in.ReplaceFullPath != nil:
		return &mesh.PathEdit{Op: mesh.PathReplaceFull, Value: *in.ReplaceFullPath}, askable(*in.ReplaceFullPath)
	case in.Type == gateway.PrefixMatchHTTPPathModifier && in.ReplacePrefixMatch != nil:
		if len(matches) != 1 || matches[0].Path.Op != mesh.PathPrefix {
			return nil, unsupported("ReplacePrefixMatch needs exactly one match, of a PathPrefix")
		}
		return &mesh.PathEdit{Op: mesh.PathReplacePrefix, Value: *in.ReplacePrefixMatch}, askable(*in.ReplacePrefixMatch)
	case in.Type == gateway.FullPathHTTPPathModifier || in.Type == gateway.PrefixMatchHTTPPathModifier:
		return nil, unsupported("a path modifier of type %s has no value", in.Type)
	}
	return nil, unsupported("a path modifier is of type %q", in.Type)
}

// mirror reads a mirror. One that leads nowhere is left out and told of.
func (c *ruleConversion) mirror(in *gateway.HTTPRequestMirrorFilter, out *mesh.Filters) *wrong {
	m := mesh.Mirror{Numerator: 1, Denominator: 1}
	switch {
	case in.Percent != nil && in.Fraction != nil:
		return unsupported("a mirror has both percent and fraction")
	case in.Percent != nil:
		m.Numerator, m.Denominator = *in.Percent, 100
	case in.Fraction != nil:
		m.Numerator, m.Denominator = in.Fraction.Numerator, 100
		if in.Fraction.Denominator != nil {
			m.Denominator = *in.Fraction.Denominator
		}
	}
	if m.Denominator < 1 || m.Numerator < 0 || m.Numerator > m.Denominator {
		return unsupported("a mirror's share is %d/%d", m.Numerator, m.Denominator)
	}
	m.Backend = c.backend(in.BackendRef, nil)
	if m.Backend.Invalid == "" {
		out.Mirrors = append(out.Mirrors, m)
	} else {
		c.unresolved[len(c.unresolved)-1].mirror = true
	}
	return nil
}

// defaultMaxAge is how long a preflight's answer is kept (GEP-1767).
const defaultMaxAge = 5 * time.Second

// originForm is the API's own pattern of origins.
var originForm = regexp.MustCompile(`^(\*|https?://((\*\.)?([a-zA-Z0-9-]+\.)*[a-zA-Z0-9-]+|\*)(:[0-9]{1,5})?)$`)

func cors(in *gateway.HTTPCORSFilter) (*mesh.CORS, *wrong) {
	out := &mesh.CORS{
		AllowOrigins:     texts(in.AllowOrigins),
		AllowCredentials: valueOf(in.AllowCredentials),
		AllowMethods:     texts(in.AllowMethods),
		AllowHeaders:     texts(in.AllowHeaders),
		ExposeHeaders:    texts(in.ExposeHeaders),
		MaxAge:           time.Duration(in.MaxAge) * time.Second,
	}
	if out.MaxAge == 0 {
		out.MaxAge = defaultMaxAge
	}
	for _, o := range out.AllowOrigins {
		if !originForm.MatchString(o) {
			return nil, unsupported("origin %q is not scheme://host", o)
		}
	}
	return out, nil
}

func texts[T ~string](in []T) []string {
	var out []string
	for _, s := range in {
		out = append(out, string(s))
	}
	return out
}
