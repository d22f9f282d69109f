package doctor

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ambit-mesh/ambit/ambit/reach"
	"github.com/ambit-mesh/ambit/internal/health"
	"github.com/ambit-mesh/ambit/manifests"
)

// Signing is the mesh's signing key as it is kept, and what is published of it.
type Signing struct {
	// Secret is its name, empty for none.
	Secret string
	// Certificate signs; Roots are trusted; Published are those of the ConfigMap
	// of istio-system.
	Certificate      []health.Root
	Roots, Published []health.Root
}

// gatherSigning reads certificates and never keys: a plugged-in Secret counts
// before the mesh's own.
func gatherSigning(ctx context.Context, c *reach.Cluster, f *Facts) error {
	published, err := c.Client.CoreV1().ConfigMaps(manifests.Namespace).Get(ctx, rootCertificate, metav1.GetOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("reading the published roots: %w", err)
	}
	if err == nil {
		f.Signing.Published, _ = health.RootsOf([]byte(published.Data["root-cert.pem"]))
	}
	for _, name := range []string{"cacerts", "istio-ca-secret"} {
		s, err := c.Client.CoreV1().Secrets(manifests.Namespace).Get(ctx, name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) || err == nil && len(s.Data) == 0 {
			continue
		}
		if err != nil {
			return fmt.Errorf("reading the certificates of secret %s: %w", name, err)
		}
		f.Signing.Secret = name
		f.Signing.Certificate, f.Signing.Roots = certificatesOf(s.Data)
		return nil
	}
	return nil
}

// certificatesOf reads both forms of a Secret. Without a root the certificate
// is its own.
func certificatesOf(data map[string][]byte) (signing, roots []health.Root) {
	first := func(keys ...string) []health.Root {
		for _, k := range keys {
			if all, _ := health.RootsOf(data[k]); len(all) > 0 {
				return all
			}
		}
		return nil
	}
	signing, roots = first("ca-cert.pem", "tls.crt"), first("root-cert.pem", "ca.crt")
	if len(signing) > 1 {
		signing = signing[:1]
	}
	if len(roots) == 0 {
		roots = signing
	}
	return signing, roots
}

const rotate = "replace the root: ambit ca rotate, or renew the certificates of Secret cacerts"

// expirySoon is when an end is told of before it comes.
const expirySoon = 30 * 24 * time.Hour

// judgeTrust looks whether there is a root, whether it lasts, and whether all
// have the same.
func judgeTrust(f Facts) []Finding {
	all := f.judgeExpiry()
	all = append(all, f.judgeAgreement()...)
	if !slices.ContainsFunc(all, func(found Finding) bool { return found.Level == Fail }) {
		if until := last(f.trusted()); !until.IsZero() {
			all = append(all, ok("root certificate", "until "+until.Format(time.DateOnly)))
		}
	}
	return all
}

// judgeExpiry fails if nothing can be signed or verified any longer. A root
// that has ended among others that have not is left from a rotation.
func (f *Facts) judgeExpiry() []Finding {
	secret := "Secret " + f.Signing.Secret
	for _, c := range []struct {
		what string
		of   []health.Root
	}{
		{"the signing certificate of " + secret, f.Signing.Certificate}, {"the root of " + secret, f.Signing.Roots},
		{"the root that is published", f.Signing.Published}, {"the root that istiod signs under", f.trusted()},
	} {
		until := last(c.of)
		switch {
		case until.IsZero():
		case !f.Now.Before(until):
			return []Finding{{Fail, "root certificate", fmt.Sprintf("%s expired at %s: no certificate of the mesh is good any longer", c.what, until.Format(time.RFC3339)), rotate}}
		case until.Sub(f.Now) < expirySoon:
			return []Finding{{Warn, "root certificate", fmt.Sprintf("%s expires at %s", c.what, until.Format(time.RFC3339)), rotate}}
		}
	}
	return nil
}

// trusted are the roots that the control plane hands out.
func (f *Facts) trusted() []health.Root {
	var all []health.Root
	for _, p := range f.Planes {
		all = append(all, p.Roots...)
	}
	return all
}

func last(roots []health.Root) (until time.Time) {
	for _, r := range roots {
		if r.Until.After(until) {
			until = r.Until
		}
	}
	return until
}

