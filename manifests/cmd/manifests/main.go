// The manifests command writes the installation as a directory of YAML, and
// the custom resource definitions where the ambit command embeds them.
package main

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/ambit-mesh/ambit/manifests"
	"github.com/ambit-mesh/ambit/manifests/crd"
)

func main() {
	var cfg manifests.Config
	out := flag.String("out", "build/manifests", "directory to write")
	crds := flag.String("crds", "", "file of custom resource definitions (default: the one of the istio.io/api module)")
	embed := flag.String("embed", "", "write only the definitions to this file, for the ambit command to embed")
	flag.StringVar(&cfg.Repo, "image-repo", "", "prefix of image names (default localhost/ambit)")
	flag.StringVar(&cfg.Tag, "image-tag", "", "image tag (default dev)")
	flag.StringVar(&cfg.PullPolicy, "pull-policy", "", "imagePullPolicy (default IfNotPresent)")
	flag.StringVar(&cfg.TrustDomain, "trust-domain", "", "SPIFFE trust domain (default cluster.local)")
	flag.StringVar(&cfg.ClusterID, "cluster-id", "", "name of the cluster (default Kubernetes)")
	flag.StringVar(&cfg.LogLevel, "log-level", "", "log level of every part (default info)")
	flag.StringVar(&cfg.CNIConfDir, "cni-conf-dir", "", "the nodes' CNI configuration directory (default /etc/cni/net.d)")
	flag.StringVar(&cfg.CNIBinDir, "cni-bin-dir", "", "the nodes' CNI binary directory (default /opt/cni/bin)")
	flag.StringVar(&cfg.NetnsDir, "netns-dir", "", "the nodes' directory of network namespaces (default /var/run/netns)")
	flag.Parse()
	if err := write(*out, *embed, *crds, cfg); err != nil {
		fmt.Fprintln(os.Stderr, "manifests:", err)
		os.Exit(1)
	}
}

func write(out, embed, crdFile string, cfg manifests.Config) error {
	all, err := definitions(crdFile)
	if err != nil {
		return err
	}
	if embed != "" {
		picked, err := crd.Select(all, crd.Kinds)
		if err != nil {
			return err
		}
		return os.WriteFile(embed, picked, 0o644)
	}
	if err := manifests.Write(out, cfg, all); err != nil {
		return err
	}
	fmt.Printf("wrote %s; install with: kubectl apply --server-side -k %s\n", out, out)
	return nil
}

// definitions reads the file given, or the one in the module cache.
func definitions(file string) ([]byte, error) {
	if file == "" {
		if out, err := exec.Command("go", "mod", "download", "istio.io/api").CombinedOutput(); err != nil {
			return nil, fmt.Errorf("downloading istio.io/api: %w: %s", err, out)
		}
		dir, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "istio.io/api").Output()
		if err != nil {
			return nil, fmt.Errorf("finding the istio.io/api module: %w", err)
		}
		file = filepath.Join(strings.TrimSpace(string(dir)), crd.SourceFile)
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("reading custom resource definitions: %w", err)
	}
	return b, nil
}
