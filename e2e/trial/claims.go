package trial

import "strings"

// profiles are the conformance profiles that we claim.
var profiles = []string{"MESH-HTTP", "MESH-GRPC"}

// features are what we claim beyond the core of the profiles: all that exist
// for a mesh, and those others without which seven tests of a mesh do not run.
var features = []string{
	"MeshClusterIPMatching", "MeshConsumerRoute", "MeshHTTPRouteBackendRequestHeaderModification", "MeshHTTPRouteNamedRouteRule",
	"MeshHTTPRouteQueryParamMatching", "MeshHTTPRouteRedirectPath", "MeshHTTPRouteRedirectPort", "MeshHTTPRouteRewritePath",
	"MeshHTTPRouteSchemeRedirect",
	"HTTPRoute303RedirectStatusCode", "HTTPRoute307RedirectStatusCode", "HTTPRoute308RedirectStatusCode",
	"HTTPRouteParentRefPort", "HTTPRouteResponseHeaderModification",
}

// Claim is a test of the suite that must pass, and where a report counts it.
type Claim struct {
	Test    string
	Counted string
}

// Claims are the tests of a mesh that the suite has in v1.6.3, all of them.
func Claims() []Claim {
	const core, extended, both, grpc, nowhere = "in MESH-HTTP core", "in MESH-HTTP extended", "in both, core", "in MESH-GRPC core", "nowhere"
	return []Claim{
		{"MeshBasic", both},
		{"MeshTrafficSplit", core},
		{"MeshHTTPRouteSimpleSameNamespace", core},
		{"MeshHTTPRouteMatching", core},
		{"MeshHTTPRouteWeight", core},
		{"MeshHTTPRouteRequestHeaderModifier", core},
		{"MeshHTTPRouteRedirectHostAndStatus", core},
		{"MeshGRPCRouteWeight", grpc},
		{"MeshHTTPRouteNamedRule", extended},
		{"MeshHTTPRouteQueryParamMatching", extended},
		{"MeshHTTPRouteRedirectPath", extended},
		{"MeshHTTPRouteRedirectPort", extended},
		{"MeshHTTPRouteSchemeRedirect", extended},
		{"MeshHTTPRouteRewritePath", extended},
		{"MeshHTTPRouteBackendRequestHeaderModifier", extended},
		{"MeshHTTPRoute303Redirect", nowhere},
		{"MeshHTTPRoute307Redirect", nowhere},
		{"MeshHTTPRoute308Redirect", nowhere},
		{"MeshFrontend", nowhere},
		{"MeshFrontendHostname", nowhere},
		{"MeshPorts", nowhere},
		{"MeshConsumerRoute", nowhere},
	}
}

// Mode is a way to run the suite.
type Mode struct {
	Name string
	// GatewayAPI is the channel of the cluster.
	GatewayAPI string
	// Labels of the suite's namespaces.
	Labels []string
	// Explicit asks for a waypoint between the suite's set-up and its tests.
	Explicit bool
	// Inferred asks the suite to read what we claim in the status of the XMesh.
	Inferred bool
	// Beyond names the cases of our own that this mode runs too.
	Beyond []string
}

// MeshName is the XMesh that the control plane makes.
const MeshName = "ambit"

const (
	ambient      = "istio.io/dataplane-mode=ambient"
	autoWaypoint = "istio.io/use-waypoint=auto"
)

// Modes lists every mode.
func Modes() []Mode {
	return []Mode{
		{Name: "standard", GatewayAPI: "standard", Labels: []string{ambient}, Explicit: true, Beyond: beyond()},
		{Name: "auto", GatewayAPI: "standard", Labels: []string{ambient, autoWaypoint}},
		{Name: "experimental", GatewayAPI: "experimental", Labels: []string{ambient, autoWaypoint}, Inferred: true, Beyond: []string{"BeyondHTTPRouteRetryCounts", "BeyondRetryBudget", "BeyondHTTPRouteSession"}},
	}
}

// beyond are our own cases that the standard channel can have.
func beyond() []string {
	return []string{
		"BeyondGRPCRouteRequestHeaderModifier", "BeyondHTTPRouteRedirectLocation", "BeyondHTTPRouteRewriteArrives", "BeyondHTTPRouteMethods",
		"BeyondHTTPRouteBackends", "BeyondHTTPRouteTimeouts", "BeyondHTTPRouteMirrorCounts", "BeyondHTTPRouteCORS", "BeyondHTTPRouteMerge",
		"BeyondProducerAndConsumerRoutes", "BeyondRouteConflict", "BeyondRouteStatus", "BeyondRouteChanges",
		"BeyondGRPCRouteMethods", "BeyondTCPRoute", "BeyondTLSRoute",
	}
}

// args are the suite's arguments for a mode.
func (m Mode) args(version string) []string {
	args := []string{
		"-conformance-profiles=" + strings.Join(profiles, ","), "-namespace-labels=" + strings.Join(m.Labels, ","),
		"-organization=ambit-mesh", "-project=ambit", "-url=https://github.com/ambit-mesh/ambit", "-contact=@ambit-mesh/maintainers",
		"-version=" + version,
		// The namespaces are removed by us, once the logs of what ran there are kept.
		"-cleanup-base-resources=false",
	}
	if m.Explicit {
		args = append(args, "-explicit-waypoint")
	}
	if m.Inferred {
		return append(args, "-gateway-class=", "-mesh-name="+MeshName)
	}
	return append(args, "-supported-features="+strings.Join(features, ","))
}
