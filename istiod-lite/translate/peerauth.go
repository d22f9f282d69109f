package translate

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	api "istio.io/api/security/v1beta1"
	security "istio.io/client-go/pkg/apis/security/v1"

	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/istiod-lite/objects"
)

// Names of the policies that peer authentication becomes; they are Istio's.
const (
	staticStrict    = "istio_converted_static_strict"
	convertedPrefix = "converted_peer_authentication_"
)

type mtlsMode = api.PeerAuthentication_MutualTLS_Mode

const (
	modeUnset      = api.PeerAuthentication_MutualTLS_UNSET
	modeDisable    = api.PeerAuthentication_MutualTLS_DISABLE
	modePermissive = api.PeerAuthentication_MutualTLS_PERMISSIVE
	modeStrict     = api.PeerAuthentication_MutualTLS_STRICT
)

// modeOf reads a mode. One of a later API is taken for the strict one.
func modeOf(m *api.PeerAuthentication_MutualTLS) mtlsMode {
	switch mode := m.GetMode(); mode {
	case modeUnset, modeDisable, modePermissive:
		return mode
	}
	return modeStrict
}

// hasSelector tells a workload's PeerAuthentication from a namespace's.
func hasSelector(pa *security.PeerAuthentication) bool {
	return len(pa.Spec.GetSelector().GetMatchLabels()) > 0
}

// older orders the PeerAuthentications of one level: the oldest counts.
func older(a, b *security.PeerAuthentication) int {
	if d := a.CreationTimestamp.Compare(b.CreationTimestamp.Time); d != 0 {
		return d
	}
	return strings.Compare(a.Name, b.Name)
}

// strictPolicyKey names the policy of every strict workload.
func strictPolicyKey(m objects.MeshConfig) mesh.PolicyKey {
	return mesh.PolicyKey{Namespace: m.RootNamespace, Name: staticStrict}
}

// plaintext matches a peer without identity.
func plaintext() mesh.Clause {
	return mesh.Clause{Matches: []mesh.Match{{NotPrincipals: []mesh.StringMatch{{Op: mesh.OpPresence}}}}}
}

func strictPolicy(m objects.MeshConfig) *mesh.Policy {
	return &mesh.Policy{
		Key: strictPolicyKey(m), Scope: mesh.ScopeSelector, Action: mesh.ActionDeny,
		Rules: []mesh.Rule{{Clauses: []mesh.Clause{plaintext()}}},
	}
}

// peering is what a workload's PeerAuthentication comes to, given whether its
// namespace is strict (controlplane spec, appendix C).
type peering struct {
	// strict attaches the policy of every strict workload.
	strict bool
	// own is a policy of its own, nil if none is needed.
	own *mesh.Policy
}

func peeringOf(pa *security.PeerAuthentication, namespaceStrict bool) peering {
	mode := modeOf(pa.Spec.GetMtls())
	inherits := mode == modeUnset
	if mode == modeStrict || inherits && namespaceStrict {
		return strictPeering(pa, inherits)
	}
	var rules []mesh.Rule
	for _, p := range ports(pa, func(m mtlsMode) bool { return m == modeStrict }) {
		rules = append(rules, mesh.Rule{Clauses: []mesh.Clause{
			plaintext(), {Matches: []mesh.Match{{DestinationPorts: []uint16{p}}}},
		}})
	}
	return peering{own: peerPolicy(pa, rules)}
}

// strictPeering excepts ports. A port that is disabled while the mode itself
// is inherited is not excepted: upstream does not attach that exception
// either, and it is the closed side.
func strictPeering(pa *security.PeerAuthentication, inherits bool) peering {
	excepted := ports(pa, func(m mtlsMode) bool { return m == modePermissive || m == modeDisable && !inherits })
	if len(excepted) == 0 {
		return peering{strict: true}
	}
	rule := mesh.Rule{Clauses: []mesh.Clause{plaintext()}}
	for _, p := range excepted {
		rule.Clauses = append(rule.Clauses, mesh.Clause{Matches: []mesh.Match{{NotDestinationPorts: []uint16{p}}}})
	}
	return peering{own: peerPolicy(pa, []mesh.Rule{rule})}
}

func peerPolicy(pa *security.PeerAuthentication, rules []mesh.Rule) *mesh.Policy {
	if len(rules) == 0 {
		return nil
	}
	return &mesh.Policy{
		Key:   mesh.PolicyKey{Namespace: pa.Namespace, Name: convertedPrefix + pa.Name},
		Scope: mesh.ScopeSelector, Action: mesh.ActionDeny, Rules: rules,
	}
}

// ports are the valid ports whose mode is wanted, ascending.
func ports(pa *security.PeerAuthentication, want func(mtlsMode) bool) []uint16 {
	var out []uint16
	for _, p := range slices.Sorted(maps.Keys(pa.Spec.GetPortLevelMtls())) {
		if p > 0 && p <= 65535 && want(modeOf(pa.Spec.GetPortLevelMtls()[p])) {
			out = append(out, uint16(p))
		}
	}
	return out
}

// peerCondition tells the author what of a PeerAuthentication has no effect;
// nil if all of it has.
func peerCondition(m objects.MeshConfig, pa *security.PeerAuthentication) *Condition {
	var notes []string
	if hasSelector(pa) && pa.Namespace == m.RootNamespace {
		notes = append(notes, "A PeerAuthentication with a selector has no effect in the root namespace.")
	}
	if !hasSelector(pa) && len(pa.Spec.GetPortLevelMtls()) > 0 {
		notes = append(notes, "portLevelMtls has no effect without a selector.")
	}
	for _, p := range slices.Sorted(maps.Keys(pa.Spec.GetPortLevelMtls())) {
		if p == 0 || p > 65535 {
			notes = append(notes, fmt.Sprintf("Port %d is not a port.", p))
		}
	}
	if len(notes) == 0 {
		return nil
	}
	return &Condition{
		Object:     objects.Ref{Kind: objects.KindPeerAuthentication, Key: objects.Key{Namespace: pa.Namespace, Name: pa.Name}},
		Generation: pa.Generation,
		Type:       TypeZtunnelAccepted,
		Reason:     ReasonUnsupportedValue,
		Message:    strings.Join(notes, " "),
	}
}
