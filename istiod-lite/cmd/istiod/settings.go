package main

import (
	"flag"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strings"

	"sigs.k8s.io/yaml"

	istiodlite "github.com/ambit-mesh/ambit/istiod-lite"
	"github.com/ambit-mesh/ambit/istiod-lite/ca"
	"github.com/ambit-mesh/ambit/istiod-lite/kube"
	"github.com/ambit-mesh/ambit/istiod-lite/objects"
	"github.com/ambit-mesh/ambit/istiod-lite/provision"
)

// settings are the command's flags, whose defaults come from the environment.
type settings struct {
	kubeconfig, directory, keys, tokens string
	namespace, identity                 string
	audiences, trusted, names           string
	blockedIssuers                      string
	allowLocalIssuers                   bool
	grpc, http, metrics                 string
	mesh                                objects.MeshConfig
	waypoint                            provision.Settings
	level                               slog.Level
}

func readSettings(args []string, env func(string) string) (settings, error) {
	s := settings{}
	or := func(key, otherwise string) string {
		if v := env(key); v != "" {
			return v
		}
		return otherwise
	}
	f := flag.NewFlagSet("istiod", flag.ContinueOnError)
	f.StringVar(&s.kubeconfig, "kubeconfig", env("KUBECONFIG"), "file that leads to the cluster; empty inside a pod (KUBECONFIG)")
	f.StringVar(&s.directory, "directory", "", "directory of YAML objects to serve in place of a cluster")
	f.StringVar(&s.keys, "keys", "", "with -directory: directory of the signing key")
	f.StringVar(&s.tokens, "tokens", "", "with -directory: YAML file of the callers to admit: a list of {token, namespace, serviceAccount, pod, uid, node}")
	f.StringVar(&s.namespace, "namespace", or("POD_NAMESPACE", "istio-system"), "namespace of the control plane (POD_NAMESPACE)")
	f.StringVar(&s.identity, "identity", or("POD_NAME", hostname()), "name of this replica (POD_NAME)")
	f.StringVar(&s.audiences, "token-audiences", or("TOKEN_AUDIENCES", "istio-ca"), "comma-separated audiences of which a token must have one (TOKEN_AUDIENCES)")
	f.StringVar(&s.trusted, "trusted-node-accounts", env("CA_TRUSTED_NODE_ACCOUNTS"), "comma-separated namespace/name of node proxies; empty is ztunnel beside the control plane (CA_TRUSTED_NODE_ACCOUNTS)")
	f.StringVar(&s.names, "serving-names", env("ISTIOD_CUSTOM_HOST"), "comma-separated further names in the control plane's certificate (ISTIOD_CUSTOM_HOST)")
	f.StringVar(&s.blockedIssuers, "blocked-issuers", env("BLOCKED_CIDRS_IN_JWKS_URIS"), "comma-separated CIDR blocks from which no keys of token issuers are fetched (BLOCKED_CIDRS_IN_JWKS_URIS)")
	f.BoolVar(&s.allowLocalIssuers, "allow-local-issuers", env("ALLOW_LOCAL_ISSUERS") == "true", "fetch keys of token issuers even from loopback, link-local and metadata addresses (ALLOW_LOCAL_ISSUERS)")
	f.StringVar(&s.grpc, "grpc-address", ":15012", "address of xDS and certificates")
	f.StringVar(&s.http, "http-address", ":8080", "address of readiness and debug pages; empty is none")
	f.StringVar(&s.metrics, "metrics-address", ":15014", "address of metrics; empty is none")
	f.StringVar(&s.mesh.TrustDomain, "trust-domain", or("TRUST_DOMAIN", "cluster.local"), "trust domain unless ConfigMap istio names one (TRUST_DOMAIN)")
	f.StringVar(&s.mesh.RootNamespace, "root-namespace", env("ROOT_NAMESPACE"), "namespace of mesh-wide policies unless ConfigMap istio names one; empty is -namespace (ROOT_NAMESPACE)")
	f.StringVar(&s.mesh.ClusterID, "cluster-id", or("CLUSTER_ID", "Kubernetes"), "name of this cluster (CLUSTER_ID)")
	f.StringVar(&s.mesh.ClusterDomain, "cluster-domain", or("CLUSTER_DOMAIN", "cluster.local"), "end of every service's hostname (CLUSTER_DOMAIN)")
	f.StringVar(&s.mesh.Network, "network", env("NETWORK"), "network of this cluster (NETWORK)")
	f.StringVar(&s.waypoint.Image, "waypoint-image", env("WAYPOINT_IMAGE"), "container image of waypoints; empty makes none (WAYPOINT_IMAGE)")
	f.StringVar(&s.waypoint.PullPolicy, "waypoint-pull-policy", env("WAYPOINT_PULL_POLICY"), "imagePullPolicy of waypoints; empty is IfNotPresent (WAYPOINT_PULL_POLICY)")
	f.TextVar(&s.level, "log-level", level(env("LOG_LEVEL")), "debug, info, warn or error (LOG_LEVEL)")
	if err := f.Parse(args); err != nil {
		return s, err
	}
	s.waypoint.LogLevel = strings.ToLower(s.level.String())
	if s.mesh.RootNamespace == "" {
		s.mesh.RootNamespace = s.namespace
	}
	return s, s.check(f)
}

