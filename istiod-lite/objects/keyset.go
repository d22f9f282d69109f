package objects

import (
	"strings"

	security "istio.io/api/security/v1beta1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// KeySet is the keys of a token issuer, as they were fetched last; its Name is
// where from. It is no object of the cluster: istiod-lite/jwks makes it.
type KeySet struct {
	metav1.ObjectMeta
	// Keys is the JWKS text; empty if it has never been had.
	Keys string
	// Problem says why the last fetch brought nothing; empty if it did.
	Problem string
}

// KeysAt is where the keys of a rule's issuer are fetched: where it says, else
// where OpenID Connect's discovery of the issuer says. Empty for keys that are
// in the rule itself.
func KeysAt(r *security.JWTRule) string {
	switch {
	case r.GetJwks() != "":
		return ""
	case r.GetJwksUri() != "":
		return r.GetJwksUri()
	}
	return strings.TrimSuffix(r.GetIssuer(), "/") + "/.well-known/openid-configuration"
}
