// Package manifests renders the installation: the YAML that puts the mesh into
// a cluster. It owns the least privileges of every part, each with its reason
// in a comment of the YAML; it refuses to talk to a cluster. Called by the
// manifests command (`make manifests`) and by `ambit install`.
package manifests

import (
	"bytes"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"text/template"

	"sigs.k8s.io/yaml"

	"github.com/ambit-mesh/ambit/manifests/crd"
)

// Config is what may differ between installations. The zero value of every
// field stands for the default named beside it.
type Config struct {
	// Repo is the prefix of image names: "localhost/ambit".
	Repo string
	// Tag is the image tag: "dev".
	Tag string
	// PullPolicy is the imagePullPolicy: "IfNotPresent".
	PullPolicy string
	// TrustDomain is the SPIFFE trust domain: "cluster.local".
	TrustDomain string
	// ClusterID names the cluster in identities of workloads and telemetry:
	// "Kubernetes".
	ClusterID string
	// LogLevel of every part: "info".
	LogLevel string
	// CNIConfDir and CNIBinDir are the node's CNI directories:
	// "/etc/cni/net.d" and "/opt/cni/bin".
	CNIConfDir, CNIBinDir string
	// NetnsDir is where the node keeps pods' network namespaces:
	// "/var/run/netns".
	NetnsDir string
	// TraceEndpoint is the URL of a collector of OTLP to which node proxies send a
	// span for each tunnelled connection that is traced: none. TraceProtocol is
	// "grpc", or "http/protobuf"; TraceSample the share of connections, "0.01".
	TraceEndpoint, TraceProtocol, TraceSample string
	// GatewayAPI is the channel of the Gateway API whose definitions are
	// installed: "standard"; or "experimental", or "none".
	GatewayAPI string
}

func (c Config) withDefaults() Config {
	for field, value := range map[*string]string{
		&c.Repo:          "localhost/ambit",
		&c.Tag:           "dev",
		&c.PullPolicy:    "IfNotPresent",
		&c.TrustDomain:   "cluster.local",
		&c.ClusterID:     "Kubernetes",
		&c.LogLevel:      "info",
		&c.CNIConfDir:    "/etc/cni/net.d",
		&c.CNIBinDir:     "/opt/cni/bin",
		&c.NetnsDir:      "/var/run/netns",
		&c.GatewayAPI:    Standard,
		&c.TraceProtocol: "grpc",
		&c.TraceSample:   "0.01",
	} {
		if *field == "" {
			*field = value
		}
	}
	c.Repo = strings.TrimSuffix(c.Repo, "/")
	return c
}

// The values of Config.GatewayAPI.
const (
	Standard     = "standard"
	Experimental = "experimental"
	None         = "none"
)

// Namespace is where everything is installed. It is not configurable: upstream
// parts find istiod and ztunnel by this name.
const Namespace = "istio-system"

// File is one rendered file.
type File struct {
	Name string
	Body []byte
}

// The files in the order in which they are best applied.
var order = []string{"namespace.yaml", "crds.yaml", GatewayAPIFile, "istiod.yaml", "cni.yaml", "ztunnel.yaml"}

// GatewayAPIFile has the definitions of the Gateway API, which may belong to
// somebody else on a cluster; ambit install looks before it applies them.
const GatewayAPIFile = "gateway-api.yaml"

//go:embed yaml
var templates embed.FS

// Render gives the files in the order in which they are best applied, last the
// kustomization that names them.
func Render(cfg Config, defs crd.Definitions) ([]File, error) {
	cfg = cfg.withDefaults()
	var files []File
	for _, name := range order {
		body, err := renderFile(name, cfg, defs)
		if err != nil {
			return nil, err
		}
		if body != nil {
			files = append(files, File{name, body})
		}
	}
	return append(files, kustomization(files)), nil
}

// renderFile gives one file, nil for one that is not wanted.
func renderFile(name string, cfg Config, defs crd.Definitions) ([]byte, error) {
	switch name {
	case "crds.yaml":
		return append([]byte{}, defs.Istio...), nil
	case GatewayAPIFile:
		return gatewayAPI(cfg.GatewayAPI, defs)
	}
	return renderOne(name, cfg)
}

func gatewayAPI(channel string, defs crd.Definitions) ([]byte, error) {
	switch channel {
	case Standard:
		return append([]byte{}, defs.Standard...), nil
	case Experimental:
		return append([]byte{}, defs.Experimental...), nil
	case None:
		return nil, nil
	}
	return nil, fmt.Errorf("channel of the Gateway API %q: want %s, %s or %s", channel, Standard, Experimental, None)
}

func renderOne(name string, cfg Config) ([]byte, error) {
	t, err := template.New(name).Option("missingkey=error").ParseFS(templates, "yaml/"+name)
	if err != nil {
		return nil, fmt.Errorf("parsing %s: %w", name, err)
	}
	var b bytes.Buffer
	if err := t.Execute(&b, cfg); err != nil {
		return nil, fmt.Errorf("rendering %s: %w", name, err)
	}
	return b.Bytes(), nil
}

// kustomizationFile names the others.
const kustomizationFile = "kustomization.yaml"

func kustomization(files []File) File {
	var b strings.Builder
	b.WriteString("# Install with: kubectl apply --server-side -k <this directory>\n")
	b.WriteString("apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources:\n")
	for _, f := range files {
		b.WriteString("- " + f.Name + "\n")
	}
	return File{kustomizationFile, []byte(b.String())}
}

// Write puts the rendered installation into dir, which it makes. A file of the
// Gateway API that an earlier call wrote and this one does not goes.
func Write(dir string, cfg Config, defs crd.Definitions) error {
	files, err := Render(cfg, defs)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("making the output directory: %w", err)
	}
	if err := os.Remove(filepath.Join(dir, GatewayAPIFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("removing an old manifest: %w", err)
	}
	for _, f := range files {
		if err := os.WriteFile(filepath.Join(dir, f.Name), f.Body, 0o644); err != nil {
			return fmt.Errorf("writing a manifest: %w", err)
		}
	}
	return nil
}

// Read loads a directory that Write wrote, in the order in which it is best
// applied.
func Read(dir string) ([]File, error) {
	const hint = "reading rendered manifests (write them with `make manifests`): %w"
	body, err := os.ReadFile(filepath.Join(dir, kustomizationFile))
	if err != nil {
		return nil, fmt.Errorf(hint, err)
	}
	var list struct{ Resources []string }
	if err := yaml.Unmarshal(body, &list); err != nil {
		return nil, fmt.Errorf(hint, err)
	}
	var files []File
	for _, name := range list.Resources {
		body, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			return nil, fmt.Errorf(hint, err)
		}
		files = append(files, File{name, body})
	}
	return files, nil
}
