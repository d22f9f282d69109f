package translate_test

import (
	apisec "istio.io/api/security/v1beta1"
	typev1 "istio.io/api/type/v1beta1"
	security "istio.io/client-go/pkg/apis/security/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ambit-mesh/ambit/istiod-lite/objects"
)

func (c chance) targetRefs() []*typev1.PolicyTargetReference {
	var out []*typev1.PolicyTargetReference
	for range 1 + c.IntN(2) {
		switch c.IntN(5) {
		case 0:
			out = append(out, &typev1.PolicyTargetReference{Group: "gateway.networking.k8s.io", Kind: "Gateway", Name: c.of("wp", "gone")})
		case 1:
			out = append(out, &typev1.PolicyTargetReference{Group: "gateway.networking.k8s.io", Kind: "GatewayClass", Name: "istio-waypoint"})
		case 2:
			out = append(out, &typev1.PolicyTargetReference{Group: "networking.istio.io", Kind: "ServiceEntry", Name: c.of("se1", "se2")})
		default:
			out = append(out, &typev1.PolicyTargetReference{Kind: "Service", Name: c.of("s1", "s2", "gone")})
		}
	}
	return out
}

// guard is a policy of the same names as those by selector, so that one becomes
// the other.
func (c chance) guard() *security.AuthorizationPolicy {
	ap := c.policy()
	if c.IntN(4) > 0 {
		ap.Spec.Selector = nil
	}
	ap.Spec.TargetRefs = c.targetRefs()
	ap.Spec.Rules[0].To[0].Operation.Methods = []string{"GET"}
	return ap
}

func (c chance) requestAuthentication() *security.RequestAuthentication {
	ra := &security.RequestAuthentication{ObjectMeta: c.meta("ra1", "ra2")}
	if c.IntN(4) > 0 {
		ra.Spec.TargetRefs = c.targetRefs()
	}
	r := &apisec.JWTRule{Issuer: c.of("one", "two", "")}
	switch c.IntN(3) {
	case 0:
		r.Jwks = c.of(`{"keys":[{}]}`, "nonsense")
	case 1:
		r.JwksUri = c.of("https://one/keys", "https://two/keys")
	}
	ra.Spec.JwtRules = []*apisec.JWTRule{r}
	return ra
}

func (c chance) keySet() *objects.KeySet {
	return &objects.KeySet{
		ObjectMeta: metav1.ObjectMeta{Name: c.of("https://one/keys", "https://two/keys")},
		Keys:       c.of("", `{"keys":[{}]}`), Problem: c.of("", "could not be fetched"),
	}
}
