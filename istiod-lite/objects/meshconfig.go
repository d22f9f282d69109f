package objects

import (
	"fmt"

	"sigs.k8s.io/yaml"

	"github.com/ambit-mesh/ambit/internal/mesh"
)

// MeshConfig is the mesh-wide settings: the subset of Istio's MeshConfig that
// the rules read, and where this control plane stands.
type MeshConfig struct {
	// Version is that of the ConfigMap it was read from; empty if from none.
	Version string
	// TrustDomain of every identity; empty means cluster.local.
	TrustDomain string
	// TrustDomainAliases are other trust domains that policies may name and
	// mean this one by.
	TrustDomainAliases []string
	// RootNamespace holds the mesh-wide policies; empty means istio-system.
	RootNamespace string
	// ClusterID begins every workload's name; empty means Kubernetes.
	ClusterID string
	// ClusterDomain ends every service's hostname; empty means cluster.local.
	ClusterDomain string
	// Network of this cluster; empty is a network like any other.
	Network string
	// WaypointMissing is what becomes of connections whose waypoint has never
	// been there: refused after a wait, or with WaypointMissingDirect let past it.
	WaypointMissing string
	// UnseenDeny is what becomes at L4 of a DENY that asks only what L4 cannot see:
	// it denies, or with UnseenDenyIgnore has no effect.
	UnseenDeny string
	// RegistryOnly closes to the mesh's workloads what the mesh does not know.
	RegistryOnly bool
	// Transport is over what tunnels of the mesh are made where neither pod nor
	// namespace says.
	Transport mesh.Transport
	// ServiceExportTo is what exportTo of a ServiceEntry is where it has none; empty
	// means everywhere.
	ServiceExportTo []string
	// EntryVisibility bounds it.
	EntryVisibility EntryVisibility
	// Providers are those of extensionProviders that authorize requests.
	Providers []Provider
	// Tracing is what defaultProviders.tracing chooses of extensionProviders, with
	// defaultConfig.tracing.sampling.
	Tracing Tracing
}

// WaypointMissingDirect lets connections pass by a waypoint that is named and has
// never been ready, as Istio does.
const WaypointMissingDirect = "direct"

// UnseenDenyIgnore makes a DENY do at L4 what Istio's does.
const UnseenDenyIgnore = "ignore"

// WithDefaults fills what is empty.
func (m MeshConfig) WithDefaults() MeshConfig {
	for _, d := range []struct {
		field *string
		value string
	}{
		{&m.TrustDomain, "cluster.local"},
		{&m.RootNamespace, "istio-system"},
		{&m.ClusterID, "Kubernetes"},
		{&m.ClusterDomain, "cluster.local"},
	} {
		if *d.field == "" {
			*d.field = d.value
		}
	}
	return m
}

// ParseMesh reads the text under key "mesh" of ConfigMap "istio" over the
// settings in base. Settings that this mesh does not have are passed over, as
// the text is shared with Istio's other parts.
func ParseMesh(text string, base MeshConfig) (MeshConfig, error) {
	var read struct {
		TrustDomain           *string  `json:"trustDomain"`
		TrustDomainAliases    []string `json:"trustDomainAliases"`
		RootNamespace         *string  `json:"rootNamespace"`
		OutboundTrafficPolicy struct {
			Mode *string `json:"mode"`
		} `json:"outboundTrafficPolicy"`
		DefaultServiceExportTo []string         `json:"defaultServiceExportTo"`
		ServiceEntryVisibility *entryVisibility `json:"serviceEntryVisibility"`
		// Not Istio's: a setting of this mesh alone.
		WaypointMissing    *string             `json:"waypointMissing"`
		UnseenDeny         *string             `json:"unseenDeny"`
		TunnelTransport    *string             `json:"tunnelTransport"`
		ExtensionProviders []extensionProvider `json:"extensionProviders"`
		DefaultProviders   struct {
			Tracing []string `json:"tracing"`
		} `json:"defaultProviders"`
		DefaultConfig struct {
			Tracing struct {
				Sampling *float64 `json:"sampling"`
			} `json:"tracing"`
		} `json:"defaultConfig"`
	}
	if err := yaml.Unmarshal([]byte(text), &read); err != nil {
		return base, fmt.Errorf("parsing mesh settings: %w", err)
	}
	if read.TrustDomain != nil {
		base.TrustDomain = *read.TrustDomain
	}
	if read.TrustDomainAliases != nil {
		base.TrustDomainAliases = read.TrustDomainAliases
	}
	if read.RootNamespace != nil {
		base.RootNamespace = *read.RootNamespace
	}
	if read.UnseenDeny != nil {
		base.UnseenDeny = *read.UnseenDeny
	}
	if read.WaypointMissing != nil {
		base.WaypointMissing = *read.WaypointMissing
	}
	if name := read.TunnelTransport; name != nil {
		t, ok := mesh.ParseTransport(*name)
		if !ok {
			return base, fmt.Errorf("tunnelTransport %q is none of auto, h2 and h3", *name)
		}
		base.Transport = t
	}
	if mode := read.OutboundTrafficPolicy.Mode; mode != nil {
		switch *mode {
		case "REGISTRY_ONLY", "ALLOW_ANY":
			base.RegistryOnly = *mode == "REGISTRY_ONLY"
		default:
			return base, fmt.Errorf("outboundTrafficPolicy.mode %q is neither ALLOW_ANY nor REGISTRY_ONLY", *mode)
		}
	}
	if read.DefaultServiceExportTo != nil {
		base.ServiceExportTo = read.DefaultServiceExportTo
	}
	if read.ServiceEntryVisibility != nil {
		bound, err := read.ServiceEntryVisibility.read()
		if err != nil {
			return base, err
		}
		base.EntryVisibility = bound
	}
	if read.ExtensionProviders != nil {
		base.Providers = nil
		for _, p := range read.ExtensionProviders {
			base.Providers = append(base.Providers, p.read()...)
		}
	}
	if read.DefaultProviders.Tracing != nil {
		base.Tracing = tracing(read.ExtensionProviders, read.DefaultProviders.Tracing, read.DefaultConfig.Tracing.Sampling)
	}
	return base, nil
}
