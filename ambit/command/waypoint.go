package command

import "github.com/spf13/cobra"

func (g *global) waypointCommand() *cobra.Command {
	parent := &cobra.Command{
		Use:     "waypoint",
		Aliases: []string{"wp"},
		Short:   "Make, list, look into and remove waypoints",
		Args:    noSubcommand,
		RunE:    func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	parent.AddCommand(
		g.waypointApplyCommand(), g.waypointGenerateCommand(), g.waypointListCommand(), g.waypointStatusCommand(), g.waypointDeleteCommand(),
		g.circuitsCommand(),
	)
	return parent
}
