package translate

import (
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	gateway "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/istiod-lite/objects"
)

// broken is a rule that does not work as its author wrote it.
type broken struct {
	rule   int
	reason string
	text   string
	// answers is set if the rule stays, and what it matches is answered 500.
	answers bool
}

// unresolved is a reference that leads nowhere.
type unresolved struct {
	rule   int
	reason string
	text   string
	mirror bool // of a mirror, not of a backend
}

// ruleConversion is the rules of one route being converted.
type ruleConversion struct {
	mesh      objects.MeshConfig
	kind      mesh.RouteKind
	namespace string
	name      string
	service   func(objects.Key) *corev1.Service

	rule       int // that is being converted
	rules      int // how many there are
	broken     []broken
	unresolved []unresolved
	services   []objects.Key
}

// convertRules makes rules one by one. A rule whose matches cannot be read is
// dropped, for nobody knows what it is about. One of which something else
// cannot be done stays and answers 500: what it matches must not pass without
// the filter, nor fall to a rule that its author put behind it.
func convertRules[R any](c *ruleConversion, in []R, match, act func(*R, *mesh.RouteRule) *wrong) []mesh.RouteRule {
	c.rules = len(in)
	var out []mesh.RouteRule
	for i := range in {
		c.rule = i
		rule := mesh.RouteRule{Index: i}
		if w := match(&in[i], &rule); w != nil {
			c.broken = append(c.broken, broken{i, w.reason, w.text, false})
			continue
		}
		matched := rule
		if w := act(&in[i], &rule); w != nil {
			c.broken = append(c.broken, broken{i, w.reason, w.text, true})
			rule = matched
			rule.Backends = []mesh.Backend{{Weight: 1, Invalid: w.text}}
		}
		out = append(out, rule)
	}
	return out
}

// wrong is what cannot be done with a rule; nil is nothing.
type wrong struct{ reason, text string }

func unsupported(format string, args ...any) *wrong {
	return &wrong{ReasonUnsupportedValue, fmt.Sprintf(format, args...)}
}

func incompatible(format string, args ...any) *wrong {
	return &wrong{ReasonIncompatibleFilters, fmt.Sprintf(format, args...)}
}

// firstWrong does one step after the other until one goes wrong.
func firstWrong(steps ...func() *wrong) *wrong {
	for _, step := range steps {
		if w := step(); w != nil {
			return w
		}
	}
	return nil
}

func httpRules(r *gateway.HTTPRoute) func(*ruleConversion) []mesh.RouteRule {
	return func(c *ruleConversion) []mesh.RouteRule {
		rules := r.Spec.Rules
		if rules == nil {
			rules = []gateway.HTTPRouteRule{{}} // the API's default: all requests, no backend
		}
		return convertRules(c, rules,
			func(in *gateway.HTTPRouteRule, out *mesh.RouteRule) (w *wrong) {
				out.Name = string(valueOf(in.Name))
				out.Matches, w = httpMatches(in.Matches)
				return w
			},
			func(in *gateway.HTTPRouteRule, out *mesh.RouteRule) *wrong {
				return firstWrong(
					func() *wrong { return c.filters(in.Filters, out.Matches, &out.Filters) },
					func() *wrong { return timeouts(in.Timeouts, out) },
					func() *wrong { return retry(in.Retry, out) },
					func() *wrong { return c.persistence(in.SessionPersistence, out) },
					func() *wrong { return backends(c, in.BackendRefs, httpBackend, out) },
				)
			})
	}
}

func grpcRules(r *gateway.GRPCRoute) func(*ruleConversion) []mesh.RouteRule {
	return func(c *ruleConversion) []mesh.RouteRule {
		return convertRules(c, r.Spec.Rules,
			func(in *gateway.GRPCRouteRule, out *mesh.RouteRule) (w *wrong) {
				out.Name = string(valueOf(in.Name))
				out.Matches, w = grpcMatches(in.Matches)
				return w
			},
			func(in *gateway.GRPCRouteRule, out *mesh.RouteRule) *wrong {
				return firstWrong(
					func() *wrong { return c.filters(grpcFilters(in.Filters), out.Matches, &out.Filters) },
					func() *wrong { return c.persistence(in.SessionPersistence, out) },
					func() *wrong { return backends(c, in.BackendRefs, grpcBackend, out) },
				)
			})
	}
}

