package main

import (
	"errors"
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/ambit-mesh/ambit/e2e/cluster"
	"github.com/ambit-mesh/ambit/e2e/cluster/preflight"
	"github.com/ambit-mesh/ambit/e2e/cluster/supply"
	"github.com/ambit-mesh/ambit/e2e/images"
)

func buildCommand(o *options) *cobra.Command {
	return &cobra.Command{
		Use: "build", Short: "Build what a cluster is made of, if it is missing or old", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := o.supplies()
			if err != nil {
				return err
			}
			return supply.Build(cmd.Context(), s)
		},
	}
}

// supplies says where programs are built from and to.
func (o *options) supplies() (supply.Config, error) {
	checkout := o.checkout
	if checkout == "" {
		var err error
		if checkout, err = supply.FindCheckout("."); err != nil {
			return supply.Config{}, err
		}
	}
	return supply.Config{Checkout: checkout, Log: o.log()}, nil
}

func preflightCommand(o *options) *cobra.Command {
	var fix bool
	cmd := &cobra.Command{
		Use: "preflight", Short: "Say what this machine lacks, and install missing packages", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := o.supplies()
			if err != nil {
				return err
			}
			report := preflight.Check(cmd.Context(), preflight.Config{Dir: s.Checkout, Install: fix, Log: o.log()})
			fmt.Fprint(cmd.OutOrStdout(), report.Table())
			if !report.OK() {
				return errors.New("this machine is not ready; the lines marked FAIL say what to do")
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&fix, "install", true, "install missing Debian packages, as root")
	return cmd
}

func upCommand(o *options) *cobra.Command {
	var nodes int
	var family string
	cmd := &cobra.Command{
		Use: "up", Short: "Make a cluster, or complete the one that exists", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg := o.config()
			cfg.Nodes = nodes
			var err error
			if cfg.Family, err = cluster.ParseFamily(family); err != nil {
				return err
			}
			s, err := o.supplies()
			if err != nil {
				return err
			}
			if err := supply.Build(cmd.Context(), s); err != nil {
				return err
			}
			cfg.Bin, cfg.Images = s.Bin(), filepath.Join(s.Checkout, "build", "images")
			archives := images.Config{Checkout: s.Checkout, Out: cfg.Images, Bin: cfg.Bin, Log: o.log()}
			for _, img := range images.System() {
				archives.Names = append(archives.Names, img.Name)
			}
			if _, err := images.Build(cmd.Context(), archives); err != nil {
				return err
			}
			c, err := cluster.Up(cmd.Context(), cfg)
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "export KUBECONFIG=%s\n", c.Kubeconfig())
			return nil
		},
	}
	cmd.Flags().IntVar(&nodes, "nodes", 2, "how many nodes")
	cmd.Flags().StringVar(&family, "ip-family", "ipv4", "ipv4, ipv6 or dual")
	return cmd
}

func downCommand(o *options) *cobra.Command {
	var all bool
	cmd := &cobra.Command{
		Use: "down", Short: "End a cluster and remove every trace of it", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			names := []string{o.name}
			if all {
				var err error
				if names, err = cluster.List(o.root); err != nil {
					return err
				}
			}
			for _, name := range names {
				cfg := o.config()
				cfg.Name = name
				c, err := cluster.Open(cfg)
				if err != nil {
					return err
				}
				if err := c.Down(); err != nil {
					return err
				}
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "every cluster of this machine")
	return cmd
}

func loadCommand(o *options) *cobra.Command {
	return &cobra.Command{
		Use: "load ARCHIVE...", Short: "Put image archives into every node", Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := o.open()
			if err != nil {
				return err
			}
			return c.Load(cmd.Context(), args...)
		},
	}
}
