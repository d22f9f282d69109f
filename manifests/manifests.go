// Package manifests renders the installation: the YAML that puts the mesh into
// a cluster. It owns the least privileges of every part, each with its reason
// in a comment of the YAML; it refuses to talk to a cluster. Called by the
// manifests command (`make manifests`) and by `ambit install`.
package manifests

import (
	"bytes"
	"embed"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"text/template"

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
}

func (c Config) withDefaults() Config {
	for field, value := range map[*string]string{
		&c.Repo:        "localhost/ambit",
		&c.Tag:         "dev",
		&c.PullPolicy:  "IfNotPresent",
		&c.TrustDomain: "cluster.local",
		&c.ClusterID:   "Kubernetes",
		&c.LogLevel:    "info",
		&c.CNIConfDir:  "/etc/cni/net.d",
		&c.CNIBinDir:   "/opt/cni/bin",
		&c.NetnsDir:    "/var/run/netns",
	} {
		if *field == "" {
			*field = value
		}
	}
	c.Repo = strings.TrimSuffix(c.Repo, "/")
	return c
}

// Namespace is where everything is installed. It is not configurable: upstream
// parts find istiod and ztunnel by this name.
const Namespace = "istio-system"

// File is one rendered file.
type File struct {
	Name string
	Body []byte
}

// The files in the order in which they are best applied.
var order = []string{"namespace.yaml", "crds.yaml", "istiod.yaml", "cni.yaml", "ztunnel.yaml"}

//go:embed yaml
var templates embed.FS

// Render gives the files in the order in which they are best applied, last the
// kustomization that names them. crds are the custom resource definitions.
func Render(cfg Config, crds []byte) ([]File, error) {
	cfg = cfg.withDefaults()
	var files []File
	for _, name := range order {
		if name == "crds.yaml" {
			files = append(files, File{name, crds})
			continue
		}
		body, err := renderOne(name, cfg)
		if err != nil {
			return nil, err
		}
		files = append(files, File{name, body})
	}
	return append(files, kustomization()), nil
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

func kustomization() File {
	var b strings.Builder
	b.WriteString("# Install with: kubectl apply --server-side -k <this directory>\n")
	b.WriteString("apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources:\n")
	for _, name := range order {
		b.WriteString("- " + name + "\n")
	}
	return File{"kustomization.yaml", []byte(b.String())}
}

// Write puts the rendered installation into dir, which it makes.
func Write(dir string, cfg Config, allCRDs []byte) error {
	crds, err := crd.Select(allCRDs, crd.Kinds)
	if err != nil {
		return err
	}
	files, err := Render(cfg, crds)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("making the output directory: %w", err)
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
	var files []File
	for _, name := range order {
		body, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			return nil, fmt.Errorf("reading rendered manifests (write them with `make manifests`): %w", err)
		}
		files = append(files, File{name, body})
	}
	return files, nil
}
