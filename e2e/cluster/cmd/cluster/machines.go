package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/ambit-mesh/ambit/e2e/cluster"
)

func nodeCommand(o *options) *cobra.Command {
	cmd := &cobra.Command{Use: "node", Short: "Add, stop, start, kill and reboot nodes"}
	cmd.AddCommand(&cobra.Command{
		Use: "add", Short: "Add a node and wait until it is Ready", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := o.open()
			if err != nil {
				return err
			}
			name, err := c.NodeAdd(cmd.Context())
			if err == nil {
				fmt.Fprintln(cmd.OutOrStdout(), name)
			}
			return err
		},
	})
	for _, v := range []struct {
		use, short string
		do         func(*cluster.Cluster, context.Context, string) error
	}{
		{"stop", "Shut nodes down in good order (also: control)", (*cluster.Cluster).NodeStop},
		{"start", "Boot stopped nodes and wait until they are Ready (also: control)", (*cluster.Cluster).NodeStart},
		{"kill", "Pull the plug of nodes (also: control)", (*cluster.Cluster).NodeKill},
		{"reboot", "Pull the plug, boot again with empty /run, wait until Ready", (*cluster.Cluster).NodeReboot},
	} {
		cmd.AddCommand(forEach(o, v.use+" NODE...", v.short, v.do))
	}
	return cmd
}

func linkCommand(o *options) *cobra.Command {
	cmd := &cobra.Command{Use: "link", Short: "Cut and heal the wires of nodes"}
	cmd.AddCommand(
		forEach(o, "cut NODE...", "Take the wire of nodes out (also: control)",
			func(c *cluster.Cluster, _ context.Context, name string) error { return c.LinkCut(name) }),
		forEach(o, "heal NODE...", "Put the wire of nodes back (also: control)",
			func(c *cluster.Cluster, _ context.Context, name string) error { return c.LinkHeal(name) }),
	)
	return cmd
}

// forEach is a command that does one thing to each machine it is given.
func forEach(o *options, use, short string, do func(*cluster.Cluster, context.Context, string) error) *cobra.Command {
	return &cobra.Command{
		Use: use, Short: short, Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := o.open()
			if err != nil {
				return err
			}
			for _, name := range args {
				if err := do(c, cmd.Context(), name); err != nil {
					return err
				}
			}
			return nil
		},
	}
}
