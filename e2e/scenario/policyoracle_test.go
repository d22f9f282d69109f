package scenario

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"

	api "istio.io/api/security/v1beta1"
	security "istio.io/client-go/pkg/apis/security/v1"

	"github.com/ambit-mesh/ambit/internal/spiffe"
	"github.com/ambit-mesh/ambit/istiod-lite/objects"
)

// The oracle judges connections by the user's objects alone, from the text of
// controlplane spec 2.1-2.6 and appendices C and D: it knows no Translator, no
// resource and no view. What L4 cannot see or nobody can read is unknown.

type truth int

const (
	no truth = iota - 1
	unknown
	yes
)

func known(b bool) truth {
	if b {
		return yes
	}
	return no
}

// arrival is a connection at a captured pod.
type arrival struct {
	id   spiffe.ID // zero is plaintext
	from netip.Addr
	pod  objects.Key
	to   netip.AddrPort
}

// reading is how the oracle takes what is unknown.
type reading int

const (
	// strict closes on whatever is unknown.
	strict reading = iota
	// upstream does as Istio's node proxy is specified, open where that is open.
	upstream
)

// world is what the oracle sees.
type world struct {
	objects.Set
	reading
}

// admits reports whether a connection reaches its pod.
func (w world) admits(c arrival) bool {
	if c.id != (spiffe.ID{}) && !slices.Contains(w.domains(), c.id.TrustDomain) {
		return false // no handshake
	}
	if c.id == (spiffe.ID{}) && w.strictAt(c.pod, uint32(c.to.Port())) {
		return false
	}
	anyAllow, allowed := false, false
	for _, ap := range w.applying(c.pod) {
		deny := ap.Spec.GetAction() == api.AuthorizationPolicy_DENY
		anyAllow = anyAllow || !deny
		for _, r := range ap.Spec.GetRules() {
			switch m := w.rule(ap, r, c); {
			case deny && (m == yes || m == unknown && w.reading == strict):
				return false
			case !deny && m == yes:
				allowed = true
			}
		}
	}
	return allowed || !anyAllow
}

func (w world) domains() []string {
	return append([]string{w.Mesh.TrustDomain}, w.Mesh.TrustDomainAliases...)
}

func selects(selector, labels map[string]string) bool {
	for k, v := range selector {
		if labels[k] != v {
			return false
		}
	}
	return true
}

// applying are the enforced policies of a pod.
func (w world) applying(pod objects.Key) (out []*security.AuthorizationPolicy) {
	if w.Pods[pod] == nil {
		return nil
	}
	for _, ap := range w.AuthorizationPolicies {
		if a := ap.Spec.GetAction(); a != api.AuthorizationPolicy_ALLOW && a != api.AuthorizationPolicy_DENY {
			continue
		}
		if ap.Annotations["istio.io/dry-run"] == "true" || len(ap.Spec.GetTargetRefs()) > 0 {
			continue
		}
		near := ap.Namespace == pod.Namespace || ap.Namespace == w.Mesh.RootNamespace
		if near && selects(ap.Spec.GetSelector().GetMatchLabels(), w.Pods[pod].Labels) {
			out = append(out, ap)
		}
	}
	return out
}

// strictAt is appendix C.
func (w world) strictAt(pod objects.Key, port uint32) bool {
	mode := w.oldest(w.Mesh.RootNamespace, nil).GetMtls().GetMode()
	if pod.Namespace != w.Mesh.RootNamespace {
		if own := w.oldest(pod.Namespace, nil).GetMtls().GetMode(); own != 0 {
			mode = own
		}
	}
	inherited := true
	var ports map[uint32]*api.PeerAuthentication_MutualTLS
	if pod.Namespace != w.Mesh.RootNamespace {
		own := w.oldest(pod.Namespace, w.Pods[pod].Labels)
		if own.GetMtls().GetMode() != 0 {
			mode, inherited = own.GetMtls().GetMode(), false
		}
		ports = own.GetPortLevelMtls()
	}
	switch ports[port].GetMode() {
	case api.PeerAuthentication_MutualTLS_STRICT:
		return true
	case api.PeerAuthentication_MutualTLS_PERMISSIVE:
		return false
	case api.PeerAuthentication_MutualTLS_DISABLE:
		return inherited && mode == api.PeerAuthentication_MutualTLS_STRICT
	}
	return mode == api.PeerAuthentication_MutualTLS_STRICT
}

// oldest is the one that counts of a namespace's PeerAuthentications: of those
// without selector, or of those that select labels.
func (w world) oldest(namespace string, labels map[string]string) *api.PeerAuthentication {
	var found *security.PeerAuthentication
	for _, pa := range w.PeerAuthentications {
		selector := pa.Spec.GetSelector().GetMatchLabels()
		if pa.Namespace != namespace || (labels == nil) != (len(selector) == 0) || !selects(selector, labels) {
			continue
		}
		if found == nil || pa.CreationTimestamp.Before(&found.CreationTimestamp) || pa.CreationTimestamp.Equal(&found.CreationTimestamp) && pa.Name < found.Name {
			found = pa
		}
	}
	if found == nil {
		return nil
	}
	return &found.Spec
}

