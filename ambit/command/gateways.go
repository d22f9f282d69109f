package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/yaml"

	"github.com/ambit-mesh/ambit/ambit/inspect"
	"github.com/ambit-mesh/ambit/ambit/waypoints"
)

// wish are the flags that say which waypoint.
type wish struct{ waypoints.Wish }

func (w *wish) flags(c *cobra.Command) {
	f := c.Flags()
	f.StringVarP(&w.Namespace, "namespace", "n", "", "the waypoint's namespace (default: the context's)")
	f.StringVar(&w.Name, "name", "waypoint", "the waypoint's name")
	f.StringVar(&w.For, "for", "", "traffic that it is for: service, workload, all or none (default: service)")
	f.StringVarP(&w.Revision, "revision", "r", "", "label istio.io/rev; this mesh has no revisions and ignores it")
}

func (w *wish) check() error {
	if err := w.Check(); err != nil {
		return usageError{err}
	}
	return nil
}

func (g *global) waypointGenerateCommand() *cobra.Command {
	var w wish
	c := &cobra.Command{
		Use: "generate", Short: "Print the Gateway of a waypoint", Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := w.check(); err != nil {
				return err
			}
			text, err := yaml.Marshal(w.Gateway().Object)
			if err != nil {
				return err
			}
			_, err = c.OutOrStdout().Write(text)
			return err
		},
	}
	w.flags(c)
	return c
}

func (g *global) waypointApplyCommand() *cobra.Command {
	var w wish
	var enrol, overwrite, wait bool
	timeout := 90 * time.Second
	c := &cobra.Command{
		Use: "apply", Short: "Make a waypoint, or bring it up to date", Args: noArgs,
		Example: `  ambit waypoint apply -n shop --enroll-namespace --wait
  ambit waypoint apply -n shop --name for-pods --for workload`,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := w.check(); err != nil {
				return err
			}
			client, err := g.waypoints()
			if err != nil {
				return err
			}
			if w.Namespace, err = g.namespace(w.Namespace); err != nil {
				return err
			}
			ctx, cancel := context.WithTimeoutCause(c.Context(), timeout, fmt.Errorf("not within %s", timeout))
			defer cancel()
			if err := client.Apply(ctx, w.Wish); err != nil {
				return err
			}
			fmt.Fprintf(c.OutOrStdout(), "waypoint %s/%s applied\n", w.Namespace, w.Name)
			if enrol {
				if err := enrolNamespace(ctx, c.OutOrStdout(), client, w.Wish, overwrite); err != nil {
					return err
				}
			}
			if !wait {
				return nil
			}
			if err := client.Wait(ctx, w.Namespace, w.Name, waitTick); err != nil {
				return err
			}
			fmt.Fprintf(c.OutOrStdout(), "waypoint %s/%s is ready\n", w.Namespace, w.Name)
			return nil
		},
	}
	w.flags(c)
	f := c.Flags()
	f.BoolVar(&enrol, "enroll-namespace", false, "make the services of the namespace use the waypoint")
	f.BoolVar(&overwrite, "overwrite", false, "with --enroll-namespace: even if they use another one")
	f.BoolVarP(&wait, "wait", "w", false, "return when the waypoint is ready")
	f.DurationVar(&timeout, "waypoint-timeout", timeout, "how long to wait")
	return c
}

// waitTick is how often a waypoint is looked at that is waited for.
const waitTick = 200 * time.Millisecond

func enrolNamespace(ctx context.Context, out io.Writer, client waypoints.Client, w waypoints.Wish, overwrite bool) error {
	e, err := client.Enrol(ctx, w, overwrite)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "namespace %s uses waypoint %s\n", w.Namespace, w.Name)
	if e.Outside {
		fmt.Fprintf(out, "namespace %s is not in the mesh, so its own pods pass by every waypoint (kubectl label namespace %s istio.io/dataplane-mode=ambient)\n", w.Namespace, w.Namespace)
	}
	return nil
}

func (g *global) waypointDeleteCommand() *cobra.Command {
	var namespace string
	var all bool
	c := &cobra.Command{
		Use: "delete NAME...", Short: "Remove waypoints", Args: cobra.ArbitraryArgs,
		RunE: func(c *cobra.Command, names []string) error {
			if all == (len(names) > 0) {
				return usageError{errors.New("delete which? Give names, or --all for all of the namespace")}
			}
			client, err := g.waypoints()
			if err != nil {
				return err
			}
			if namespace, err = g.namespace(namespace); err != nil {
				return err
			}
			return deleteWaypoints(c.Context(), c.OutOrStdout(), client, namespace, names, all)
		},
	}
	c.Flags().StringVarP(&namespace, "namespace", "n", "", "the waypoints' namespace (default: the context's)")
	c.Flags().BoolVar(&all, "all", false, "all waypoints of the namespace")
	return c
}

func deleteWaypoints(ctx context.Context, out io.Writer, client waypoints.Client, namespace string, names []string, all bool) error {
	if all {
		list, err := client.List(ctx, namespace)
		if err != nil {
			return err
		}
		for _, g := range list {
			names = append(names, g.GetName())
		}
		if len(names) == 0 {
			fmt.Fprintf(out, "namespace %s has no waypoints\n", namespace)
		}
	}
	for _, name := range names {
		users, err := client.Users(ctx, namespace, name)
		if err != nil {
			return err
		}
		if err := client.Delete(ctx, namespace, name); err != nil {
			return err
		}
		fmt.Fprintf(out, "waypoint %s/%s deleted\n", namespace, name)
		if len(users) > 0 {
			fmt.Fprintf(out, "namespaces that still name it are closed until they do not (kubectl label namespace %s istio.io/use-waypoint-)\n", strings.Join(users, " "))
		}
	}
	return nil
}

// place is one namespace, or all.
type place struct {
	namespace string
	all       bool
}

func (p *place) flags(c *cobra.Command) {
	c.Flags().StringVarP(&p.namespace, "namespace", "n", "", "this namespace (default: the context's)")
	c.Flags().BoolVarP(&p.all, "all-namespaces", "A", false, "all namespaces")
}

// at connects, and finds the namespace that is meant; "" is all.
func (g *global) at(p place) (waypoints.Client, string, error) {
	if p.all && p.namespace != "" {
		return waypoints.Client{}, "", usageError{errors.New("-n is one namespace and -A all of them")}
	}
	client, err := g.waypoints()
	if err != nil || p.all {
		return client, "", err
	}
	namespace, err := g.namespace(p.namespace)
	return client, namespace, err
}

func (g *global) waypoints() (waypoints.Client, error) {
	cluster, err := g.open(g.kubeconfig, g.context)
	if err != nil {
		return waypoints.Client{}, err
	}
	return waypoints.Client{API: cluster.Dynamic}, nil
}

// namespace is the one given, or else the kubeconfig's.
func (g *global) namespace(given string) (string, error) {
	if given != "" {
		return given, nil
	}
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = g.kubeconfig
	name, _, err := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, &clientcmd.ConfigOverrides{CurrentContext: g.context}).Namespace()
	if err != nil {
		return "", fmt.Errorf("finding the namespace (give -n): %w", err)
	}
	return name, nil
}

func (g *global) printTable(c *cobra.Command, t inspect.Table) error {
	return g.print(c.OutOrStdout(), t, t.Write)
}
