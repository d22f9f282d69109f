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
	embed := flag.String("embed", "", "write only the definitions to this directory, for the ambit command to embed")
	flag.StringVar(&cfg.Repo, "image-repo", "", "prefix of image names (default localhost/ambit)")
	flag.StringVar(&cfg.Tag, "image-tag", "", "image tag (default dev)")
	flag.StringVar(&cfg.PullPolicy, "pull-policy", "", "imagePullPolicy (default IfNotPresent)")
	flag.StringVar(&cfg.TrustDomain, "trust-domain", "", "SPIFFE trust domain (default cluster.local)")
	flag.StringVar(&cfg.ClusterID, "cluster-id", "", "name of the cluster (default Kubernetes)")
	flag.StringVar(&cfg.LogLevel, "log-level", "", "log level of every part (default info)")
	flag.StringVar(&cfg.CNIConfDir, "cni-conf-dir", "", "the nodes' CNI configuration directory (default /etc/cni/net.d)")
	flag.StringVar(&cfg.CNIBinDir, "cni-bin-dir", "", "the nodes' CNI binary directory (default /opt/cni/bin)")
	flag.StringVar(&cfg.NetnsDir, "netns-dir", "", "the nodes' directory of network namespaces (default /var/run/netns)")
	flag.StringVar(&cfg.TraceEndpoint, "trace-endpoint", "", "URL of an OTLP collector for spans of tunnelled connections (default none)")
	flag.StringVar(&cfg.TraceProtocol, "trace-protocol", "", "how spans are sent: grpc or http/protobuf (default grpc)")
	flag.StringVar(&cfg.TraceSample, "trace-sample", "", "share of the connections that are traced, 0 to 1 (default 0.01)")
	flag.StringVar(&cfg.GatewayAPI, "gateway-api", "", "channel of the Gateway API's definitions: standard, experimental or none (default standard)")
	flag.Parse()
	if err := write(*out, *embed, cfg); err != nil {
		fmt.Fprintln(os.Stderr, "manifests:", err)
		os.Exit(1)
	}
}

func write(out, embed string, cfg manifests.Config) error {
	if embed != "" {
		return writeEmbedded(embed)
	}
	defs, err := crd.Collect(fromModule)
	if err != nil {
		return err
	}
	if err := manifests.Write(out, cfg, defs); err != nil {
		return err
	}
	fmt.Printf("wrote %s; install with: kubectl apply --server-side -k %s\n", out, out)
	return nil
}

func writeEmbedded(dir string) error {
	for _, s := range crd.Sources() {
		picked, err := fromModule(s)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, s.Embedded), picked, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// fromModule reads the definitions in the module cache.
func fromModule(s crd.Source) ([]byte, error) {
	if out, err := exec.Command("go", "mod", "download", s.Module).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("downloading %s: %w: %s", s.Module, err, out)
	}
	dir, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", s.Module).Output()
	if err != nil {
		return nil, fmt.Errorf("finding the module %s: %w", s.Module, err)
	}
	return s.Read(strings.TrimSpace(string(dir)))
}
