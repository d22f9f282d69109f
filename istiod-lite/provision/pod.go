package provision

import (
	"cmp"
	"maps"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/ambit-mesh/ambit/internal/hbone"
)

// The ports of a waypoint beside its tunnel's.
const (
	metricsPort = 15020
	readyPort   = 15021
)

// The end of a pod: it is told to every proxy before the waypoint itself hears
// of it, so that no new connection arrives when it stops to accept; then what is
// under way may end.
const (
	withdrawal = 5
	draining   = 30
)

// Where a waypoint finds what proves it and whom it trusts; the same places as
// ztunnel's.
const (
	rootDir, rootName   = "/var/run/secrets/istio", "istio-ca-root-cert"
	tokenDir, tokenName = "/var/run/secrets/tokens", "istio-token"
)

func (w waypoint) pod() corev1.PodTemplateSpec {
	meta := w.meta()
	labels, annotations := meta.Labels, meta.Annotations
	maps.Copy(labels, map[string]string{
		// What it receives and sends are tunnels of its own.
		"istio.io/dataplane-mode":             "none",
		"sidecar.istio.io/inject":             "false",
		"service.istio.io/canonical-name":     w.gateway.Name,
		"service.istio.io/canonical-revision": "latest",
	})
	maps.Copy(annotations, map[string]string{
		"prometheus.io/scrape": "true", "prometheus.io/port": strconv.Itoa(metricsPort), "prometheus.io/path": "/metrics",
	})
	yes, no, user, grace := true, false, int64(1337), int64(withdrawal+draining+5)
	return corev1.PodTemplateSpec{
		ObjectMeta: metav1.ObjectMeta{Labels: labels, Annotations: annotations},
		Spec: corev1.PodSpec{
			ServiceAccountName: w.gateway.Name, AutomountServiceAccountToken: &no,
			TerminationGracePeriodSeconds: &grace,
			SecurityContext: &corev1.PodSecurityContext{
				RunAsNonRoot: &yes, RunAsUser: &user, RunAsGroup: &user,
				SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
			},
			Containers: []corev1.Container{w.container()},
			Volumes:    volumes(),
		},
	}
}

func (w waypoint) container() corev1.Container {
	yes, no := true, false
	return corev1.Container{
		Name: "istio-proxy", Image: w.settings.Image, Args: []string{"proxy", "waypoint"},
		ImagePullPolicy: corev1.PullPolicy(cmp.Or(w.settings.PullPolicy, string(corev1.PullIfNotPresent))),
		Env:             w.environment(),
		Ports: []corev1.ContainerPort{
			{Name: "hbone", ContainerPort: hbone.Port, Protocol: corev1.ProtocolTCP},
			{Name: "http-metrics", ContainerPort: metricsPort, Protocol: corev1.ProtocolTCP},
			{Name: "http-ready", ContainerPort: readyPort, Protocol: corev1.ProtocolTCP},
		},
		ReadinessProbe: &corev1.Probe{
			ProbeHandler:  corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: "/healthz/ready", Port: intstr.FromString("http-ready"), Scheme: corev1.URISchemeHTTP}},
			PeriodSeconds: 1, FailureThreshold: 3,
		},
		Lifecycle: &corev1.Lifecycle{PreStop: &corev1.LifecycleHandler{Sleep: &corev1.SleepAction{Seconds: withdrawal}}},
		Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{
			corev1.ResourceCPU: resource.MustParse("100m"), corev1.ResourceMemory: resource.MustParse("128Mi"),
		}},
		// It needs nothing but the network.
		SecurityContext: &corev1.SecurityContext{
			AllowPrivilegeEscalation: &no, Privileged: &no, ReadOnlyRootFilesystem: &yes, RunAsNonRoot: &yes,
			Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
		},
		VolumeMounts: []corev1.VolumeMount{
			{Name: "istiod-ca-cert", MountPath: rootDir, ReadOnly: true},
			{Name: tokenName, MountPath: tokenDir, ReadOnly: true},
			{Name: "tmp", MountPath: "/tmp"},
		},
	}
}

// environment is read by waypoint/cmd/waypoint.
func (w waypoint) environment() []corev1.EnvVar {
	istiod := "https://istiod." + cmp.Or(w.settings.Namespace, "istio-system") + ".svc:15012"
	root := rootDir + "/root-cert.pem"
	out := []corev1.EnvVar{
		{Name: "GATEWAY_NAME", Value: w.gateway.Name},
		{Name: "XDS_ADDRESS", Value: istiod}, {Name: "CA_ADDRESS", Value: istiod},
		{Name: "XDS_ROOT_CA", Value: root}, {Name: "CA_ROOT_CA", Value: root},
		{Name: "AUTH_TOKEN", Value: tokenDir + "/" + tokenName},
		{Name: "CLUSTER_ID", Value: w.mesh.ClusterID}, {Name: "TRUST_DOMAIN", Value: w.mesh.TrustDomain},
		{Name: "CLUSTER_DOMAIN", Value: w.mesh.ClusterDomain}, {Name: "NETWORK", Value: w.mesh.Network},
		{Name: "LOG_LEVEL", Value: cmp.Or(w.settings.LogLevel, "info")}, {Name: "LOG_FORMAT", Value: "json"},
		{Name: "TERMINATION_GRACE_PERIOD_SECONDS", Value: strconv.Itoa(draining)},
	}
	if t := w.mesh.Tracing; t.Endpoint != "" {
		protocol := "grpc"
		if t.HTTP {
			protocol = "http/protobuf"
		}
		out = append(out, corev1.EnvVar{Name: "OTEL_EXPORTER_OTLP_ENDPOINT", Value: t.Endpoint},
			corev1.EnvVar{Name: "OTEL_EXPORTER_OTLP_PROTOCOL", Value: protocol},
			corev1.EnvVar{Name: "OTEL_TRACES_SAMPLER_ARG", Value: strconv.FormatFloat(t.Sample, 'g', -1, 64)})
	}
	for _, f := range [][2]string{
		{"POD_NAME", "metadata.name"}, {"POD_NAMESPACE", "metadata.namespace"}, {"INSTANCE_IP", "status.podIP"},
		{"NODE_NAME", "spec.nodeName"}, {"SERVICE_ACCOUNT", "spec.serviceAccountName"},
	} {
		out = append(out, corev1.EnvVar{Name: f[0], ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{APIVersion: "v1", FieldPath: f[1]}}})
	}
	return out
}

func volumes() []corev1.Volume {
	seconds := int64(43200)
	return []corev1.Volume{
		{Name: tokenName, VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{{
			// Good for the control plane only; the API server refuses it.
			ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Audience: "istio-ca", ExpirationSeconds: &seconds, Path: tokenName},
		}}}}},
		{Name: "istiod-ca-cert", VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{
			LocalObjectReference: corev1.LocalObjectReference{Name: rootName},
		}}},
		{Name: "tmp", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}},
	}
}
