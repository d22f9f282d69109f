package doctor

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"
	authorizationv1 "k8s.io/api/authorization/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/ambit-mesh/ambit/ambit/reach"
	"github.com/ambit-mesh/ambit/manifests"
	"github.com/ambit-mesh/ambit/manifests/crd"
)

// Right is something that a part needs and may not do.
type Right struct {
	// Account is "namespace/name".
	Account string
	// Verb is one of Kubernetes', of Resource as "resource.group".
	Verb, Resource string
}

// need is one right that the manifests give to an account.
type need struct {
	account, namespace, group, resource, sub, name, verb string
}

// needs are the rights of every part as the manifests give them: what is
// installed may be older, or have been taken away.
func needs() ([]need, error) {
	files, err := manifests.Render(manifests.Config{GatewayAPI: manifests.None}, crd.Definitions{})
	if err != nil {
		return nil, err
	}
	roles, bindings := map[string]rbacv1.ClusterRole{}, []rbacv1.ClusterRoleBinding{}
	for _, f := range files {
		for _, doc := range strings.Split(string(f.Body), "\n---\n") {
			var kind metav1.TypeMeta
			if err := yaml.Unmarshal([]byte(doc), &kind); err != nil {
				return nil, err
			}
			switch kind.Kind {
			case "ClusterRole", "Role": // alike in all that counts here
				var r rbacv1.ClusterRole
				err = yaml.Unmarshal([]byte(doc), &r)
				roles[kind.Kind+r.Name] = r
			case "ClusterRoleBinding", "RoleBinding":
				var b rbacv1.ClusterRoleBinding
				err = yaml.Unmarshal([]byte(doc), &b)
				bindings = append(bindings, b)
			}
			if err != nil {
				return nil, err
			}
		}
	}
	var out []need
	for _, b := range bindings {
		for _, s := range b.Subjects {
			for _, rule := range roles[b.RoleRef.Kind+b.RoleRef.Name].Rules {
				out = append(out, needsOf(s.Namespace+"/"+s.Name, b.Namespace, rule)...)
			}
		}
	}
	return out, nil
}

func needsOf(account, namespace string, rule rbacv1.PolicyRule) []need {
	names := rule.ResourceNames
	if len(names) == 0 {
		names = []string{""}
	}
	var out []need
	for _, group := range rule.APIGroups {
		for _, resource := range rule.Resources {
			for _, name := range names {
				for _, verb := range rule.Verbs {
					if verb == "get" || verb == "list" {
						if slices.Contains(rule.Verbs, "watch") {
							continue // one of the three tells of all
						}
					}
					n := need{account: account, namespace: namespace, group: group, name: name, verb: verb}
					n.resource, n.sub, _ = strings.Cut(resource, "/")
					out = append(out, n)
				}
			}
		}
	}
	return out
}

// gatherRights asks the API server what it would say to the parts.
func gatherRights(ctx context.Context, c *reach.Cluster, f *Facts) error {
	if !f.installed() {
		return nil
	}
	all, err := needs()
	if err != nil {
		return fmt.Errorf("reading the rights that are installed: %w", err)
	}
	var mu sync.Mutex
	var g errgroup.Group
	g.SetLimit(asksAtOnce)
	for _, n := range all {
		g.Go(func() error {
			answer, err := c.Client.AuthorizationV1().SubjectAccessReviews().Create(ctx, n.review(), metav1.CreateOptions{})
			if err != nil {
				return fmt.Errorf("asking for the rights of %s: %w", n.account, err)
			}
			if !answer.Status.Allowed {
				mu.Lock()
				defer mu.Unlock()
				f.Rights = append(f.Rights, Right{n.account, n.verb, n.String()})
			}
			return nil
		})
	}
	return g.Wait()
}

func (n *need) review() *authorizationv1.SubjectAccessReview {
	namespace, name, _ := strings.Cut(n.account, "/")
	return &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{
		User:   "system:serviceaccount:" + namespace + ":" + name,
		Groups: []string{"system:serviceaccounts", "system:serviceaccounts:" + namespace, "system:authenticated"},
		ResourceAttributes: &authorizationv1.ResourceAttributes{
			Namespace: n.namespace, Verb: n.verb, Group: n.group, Resource: n.resource, Subresource: n.sub, Name: n.name,
		},
	}}
}

// String is the resource.
func (n *need) String() string {
	text := n.resource
	if n.group != "" {
		text += "." + n.group
	}
	if n.sub != "" {
		text += "/" + n.sub
	}
	if n.name != "" {
		text += " " + n.name
	}
	return text
}

// judgeRights tells once of each account.
func judgeRights(f Facts) []Finding {
	lacks := map[string][]string{}
	for _, r := range f.Rights {
		lacks[r.Account] = append(lacks[r.Account], r.Verb+" "+r.Resource)
	}
	var all []Finding
	for _, account := range slices.Sorted(maps.Keys(lacks)) {
		slices.Sort(lacks[account])
		all = append(all, Finding{Fail, "rights of " + account, "RBAC denies what it needs: " + shorten(lacks[account]), "give the roles back: ambit install; look for who removed the ClusterRole or its binding"})
	}
	return all
}
