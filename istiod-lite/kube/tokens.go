package kube

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	authv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/ambit-mesh/ambit/istiod-lite/ca"
)

// Tokens authenticates service-account tokens by the API server.
type Tokens struct {
	Client kubernetes.Interface
	// Audiences are those of which a token must have one.
	Audiences []string
}

// What a token is bound to, in the review's extra fields.
const (
	extraPodName  = "authentication.kubernetes.io/pod-name"
	extraPodUID   = "authentication.kubernetes.io/pod-uid"
	extraNodeName = "authentication.kubernetes.io/node-name"
)

// Authenticate implements ca.Authenticator.
func (t *Tokens) Authenticate(ctx context.Context, token string) (ca.Caller, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	review := &authv1.TokenReview{Spec: authv1.TokenReviewSpec{Token: token, Audiences: t.Audiences}}
	got, err := t.Client.AuthenticationV1().TokenReviews().Create(ctx, review, metav1.CreateOptions{})
	if err != nil {
		return ca.Caller{}, fmt.Errorf("reviewing a token: %w", err)
	}
	return callerOf(got.Status, t.Audiences)
}

// callerOf reads a review's answer. An API server that knows no audiences
// answers with none, and the token could be meant for anybody: it is refused.
func callerOf(s authv1.TokenReviewStatus, audiences []string) (ca.Caller, error) {
	switch {
	case s.Error != "":
		return ca.Caller{}, fmt.Errorf("the token is not valid: %s", s.Error)
	case !s.Authenticated:
		return ca.Caller{}, errors.New("the token is not valid")
	case !slices.ContainsFunc(s.Audiences, func(a string) bool { return slices.Contains(audiences, a) }):
		return ca.Caller{}, fmt.Errorf("the token is for %q, not for %q", s.Audiences, audiences)
	}
	parts := strings.Split(s.User.Username, ":")
	if len(parts) != 4 || parts[0] != "system" || parts[1] != "serviceaccount" || parts[2] == "" || parts[3] == "" {
		return ca.Caller{}, fmt.Errorf("%q is not a service account", s.User.Username)
	}
	extra := func(key string) string {
		if v := s.User.Extra[key]; len(v) == 1 {
			return v[0]
		}
		return ""
	}
	return ca.Caller{
		Account: ca.Account{Namespace: parts[2], Name: parts[3]},
		PodName: extra(extraPodName), PodUID: extra(extraPodUID), Node: extra(extraNodeName),
	}, nil
}
