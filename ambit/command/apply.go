package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/ambit-mesh/ambit/ambit/apply"
	"github.com/ambit-mesh/ambit/ambit/ask"
	"github.com/ambit-mesh/ambit/ambit/reach"
)

func (g *global) applyCommand() *cobra.Command {
	var files []string
	var o apply.Options
	var wait bool
	timeout := time.Minute
	c := &cobra.Command{
		Use:   "apply -f FILE",
		Short: "Apply objects, and wait until every proxy serves them",
		Long: `apply writes objects to the cluster as kubectl apply --server-side does, with
the same field manager, so that both may be used on one object.

With --wait it returns when every running proxy has acknowledged a configuration
that holds the objects as they were written, and says of itself that this is what
it decides with; objects that the mesh does not read, such as Deployments, are not
waited for. It then says which of the objects' conditions are not true. Exit code 0: served as written; 2: served, but not as
written; 1: not applied, or not served in time, with who is behind.`,
		Example: `  ambit apply -f route.yaml --wait
  kustomize build . | ambit apply -f - --wait --timeout 20s`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if len(files) == 0 {
				return usageError{errors.New("apply what? (-f FILE)")}
			}
			if wait && o.DryRun {
				return usageError{errors.New("--wait waits for what --dry-run does not write")}
			}
			objs, err := apply.Read(files, c.InOrStdin())
			if err != nil {
				return fmt.Errorf("reading objects: %w", err)
			}
			cluster, err := g.open(g.kubeconfig, g.context)
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeoutCause(c.Context(), timeout, fmt.Errorf("not served by every proxy after %s", timeout))
			defer cancel()
			began := time.Now()
			versions, err := apply.To(ctx, cluster, objs, o, c.OutOrStdout())
			if err != nil || !wait {
				return err
			}
			return await(ctx, c.OutOrStdout(), cluster, versions, "every proxy serves them", began)
		},
	}
	f := c.Flags()
	f.StringSliceVarP(&files, "filename", "f", nil, "file or directory with objects; - is standard input")
	f.StringVarP(&o.Namespace, "namespace", "n", "", "namespace of objects that have none (default \"default\")")
	f.StringVar(&o.Manager, "field-manager", "", "owner of the fields that are set (default kubectl's)")
	f.BoolVar(&o.Force, "force-conflicts", false, "take fields that another manager has set")
	f.BoolVar(&o.DryRun, "dry-run", false, "let the server check everything, and write nothing")
	f.BoolVarP(&wait, "wait", "w", false, "return when every proxy serves the objects")
	f.DurationVar(&timeout, "timeout", timeout, "how long to wait")
	return c
}

func (g *global) deleteCommand() *cobra.Command {
	var files []string
	var namespace string
	var wait bool
	timeout := time.Minute
	c := &cobra.Command{
		Use:   "delete -f FILE",
		Short: "Delete objects, and wait until no proxy serves them any longer",
		Long: `delete deletes the objects of files from the cluster, the last first. One that is
not there is no error.

With --wait it returns when every running proxy decides without them, as apply
does. Exit code 0: gone; 1: not deleted, or still served, with who is behind.`,
		Example: `  ambit delete -f route.yaml --wait`,
		Args:    noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if len(files) == 0 {
				return usageError{errors.New("delete what? (-f FILE)")}
			}
			objs, err := apply.Read(files, c.InOrStdin())
			if err != nil {
				return fmt.Errorf("reading objects: %w", err)
			}
			cluster, err := g.open(g.kubeconfig, g.context)
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeoutCause(c.Context(), timeout, fmt.Errorf("still served by a proxy after %s", timeout))
			defer cancel()
			began := time.Now()
			versions, err := apply.Delete(ctx, cluster, objs, namespace, c.OutOrStdout())
			if err != nil || !wait || len(versions) == 0 {
				return err
			}
			return await(ctx, c.OutOrStdout(), cluster, versions, "no proxy serves them any longer", began)
		},
	}
	f := c.Flags()
	f.StringSliceVarP(&files, "filename", "f", nil, "file or directory with objects; - is standard input")
	f.StringVarP(&namespace, "namespace", "n", "", "namespace of objects that have none (default \"default\")")
	f.BoolVarP(&wait, "wait", "w", false, "return when no proxy serves the objects any longer")
	f.DurationVar(&timeout, "timeout", timeout, "how long to wait")
	return c
}

// await waits for the proxies and says what came of it.
func await(ctx context.Context, out io.Writer, cluster *reach.Cluster, versions []ask.Version, says string, began time.Time) error {
	if _, err := replicas(ctx, cluster); err != nil {
		return err // without any there is nothing to wait for
	}
	served, err := ask.Await(ctx, func(ctx context.Context) ([]ask.Opener, error) { return replicas(ctx, cluster) },
		func(ctx context.Context) ([]ask.Proxy, error) { return proxies(ctx, cluster) }, versions)
	if err != nil {
		return err
	}
	return writeServed(out, served, says, time.Since(began))
}

func writeServed(w io.Writer, s *ask.Service, says string, took time.Duration) error {
	unread := 0
	for _, o := range s.Objects {
		if o.State == "unread" {
			unread++
		}
	}
	if unread == len(s.Objects) {
		_, err := fmt.Fprintln(w, "the mesh reads none of these objects: there is nothing to wait for")
		return err
	}
	if _, err := fmt.Fprintf(w, "%s, after %s\n", says, took.Round(10*time.Millisecond)); err != nil {
		return err
	}
	doubts := s.Doubts()
	for _, d := range doubts {
		fmt.Fprintln(w, "but", d)
	}
	if len(doubts) > 0 {
		return errUnhealthy
	}
	return nil
}