func (s settings) check(f *flag.FlagSet) error {
	switch {
	case f.NArg() > 0 && f.Arg(0) != "discovery": // what Istio's manifests say
		return fmt.Errorf("unexpected argument %q", f.Arg(0))
	case s.directory == "" && (s.keys != "" || s.tokens != ""):
		return fmt.Errorf("-keys and -tokens go with -directory")
	case s.directory != "" && s.keys == "":
		return fmt.Errorf("-directory needs -keys")
	}
	return nil
}

// config opens what the control plane needs.
func (s settings) config(log *slog.Logger) (istiodlite.Config, error) {
	cfg := istiodlite.Config{
		Namespace: s.namespace, Identity: s.identity, Mesh: s.mesh, Waypoint: s.waypoint, Logger: log, AllowLocalIssuers: s.allowLocalIssuers,
		Audiences: list(s.audiences), ServingNames: list(s.names),
	}
	for _, a := range list(s.trusted) {
		ns, name, ok := strings.Cut(a, "/")
		if !ok || ns == "" || name == "" {
			return cfg, fmt.Errorf("trusted node account %q: want namespace/name", a)
		}
		cfg.Trusted = append(cfg.Trusted, ca.Account{Namespace: ns, Name: name})
	}
	for _, text := range list(s.blockedIssuers) {
		block, err := netip.ParsePrefix(text)
		if err != nil {
			return cfg, fmt.Errorf("blocked issuers: %w", err)
		}
		cfg.BlockedIssuers = append(cfg.BlockedIssuers, block.Masked())
	}
	if s.directory != "" {
		callers, err := readTokens(s.tokens)
		if err != nil {
			return cfg, err
		}
		cfg.Directory = &istiodlite.Directory{Path: s.directory, Keys: s.keys, Tokens: callers}
	} else {
		clients, err := kube.NewClients(s.kubeconfig, "istiod-lite")
		if err != nil {
			return cfg, err
		}
		cfg.Cluster = &clients
	}
	return cfg, s.listen(&cfg)
}

// listen opens the ports; all or none stay open.
func (s settings) listen(cfg *istiodlite.Config) error {
	var open []net.Listener
	for _, p := range []struct {
		address string
		to      *net.Listener
	}{{s.grpc, &cfg.GRPC}, {s.http, &cfg.HTTP}, {s.metrics, &cfg.Metrics}} {
		if p.address == "" {
			continue
		}
		l, err := net.Listen("tcp", p.address)
		if err != nil {
			for _, o := range open {
				o.Close()
			}
			return fmt.Errorf("listening: %w", err)
		}
		open = append(open, l)
		*p.to = l
	}
	return nil
}

func readTokens(path string) (map[string]ca.Caller, error) {
	callers := map[string]ca.Caller{}
	if path == "" {
		return callers, nil
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("reading tokens: %w", err)
	}
	var entries []struct {
		Token, Namespace, ServiceAccount, Pod, UID, Node string
	}
	if err := yaml.UnmarshalStrict(text, &entries); err != nil {
		return nil, fmt.Errorf("reading tokens: %w", err)
	}
	for i, e := range entries {
		if e.Token == "" || e.Namespace == "" || e.ServiceAccount == "" {
			return nil, fmt.Errorf("reading tokens: entry %d needs token, namespace and serviceAccount", i+1)
		}
		callers[e.Token] = ca.Caller{
			Account: ca.Account{Namespace: e.Namespace, Name: e.ServiceAccount},
			PodName: e.Pod, PodUID: e.UID, Node: e.Node,
		}
	}
	return callers, nil
}

// list splits at commas and drops what is empty.
func list(s string) []string {
	var out []string
	for part := range strings.SplitSeq(s, ",") {
		if part = strings.TrimSpace(part); part != "" {
			out = append(out, part)
		}
	}
	return out
}

// level reads the environment's log level, info if it is not one.
func level(text string) slog.Level {
	var l slog.Level
	if l.UnmarshalText([]byte(text)) != nil {
		return slog.LevelInfo
	}
	return l
}

func hostname() string {
	name, err := os.Hostname()
	if err != nil {
		return "istiod"
	}
	return name
}
