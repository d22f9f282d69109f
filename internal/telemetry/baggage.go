package telemetry

import (
	"strings"

	"github.com/ambit-mesh/ambit/internal/mesh"
)

// The keys of baggage (dataplane spec 1.3).
const (
	baggageCluster   = "k8s.cluster.name"
	baggageNamespace = "k8s.namespace.name"
	baggageService   = "service.name"
	baggageRevision  = "service.version"
	baggageRegion    = "cloud.region"
	baggageZone      = "cloud.availability_zone"
)

// baggageOwner are the keys whose value is the workload's name, by type.
var baggageOwner = map[string]mesh.WorkloadType{
	"k8s.deployment.name": mesh.WorkloadDeployment,
	"k8s.cronjob.name":    mesh.WorkloadCronJob,
	"k8s.pod.name":        mesh.WorkloadPod,
	"k8s.job.name":        mesh.WorkloadJob,
}

// maxBaggage is the most of a peer's baggage that is looked at.
const maxBaggage = 4096

// Baggage describes w to its peer.
func Baggage(w *mesh.Workload) string {
	var b strings.Builder
	add := func(key, value string) {
		if value == "" {
			return
		}
		if b.Len() > 0 {
			b.WriteByte(',')
		}
		b.WriteString(key)
		b.WriteByte('=')
		b.WriteString(value)
	}
	add(baggageCluster, w.ClusterID)
	add(baggageNamespace, w.Namespace)
	add("k8s."+w.Type.String()+".name", w.OwnerName)
	add(baggageService, w.CanonicalName)
	add(baggageRevision, w.CanonicalRevision)
	add(baggageRegion, w.Locality.Region)
	add(baggageZone, w.Locality.Zone)
	return b.String()
}

// ParseBaggage is a peer's description of itself, nil if it says nothing. It
// is for labels only and never for a decision: the peer may lie.
func ParseBaggage(s string) *mesh.Workload {
	if s == "" || len(s) > maxBaggage {
		return nil
	}
	var w mesh.Workload
	for pair := range strings.SplitSeq(s, ",") {
		key, value, _ := strings.Cut(strings.TrimSpace(pair), "=")
		switch key {
		case baggageCluster:
			w.ClusterID = value
		case baggageNamespace:
			w.Namespace = value
		case baggageService:
			w.CanonicalName = value
		case baggageRevision:
			w.CanonicalRevision = value
		case baggageRegion:
			w.Locality.Region = value
		case baggageZone:
			w.Locality.Zone = value
		default:
			if kind, ok := baggageOwner[key]; ok {
				w.Type, w.OwnerName = kind, value
			}
		}
	}
	if w.Namespace == "" && w.OwnerName == "" && w.CanonicalName == "" {
		return nil
	}
	return &w
}
