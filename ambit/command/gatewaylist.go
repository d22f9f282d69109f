package command

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/ambit-mesh/ambit/ambit/waypoints"
)

func (g *global) waypointListCommand() *cobra.Command {
	var in place
	c := &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List waypoints", Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			client, namespace, err := g.at(in)
			if err != nil {
				return err
			}
			list, err := client.List(c.Context(), namespace)
			if err != nil {
				return err
			}
			return g.printTable(c, waypoints.ListTable(list, in.all))
		},
	}
	in.flags(c)
	g.outputFlag(c)
	return c
}

func (g *global) waypointStatusCommand() *cobra.Command {
	var in place
	wait, timeout := true, 90*time.Second
	c := &cobra.Command{
		Use: "status [NAME]", Short: "Show what waypoints say of themselves, once they are ready", Args: cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, names []string) error {
			client, namespace, err := g.at(in)
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeoutCause(c.Context(), timeout, fmt.Errorf("not within %s", timeout))
			defer cancel()
			list, err := client.List(ctx, namespace)
			if err != nil {
				return err
			}
			var late error
			for i := range list {
				if wait && late == nil && (len(names) == 0 || list[i].GetName() == names[0]) {
					late = client.Wait(ctx, list[i].GetNamespace(), list[i].GetName(), waitTick)
				}
			}
			if list, err = client.List(c.Context(), namespace); err != nil {
				return err
			}
			if len(names) > 0 {
				if list = named(list, names[0]); len(list) == 0 {
					return fmt.Errorf("there is no waypoint %s/%s", cmp.Or(namespace, "*"), names[0])
				}
			}
			return errors.Join(g.printTable(c, waypoints.StatusTable(list, in.all)), late)
		},
	}
	in.flags(c)
	g.outputFlag(c)
	c.Flags().BoolVar(&wait, "wait", true, "wait until they are ready")
	c.Flags().DurationVar(&timeout, "waypoint-timeout", timeout, "how long to wait")
	return c
}

func named(all []unstructured.Unstructured, name string) []unstructured.Unstructured {
	return slices.DeleteFunc(all, func(g unstructured.Unstructured) bool { return g.GetName() != name })
}
