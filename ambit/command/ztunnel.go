package command

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/ambit-mesh/ambit/ambit/inspect"
	"github.com/ambit-mesh/ambit/manifests"
)

// dumps says which proxies to ask.
type dumps struct {
	file string
	node string
}

// query is one subcommand of `ambit ztunnel`.
type query struct {
	use, alias, short string
	table             func(*inspect.Dump, inspect.Filter) inspect.Table
	flags             func(*cobra.Command, *inspect.Filter)
}

var queries = []query{
	{
		"workloads", "workload", "The pods and other endpoints the proxies know, and whether they are reached encrypted (HBONE) or in clear (TCP)",
		inspect.WorkloadTable, func(c *cobra.Command, f *inspect.Filter) {
			namespaceFlag(c, f)
			c.Flags().StringVar(&f.Address, "address", "", "only the workload with this IP address")
		},
	},
	{
		"services", "service", "The services the proxies know, with healthy/all endpoints",
		inspect.ServiceTable, func(c *cobra.Command, f *inspect.Filter) {
			namespaceFlag(c, f)
			c.Flags().StringVar(&f.Address, "address", "", "only the service with this virtual IP address")
		},
	},
	{"policies", "policy", "The authorization policies the proxies enforce", inspect.PolicyTable, namespaceFlag},
	{
		"certificates", "certificate", "The certificates the proxies hold",
		func(d *inspect.Dump, _ inspect.Filter) inspect.Table { return inspect.CertificateTable(d, time.Now()) },
		func(*cobra.Command, *inspect.Filter) {},
	},
	{
		"connections", "connection", "The open connections of captured pods: who talks to whom",
		inspect.ConnectionTable, func(c *cobra.Command, f *inspect.Filter) {
			namespaceFlag(c, f)
			c.Flags().StringVar(&f.Direction, "direction", "", "only inbound or outbound connections")
		},
	},
}

func namespaceFlag(c *cobra.Command, f *inspect.Filter) {
	c.Flags().StringVarP(&f.Namespace, "namespace", "n", "", "only this namespace")
}

func (g *global) ztunnelCommand() *cobra.Command {
	from := &dumps{}
	parent := &cobra.Command{
		Use:     "ztunnel",
		Aliases: []string{"zt", "ztunnel-config", "zc"},
		Short:   "Show what the node proxies know and do",
		Args:    noSubcommand,
		RunE:    func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	f := parent.PersistentFlags()
	f.StringVar(&from.node, "node", "", "ask only the proxy of this node (default: all)")
	f.StringVarP(&from.file, "file", "f", "", "read a saved /config_dump instead of asking")
	for _, q := range queries {
		parent.AddCommand(g.queryCommand(q, from))
	}
	return parent
}

func (g *global) queryCommand(q query, from *dumps) *cobra.Command {
	var filter inspect.Filter
	c := &cobra.Command{
		Use: q.use, Aliases: []string{q.alias}, Short: q.short, Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if filter.Direction != "" && filter.Direction != "inbound" && filter.Direction != "outbound" {
				return usageError{fmt.Errorf("--direction %s: want inbound or outbound", filter.Direction)}
			}
			all, err := g.dumps(c.Context(), from)
			if err != nil {
				return err
			}
			var tables []inspect.Table
			for _, d := range all {
				tables = append(tables, q.table(d, filter))
			}
			merged := inspect.Merge(tables...)
			return g.print(c.OutOrStdout(), merged, merged.Write)
		},
	}
	g.outputFlag(c)
	q.flags(c, &filter)
	return c
}

// dumps are the states of the proxies asked for.
func (g *global) dumps(ctx context.Context, from *dumps) ([]*inspect.Dump, error) {
	if from.file != "" && from.node != "" {
		return nil, usageError{errors.New("--file is the dump of one proxy; --node chooses whom to ask")}
	}
	if from.file != "" {
		b, err := os.ReadFile(from.file)
		if err != nil {
			return nil, fmt.Errorf("reading the dump: %w", err)
		}
		d, err := inspect.Parse(b)
		return []*inspect.Dump{d}, err
	}
	cluster, err := g.open(g.kubeconfig, g.context)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, 30*time.Second, errors.New("no answer within 30 s"))
	defer cancel()
	pods, err := cluster.RunningPods(ctx, manifests.Namespace, "app=ztunnel", from.node)
	if err != nil {
		return nil, err
	}
	if len(pods) == 0 {
		return nil, noProxy(from.node)
	}
	var all []*inspect.Dump
	for _, p := range pods {
		b, err := cluster.Get(ctx, p.Namespace, p.Name, adminPort, "/config_dump")
		if err != nil {
			return nil, fmt.Errorf("%w (is the pod healthy? ambit check)", err)
		}
		d, err := inspect.Parse(b)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", p.Name, err)
		}
		all = append(all, d)
	}
	return all, nil
}

// adminPort is where ztunnel answers, on its loopback only.
const adminPort = 15000

func noProxy(node string) error {
	if node != "" {
		return fmt.Errorf("no ztunnel runs on node %s (kubectl get nodes; ambit check)", node)
	}
	return errors.New("no ztunnel runs in istio-system; is the mesh installed? (ambit check)")
}