func tlsRules(r *gateway.TLSRoute) func(*ruleConversion) []mesh.RouteRule {
	return func(c *ruleConversion) []mesh.RouteRule {
		return convertRules(c, r.Spec.Rules,
			func(in *gateway.TLSRouteRule, out *mesh.RouteRule) *wrong {
				out.Name = string(valueOf(in.Name))
				for _, h := range r.Spec.Hostnames {
					out.SNI = append(out.SNI, strings.ToLower(string(h)))
				}
				return nil
			},
			func(in *gateway.TLSRouteRule, out *mesh.RouteRule) *wrong {
				return backends(c, in.BackendRefs, plainBackend, out)
			})
	}
}

func tcpRules(r *gateway.TCPRoute) func(*ruleConversion) []mesh.RouteRule {
	return func(c *ruleConversion) []mesh.RouteRule {
		return convertRules(c, r.Spec.Rules,
			func(in *gateway.TCPRouteRule, out *mesh.RouteRule) *wrong {
				out.Name = string(valueOf(in.Name))
				return nil
			},
			func(in *gateway.TCPRouteRule, out *mesh.RouteRule) *wrong {
				return backends(c, in.BackendRefs, plainBackend, out)
			})
	}
}

func timeouts(in *gateway.HTTPRouteTimeouts, out *mesh.RouteRule) *wrong {
	if in == nil {
		return nil
	}
	var w *wrong
	if out.RequestTimeout, w = duration("timeouts.request", in.Request); w != nil {
		return w
	}
	if out.BackendTimeout, w = duration("timeouts.backendRequest", in.BackendRequest); w != nil {
		return w
	}
	if out.RequestTimeout > 0 && out.BackendTimeout > out.RequestTimeout {
		return unsupported("timeouts.backendRequest is longer than timeouts.request")
	}
	return nil
}

// duration reads GEP-2257's form; none is zero.
func duration(field string, in *gateway.Duration) (time.Duration, *wrong) {
	if in == nil {
		return 0, nil
	}
	d, err := time.ParseDuration(string(*in))
	if err != nil || d < 0 || strings.ContainsAny(string(*in), ".+nuµμ") {
		return 0, unsupported("%s %q is not a duration", field, *in)
	}
	return d, nil
}

// defaultAttempts are the retries of a rule that wants some and says not how
// many; it is Istio's number.
const defaultAttempts = 2

func retry(in *gateway.HTTPRouteRetry, out *mesh.RouteRule) *wrong {
	if in == nil {
		return nil
	}
	r := &mesh.Retry{Attempts: defaultAttempts}
	if in.Attempts != nil {
		r.Attempts = *in.Attempts
	}
	if r.Attempts < 0 {
		return unsupported("retry.attempts is %d", r.Attempts)
	}
	for _, code := range in.Codes {
		if code < 400 || code > 599 {
			return unsupported("retry.codes has %d, which is no status of an error", code)
		}
		if !slices.Contains(r.Codes, int(code)) {
			r.Codes = append(r.Codes, int(code))
		}
	}
	var w *wrong
	if r.Backoff, w = duration("retry.backoff", in.Backoff); w != nil {
		return w
	}
	out.Retry = r
	return nil
}

// persistence names a session that its author gave no name by its rule, so
// that two rules do not share one.
func (c *ruleConversion) persistence(in *gateway.SessionPersistence, out *mesh.RouteRule) *wrong {
	if in == nil {
		return nil
	}
	p := &mesh.Persistence{Name: valueOf(in.SessionName)}
	if p.Name == "" {
		p.Name = fmt.Sprintf("ambit-%s-%s-%d", c.namespace, c.name, c.rule)
	}
	if !isToken(p.Name) {
		return unsupported("sessionPersistence.sessionName %q is no name", p.Name)
	}
	switch t := valueOf(in.Type); t {
	case "", gateway.CookieBasedSessionPersistence:
	case gateway.HeaderBasedSessionPersistence:
		p.Header = true
		if w := sendable(&mesh.HeaderEdit{Set: []mesh.Header{{Name: p.Name, Value: "session"}}}); w != nil {
			return w
		}
	default:
		return unsupported("sessionPersistence.type is %q", t)
	}
	var w *wrong
	if p.Absolute, w = duration("sessionPersistence.absoluteTimeout", in.AbsoluteTimeout); w != nil {
		return w
	}
	if in.CookieConfig != nil {
		switch t := valueOf(in.CookieConfig.LifetimeType); t {
		case "", gateway.SessionCookieLifetimeType:
		case gateway.PermanentCookieLifetimeType:
			if p.Permanent = true; p.Absolute == 0 {
				return unsupported("sessionPersistence of a Permanent cookie has no absoluteTimeout")
			}
		default:
			return unsupported("sessionPersistence.cookieConfig.lifetimeType is %q", t)
		}
	}
	out.Persistence = p
	return nil
}