// judgeAgreement holds everybody's roots against those of the control plane.
func (f *Facts) judgeAgreement() []Finding {
	want := f.trusted()
	if len(want) == 0 {
		want = f.Signing.Published
	}
	type holder struct {
		who  string
		have []health.Root
	}
	holders := []holder{{"Secret " + f.Signing.Secret, f.Signing.Roots}, {"the ConfigMap of istio-system", f.Signing.Published}}
	for _, p := range f.Planes {
		holders = append(holders, holder{p.Pod, p.Roots})
	}
	for _, p := range f.Proxies {
		holders = append(holders, holder{p.Kind + " " + p.Pod, p.Roots})
	}
	for _, n := range f.Namespaces {
		holders = append(holders, holder{"the ConfigMap of namespace " + n.Name, n.Roots})
	}
	var apart, behind []string
	for _, h := range holders {
		shared, missing := compare(h.have, want)
		switch {
		case len(h.have) == 0 || len(want) == 0:
		case shared == 0:
			apart = append(apart, h.who)
		case missing > 0 || shared < len(h.have):
			behind = append(behind, h.who)
		}
	}
	switch {
	case len(apart) > 0:
		return []Finding{{Fail, "roots", "others than those of istiod, so that peers refuse each other, are trusted by: " + shorten(apart), "let everybody trust both roots before the old one goes: ambit ca rotate; a Secret that was exchanged at once is put back first. A proxy that stays behind is restarted"}}
	case len(behind) > 0:
		return []Finding{{Warn, "roots", "are being replaced; not yet all of istiod's, or more, are trusted by: " + shorten(behind), "wait: proxies follow as their certificates are renewed; ambit ca status shows how far they are"}}
	}
	return nil
}

// compare counts the distinct roots of want that are in have, and that are not.
func compare(have, want []health.Root) (shared, missing int) {
	seen := map[string]bool{}
	for _, w := range want {
		if seen[w.Fingerprint] {
			continue
		}
		seen[w.Fingerprint] = true
		if slices.ContainsFunc(have, func(r health.Root) bool { return r.Fingerprint == w.Fingerprint }) {
			shared++
		} else {
			missing++
		}
	}
	return shared, missing
}

// Mesh is the mesh's settings, as far as they are looked at.
type Mesh struct {
	TrustDomain string   `json:"trustDomain"`
	Aliases     []string `json:"trustDomainAliases"`
}

// knows reports whether a trust domain is the mesh's.
func (m *Mesh) knows(domain string) bool {
	return domain == m.TrustDomain || slices.Contains(m.Aliases, domain)
}

// judgeDomain compares the settings with what the parts speak for.
func judgeDomain(f Facts) []Finding {
	var all []Finding
	const fix = "set trustDomain in ConfigMap istio of istio-system as it was, and list the old one under trustDomainAliases while certificates are renewed"
	for _, p := range f.Planes {
		if p.Why == "" && p.TrustDomain != f.Mesh.TrustDomain {
			all = append(all, Finding{Fail, "trust domain", fmt.Sprintf("%s signs for %q, the settings say %q", p.Pod, p.TrustDomain, f.Mesh.TrustDomain), "kubectl -n istio-system rollout restart deployment istiod"})
		}
	}
	for _, p := range f.Proxies {
		for _, i := range p.Identities {
			if !f.Mesh.knows(i.TrustDomain) {
				all = append(all, Finding{Fail, "trust domain", fmt.Sprintf("%s %s speaks for %s, which is not of the mesh's trust domain %q", p.Kind, p.Pod, i.ID, f.Mesh.TrustDomain), fix})
				break // the others are alike
			}
		}
	}
	for _, s := range f.Strangers {
		all = append(all, Finding{Warn, "trust domain", fmt.Sprintf("policy %s names principals of trust domain %q, the mesh's is %q: they match nobody", s.Policy, s.Domain, f.Mesh.TrustDomain), "correct the principals, or list the domain under trustDomainAliases in ConfigMap istio"})
	}
	return all
}

// splitPrincipal is the trust domain of a principal in a policy, empty for one
// that leaves it open.
func splitPrincipal(p string) string {
	domain, _, ok := strings.Cut(strings.TrimPrefix(p, "spiffe://"), "/ns/")
	if !ok || strings.Contains(domain, "*") {
		return ""
	}
	return domain
}