// rule is whether one matches. Upstream leaves an ALLOW rule out with anything
// it does not see.
func (w world) rule(ap *security.AuthorizationPolicy, r *api.Rule, c arrival) truth {
	if w.reading == upstream && ap.Spec.GetAction() == api.AuthorizationPolicy_ALLOW && slices.ContainsFunc(troubles(ap, r), func(t string) bool { return t == unseen || t == alsoUnseen }) {
		return no
	}
	out := yes
	part := func(n int, one func(int) []attribute) {
		if n == 0 {
			return
		}
		any := no
		for i := range n {
			any = max(any, w.match(one(i)))
		}
		out = min(out, any)
	}
	part(len(r.From), func(i int) []attribute { return w.source(ap, r.From[i].GetSource(), c) })
	part(len(r.To), func(i int) []attribute { return w.operation(r.To[i].GetOperation(), c) })
	for _, x := range r.When {
		part(1, func(int) []attribute { return []attribute{w.when(ap, x, c)} })
	}
	return out
}

// attribute is two lists of values about one thing, each value judged.
type attribute struct {
	want, not []truth
	// dropped attributes are not seen by upstream at all.
	dropped bool
}

func (w world) match(all []attribute) truth {
	out, set := yes, false
	for _, a := range all {
		if len(a.want)+len(a.not) == 0 {
			continue
		}
		if w.reading == upstream {
			readable := func(t truth) bool { return t == unknown }
			a.want, a.not = slices.DeleteFunc(a.want, readable), slices.DeleteFunc(a.not, readable)
			if a.dropped || len(a.want)+len(a.not) == 0 {
				continue
			}
		}
		set = true
		if len(a.want) > 0 {
			out = min(out, slices.Max(a.want))
		}
		for _, t := range a.not {
			out = min(out, -t)
		}
	}
	switch {
	case set:
		return out
	case w.reading == upstream:
		return no // an empty match
	}
	return unknown
}

func (w world) source(ap *security.AuthorizationPolicy, s *api.Source, c arrival) []attribute {
	return []attribute{
		attr(s.GetPrincipals(), s.GetNotPrincipals(), func(p string) truth { return w.principal(p, c.id) }),
		attr(s.GetNamespaces(), s.GetNotNamespaces(), func(p string) truth { return text(p, c.id.Namespace) }),
		attr(s.GetServiceAccounts(), s.GetNotServiceAccounts(), func(p string) truth { return account(ap.Namespace, p, c.id) }),
		attr(s.GetIpBlocks(), s.GetNotIpBlocks(), func(p string) truth { return block(p, c.from) }),
		hidden(attr(s.GetTrustDomains(), s.GetNotTrustDomains(), func(p string) truth { return w.domain(p, c.id) })),
		hidden(attr(s.GetRequestPrincipals(), s.GetRemoteIpBlocks(), func(string) truth { return unknown })),
	}
}

func (w world) operation(o *api.Operation, c arrival) []attribute {
	return []attribute{
		attr(o.GetPorts(), o.GetNotPorts(), func(p string) truth { return portIs(p, c.to.Port()) }),
		hidden(attr(o.GetMethods(), o.GetNotPaths(), func(string) truth { return unknown })),
	}
}

func (w world) when(ap *security.AuthorizationPolicy, x *api.Condition, c arrival) attribute {
	one := map[string]func(string) truth{
		"source.principal": func(p string) truth { return w.principal(p, c.id) },
		"source.namespace": func(p string) truth { return text(p, c.id.Namespace) },
		"source.ip":        func(p string) truth { return block(p, c.from) },
		"destination.ip":   func(p string) truth { return block(p, c.to.Addr()) },
		"destination.port": func(p string) truth { return portIs(p, c.to.Port()) },
	}[x.GetKey()]
	switch {
	case one != nil:
		return attr(x.GetValues(), x.GetNotValues(), one)
	case x.GetKey() == "source.serviceAccount":
		return hidden(attr(x.GetValues(), x.GetNotValues(), func(p string) truth { return account(ap.Namespace, p, c.id) }))
	case x.GetKey() == "source.trustDomain":
		return hidden(attr(x.GetValues(), x.GetNotValues(), func(p string) truth { return w.domain(p, c.id) }))
	}
	return attribute{want: []truth{unknown}, dropped: true}
}

func attr(want, not []string, one func(string) truth) (a attribute) {
	for _, p := range want {
		a.want = append(a.want, one(p))
	}
	for _, p := range not {
		a.not = append(a.not, one(p))
	}
	return a
}

func hidden(a attribute) attribute {
	a.dropped = true
	return a
}

