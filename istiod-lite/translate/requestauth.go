package translate

import (
	"encoding/json"
	"fmt"

	api "istio.io/api/security/v1beta1"
	security "istio.io/client-go/pkg/apis/security/v1"

	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/istiod-lite/objects"
)

// authentication makes what waypoints do about tokens of a
// RequestAuthentication. Node proxies cannot see tokens: one without targets
// has no effect, and says so.
func authentication(ra *security.RequestAuthentication, aims []aim, keysFrom func(uri string) (keys, problem string)) (*mesh.Authentication, Condition) {
	a := &mesh.Authentication{Key: mesh.PolicyKey{Namespace: ra.Namespace, Name: ra.Name}, Targets: targetsOf(aims)}
	var notes []string
	invalid := ReasonPartiallyInvalid
	if len(aims) == 0 {
		invalid = ReasonInvalid
		notes = append(notes, "This has no effect: only waypoints see tokens, and targetRefs says at which. Name Services or a waypoint's Gateway there.")
	}
	for i, r := range ra.Spec.GetJwtRules() {
		t, problem := tokenRule(r, keysFrom)
		if problem != "" {
			notes = append(notes, fmt.Sprintf("Rule %d: %s", i, problem))
		}
		if t.Issuer != "" {
			a.Tokens = append(a.Tokens, t)
		}
	}
	return a, guardCondition(objects.Ref{Kind: objects.KindRequestAuthentication, Key: objects.Key{Namespace: ra.Namespace, Name: ra.Name}}, ra.Generation, aims, invalid, notes)
}

// tokenRule reads one issuer's rule, and tells its author what of it is not as
// it should be.
func tokenRule(r *api.JWTRule, keysFrom func(uri string) (keys, problem string)) (t mesh.TokenRule, problem string) {
	if r.GetIssuer() == "" {
		return t, "No issuer is named: tokens are verified by the other rules only."
	}
	t = mesh.TokenRule{
		Issuer: r.GetIssuer(), Audiences: r.GetAudiences(), FromParams: r.GetFromParams(), FromCookies: r.GetFromCookies(),
		Forward: r.GetForwardOriginalToken(), PayloadHeader: r.GetOutputPayloadToHeader(), SpaceDelimited: r.GetSpaceDelimitedClaims(),
	}
	for _, h := range r.GetFromHeaders() {
		t.FromHeaders = append(t.FromHeaders, mesh.TokenHeader{Name: h.GetName(), Prefix: h.GetPrefix()})
	}
	for _, c := range r.GetOutputClaimToHeaders() {
		t.ClaimHeaders = append(t.ClaimHeaders, mesh.ClaimHeader{Header: c.GetHeader(), Claim: c.GetClaim()})
	}
	t.KeysFrom = objects.KeysAt(r)
	if t.KeysFrom == "" {
		t.Keys = r.GetJwks()
	} else {
		t.Keys, problem = keysFrom(t.KeysFrom)
	}
	if t.Keys != "" && !isKeySet(t.Keys) {
		t.Keys, problem = "", "are not a JWKS"
	}
	switch {
	case problem == "":
		return t, ""
	case t.Keys != "":
		return t, fmt.Sprintf("The keys of issuer %s %s: the last that were fetched are used.", t.Issuer, problem)
	}
	t.Unready = problem
	return t, fmt.Sprintf("The keys of issuer %s %s: its tokens are refused.", t.Issuer, problem)
}

// isKeySet takes a quick look; waypoint/authn reads the keys themselves.
func isKeySet(text string) bool {
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	return json.Unmarshal([]byte(text), &set) == nil && len(set.Keys) > 0
}
