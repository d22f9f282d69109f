package authn

import (
	"encoding/json"
	"net/http"
	"strconv"
	"strings"

	"golang.org/x/net/http/httpguts"

	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/internal/policy"
)

// spaceDelimited are the claims that are lists whatever a rule says.
var spaceDelimited = []string{"scope", "permission"}

// token is what policies see. It makes lists in claims.
func (h *head) token(r *mesh.TokenRule, claims map[string]any) *policy.Token {
	for _, name := range append(append([]string(nil), spaceDelimited...), r.SpaceDelimited...) {
		splitClaim(claims, name)
	}
	out := &policy.Token{Audiences: h.Audience, Presenter: h.Presenter, Claims: claims}
	if h.Issuer != "" && h.Subject != "" {
		out.Principal = h.Issuer + "/" + h.Subject
	}
	return out
}

// splitClaim makes a list of a text with spaces.
func splitClaim(claims map[string]any, name string) {
	level, key := holder(claims, name)
	if text, ok := level[key].(string); ok {
		var list []any
		for word := range strings.FieldsSeq(text) {
			list = append(list, word)
		}
		level[key] = list
	}
}

// holder finds the map that has a claim of a name; of a name with dots, at the
// path that they make if there is no claim of that very name.
func holder(claims map[string]any, name string) (level map[string]any, key string) {
	if _, ok := claims[name]; ok {
		return claims, name
	}
	first, rest, dotted := strings.Cut(name, ".")
	if next, ok := claims[first].(map[string]any); ok && dotted {
		return holder(next, rest)
	}
	return claims, name
}

// dropOutputs removes what a client sent under the names of headers that are
// written here, token or not. Many backends read "_" as "-".
func dropOutputs(h http.Header, rules []*mesh.TokenRule) {
	ours := map[string]bool{}
	for _, r := range rules {
		if r.PayloadHeader != "" {
			ours[folded(r.PayloadHeader)] = true
		}
		for _, c := range r.ClaimHeaders {
			ours[folded(c.Header)] = true
		}
	}
	if len(ours) == 0 {
		return
	}
	for name := range h {
		if ours[folded(name)] {
			delete(h, name)
		}
	}
}

func folded(name string) string { return strings.ReplaceAll(strings.ToLower(name), "_", "-") }

// outputs are the headers for the backend.
func outputs(r *mesh.TokenRule, claims map[string]any, payload string) []mesh.Header {
	var out []mesh.Header
	if r.PayloadHeader != "" {
		out = append(out, mesh.Header{Name: r.PayloadHeader, Value: payload})
	}
	for _, c := range r.ClaimHeaders {
		level, key := holder(claims, c.Claim)
		if text, ok := claimText(level[key]); ok && httpguts.ValidHeaderFieldValue(text) {
			out = append(out, mesh.Header{Name: c.Header, Value: text})
		}
	}
	return out
}

// claimText is a claim as the value of a header; a list of texts is joined.
func claimText(v any) (string, bool) {
	switch v := v.(type) {
	case string:
		return v, true
	case bool:
		return strconv.FormatBool(v), true
	case json.Number:
		return v.String(), true
	case []any:
		var out []string
		for _, e := range v {
			text, ok := e.(string)
			if !ok {
				return "", false
			}
			out = append(out, text)
		}
		return strings.Join(out, ","), len(out) > 0
	}
	return "", false
}

// payloadOf is the middle part of a compact token.
func payloadOf(token string) string {
	_, rest, _ := strings.Cut(token, ".")
	payload, _, _ := strings.Cut(rest, ".")
	return payload
}