func text(pattern, s string) truth {
	switch {
	case pattern == "":
		return unknown
	case pattern == "*":
		return known(s != "")
	case pattern[0] == '*':
		return known(strings.HasSuffix(s, pattern[1:]))
	case strings.HasSuffix(pattern, "*"):
		return known(strings.HasPrefix(s, pattern[:len(pattern)-1]))
	}
	return known(s == pattern)
}

// principal compares under every name of the mesh's trust domain, which
// "cluster.local" is also one of.
func (w world) principal(pattern string, id spiffe.ID) truth {
	if pattern == "" {
		return unknown
	}
	if id == (spiffe.ID{}) {
		return no
	}
	names := []string{id.TrustDomain}
	if slices.Contains(w.domains(), id.TrustDomain) && w.reading == strict {
		names = w.domains()
		if !strings.ContainsAny(pattern[:1], "*") && strings.HasPrefix(pattern, "cluster.local/") {
			names = append(names, "cluster.local")
		}
	}
	out := no
	for _, d := range names {
		id.TrustDomain = d
		out = max(out, text(pattern, strings.TrimPrefix(id.String(), "spiffe://")))
	}
	return out
}

func (w world) domain(pattern string, id spiffe.ID) truth {
	if pattern == "" || strings.Contains(pattern, "/") || pattern[0] == '*' && pattern != "*" {
		return unknown
	}
	names := []string{id.TrustDomain}
	if slices.Contains(w.domains(), id.TrustDomain) {
		names = w.domains()
	}
	return known(slices.ContainsFunc(names, func(d string) bool { return d != "" && text(pattern, d) == yes }))
}

func account(namespace, pattern string, id spiffe.ID) truth {
	if !strings.Contains(pattern, "/") {
		pattern = namespace + "/" + pattern
	}
	if strings.Count(pattern, "/") != 1 || strings.HasPrefix(pattern, "/") || strings.HasSuffix(pattern, "/") || strings.Contains(pattern, "*") {
		return unknown
	}
	return known(id.Namespace+"/"+id.ServiceAccount == pattern)
}

func block(pattern string, a netip.Addr) truth {
	if p, err := netip.ParsePrefix(pattern); err == nil {
		return known(p.Masked().Contains(a))
	}
	one, err := netip.ParseAddr(pattern)
	if err != nil {
		return unknown
	}
	return known(one == a)
}

func portIs(pattern string, p uint16) truth {
	n, err := strconv.Atoi(pattern)
	if err != nil || n <= 0 || n > 65535 {
		return unknown
	}
	return known(n == int(p))
}

// What may make this mesh and the oracle differ, as docs/security.md tells.
const (
	unseen     = "an attribute that only a waypoint sees"
	alsoUnseen = "an account or a trust domain in `when`, which upstream does not look at"
	domains    = "trustDomains, which upstream does not look at"
	unreadable = "a value that cannot be read"
	nothing    = "a source or an operation that demands nothing"
	aliases    = "an alias of the trust domain, which upstream's policies do not know"
)

// troubles are the kinds of what a rule asks that not everybody can tell.
func troubles(ap *security.AuthorizationPolicy, r *api.Rule) (out []string) {
	note := func(kind string, if_ bool) {
		if if_ {
			out = append(out, kind)
		}
	}
	bad := func(lists ...[]attribute) bool {
		for _, l := range lists {
			for _, a := range l {
				if slices.Contains(append(slices.Clone(a.want), a.not...), unknown) {
					return true
				}
			}
		}
		return false
	}
	w, c := world{}, arrival{id: spiffe.ID{TrustDomain: "x", Namespace: "x", ServiceAccount: "x"}, from: netip.IPv4Unspecified(), to: netip.AddrPortFrom(netip.IPv4Unspecified(), 1)}
	for _, f := range r.From {
		s := f.GetSource()
		note(unseen, len(s.GetRequestPrincipals())+len(s.GetRemoteIpBlocks()) > 0)
		note(domains, len(s.GetTrustDomains())+len(s.GetNotTrustDomains()) > 0)
		note(unreadable, bad(w.source(ap, s, c)[:5]))
		note(nothing, !slices.ContainsFunc(w.source(ap, s, c), func(a attribute) bool { return len(a.want)+len(a.not) > 0 }))
	}
	for _, t := range r.To {
		o := t.GetOperation()
		note(unseen, len(o.GetMethods())+len(o.GetNotPaths()) > 0)
		note(unreadable, bad(w.operation(o, c)[:1]))
		note(nothing, len(o.GetPorts())+len(o.GetNotPorts())+len(o.GetMethods())+len(o.GetNotPaths()) == 0)
	}
	for _, x := range r.When {
		a := w.when(ap, x, c)
		switch {
		case x.GetKey() == "source.serviceAccount" || x.GetKey() == "source.trustDomain":
			note(alsoUnseen, true)
			note(unreadable, bad([]attribute{a}))
		case a.dropped:
			note(unseen, true)
		default:
			note(unreadable, bad([]attribute{a}))
		}
		note(nothing, len(x.GetValues())+len(x.GetNotValues()) == 0)
	}
	return out
}
