package command

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/ambit-mesh/ambit/ambit/install"
	"github.com/ambit-mesh/ambit/manifests"
	"github.com/ambit-mesh/ambit/manifests/crd"
)

// source is where the manifests come from.
type source struct {
	dir string
	cfg manifests.Config
}

func (s *source) flags(c *cobra.Command) {
	f := c.Flags()
	f.StringVar(&s.dir, "manifests", "", "directory written by `make manifests` (default: render what is built in)")
	f.StringVar(&s.cfg.Repo, "image-repo", "", "prefix of image names (default localhost/ambit)")
	f.StringVar(&s.cfg.Tag, "image-tag", "", "image tag (default dev)")
	f.StringVar(&s.cfg.PullPolicy, "pull-policy", "", "imagePullPolicy (default IfNotPresent)")
	f.StringVar(&s.cfg.TrustDomain, "trust-domain", "", "SPIFFE trust domain (default cluster.local)")
	f.StringVar(&s.cfg.ClusterID, "cluster-id", "", "name of the cluster (default Kubernetes)")
	f.StringVar(&s.cfg.LogLevel, "log-level", "", "log level of every part (default info)")
	f.StringVar(&s.cfg.CNIConfDir, "cni-conf-dir", "", "the nodes' CNI configuration directory (default /etc/cni/net.d)")
	f.StringVar(&s.cfg.CNIBinDir, "cni-bin-dir", "", "the nodes' CNI binary directory (default /opt/cni/bin)")
	f.StringVar(&s.cfg.NetnsDir, "netns-dir", "", "the nodes' directory of network namespaces (default /var/run/netns)")
	f.StringVar(&s.cfg.TraceEndpoint, "trace-endpoint", "", "URL of an OTLP collector for spans of tunnelled connections (default none)")
	f.StringVar(&s.cfg.TraceProtocol, "trace-protocol", "", "how spans are sent: grpc or http/protobuf (default grpc)")
	f.StringVar(&s.cfg.TraceSample, "trace-sample", "", "share of the connections that are traced, 0 to 1 (default 0.01)")
	f.StringVar(&s.cfg.GatewayAPI, "gateway-api", "", "channel of the Gateway API's definitions: standard, experimental or none (default standard)")
}

// files are the manifests, rendered or read.
func (s *source) files() ([]manifests.File, error) {
	if s.dir == "" {
		defs, err := crd.Embedded()
		if err != nil {
			return nil, err
		}
		return manifests.Render(s.cfg, defs)
	}
	if s.cfg != (manifests.Config{}) {
		return nil, usageError{fmt.Errorf("--manifests holds rendered files; give the other settings to `make manifests` instead")}
	}
	return manifests.Read(s.dir)
}

func (g *global) installCommand() *cobra.Command {
	var from source
	var dryRun, noWait bool
	timeout := 3 * time.Minute
	c := &cobra.Command{
		Use:   "install",
		Short: "Put the mesh into the cluster, or bring it up to date",
		Long: `install applies the manifests on the server's side and waits until every part
is ready. It may be repeated: it changes what differs. Nothing joins the mesh
until a namespace or a pod is labelled.

The definitions of the Gateway API are shared with other controllers. Those that
somebody else installed are left as they are, and so are newer ones; install
says so, and which kinds are missing then.`,
		Example: `  ambit install
  ambit install --image-repo registry.example/mesh --image-tag v1
  ambit install --dry-run > mesh.yaml`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			files, err := from.files()
			if err != nil {
				return err
			}
			if dryRun {
				return writeFiles(c.OutOrStdout(), files)
			}
			return g.install(c.Context(), c.OutOrStdout(), files, timeout, noWait)
		},
	}
	from.flags(c)
	c.Flags().BoolVar(&dryRun, "dry-run", false, "print the manifests instead of applying them")
	c.Flags().BoolVar(&noWait, "no-wait", false, "do not wait until every part is ready")
	c.Flags().DurationVar(&timeout, "timeout", timeout, "how long to wait")
	return c
}

func (g *global) install(ctx context.Context, out io.Writer, files []manifests.File, timeout time.Duration, noWait bool) error {
	objs, err := install.Objects(files)
	if err != nil {
		return err
	}
	cluster, err := g.open(g.kubeconfig, g.context)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, fmt.Errorf("not done after %s", timeout))
	defer cancel()
	if objs, err = install.Respect(ctx, cluster, objs, out); err != nil {
		return err
	}
	if err := install.Apply(ctx, cluster, objs, out); err != nil {
		return err
	}
	if noWait {
		return nil
	}
	if err := install.WaitReady(ctx, cluster, out); err != nil {
		return err
	}
	_, err = fmt.Fprintln(out, "the mesh is installed; let a namespace join: kubectl label namespace NAME istio.io/dataplane-mode=ambient")
	return err
}

func writeFiles(w io.Writer, files []manifests.File) error {
	for _, f := range files {
		if f.Name == "kustomization.yaml" {
			continue
		}
		if _, err := fmt.Fprintf(w, "---\n# %s\n%s", f.Name, f.Body); err != nil {
			return err
		}
	}
	return nil
}

func (g *global) uninstallCommand() *cobra.Command {
	var purge bool
	timeout := 3 * time.Minute
	c := &cobra.Command{
		Use:   "uninstall",
		Short: "Take the mesh out: no rule stays in a pod, no file on a node",
		Long: `uninstall first lets every node release its pods and remove the CNI plugin,
while the proxies still serve, and then deletes everything else. Pods keep
running; their connections are plain again.

The custom resource definitions stay, and with them your policies: deleting a
definition deletes its objects. --purge deletes them too; those of the Gateway
API only if they are ambit's own, and then every Gateway and route goes with
them, whoever serves it. Labels that you set on namespaces and pods stay.`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			defs, err := crd.Embedded()
			if err != nil && purge {
				return err // the definitions are exactly what is to be deleted
			}
			// The experimental channel has the kinds of both.
			files, err := manifests.Render(manifests.Config{GatewayAPI: manifests.Experimental}, defs)
			if err != nil {
				return err
			}
			objs, err := install.Objects(files)
			if err != nil {
				return err
			}
			cluster, err := g.open(g.kubeconfig, g.context)
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeoutCause(c.Context(), timeout, fmt.Errorf("not done after %s", timeout))
			defer cancel()
			return install.Uninstall(ctx, cluster, objs, purge, c.OutOrStdout())
		},
	}
	c.Flags().BoolVar(&purge, "purge", false, "also delete the custom resource definitions and every policy")
	c.Flags().DurationVar(&timeout, "timeout", timeout, "how long to wait")
	return c
}
