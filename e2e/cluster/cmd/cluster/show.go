package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/ambit-mesh/ambit/e2e/cluster"
)

func statusCommand(o *options) *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use: "status", Short: "Show every part of a cluster and how it is", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := o.open()
			if err != nil {
				return err
			}
			st, err := c.Status(cmd.Context())
			if err != nil {
				return err
			}
			if err := printStatus(cmd.OutOrStdout(), format, st); err != nil {
				return err
			}
			if !st.Healthy() {
				return errors.New("not everything is well")
			}
			return nil
		},
	}
	cmd.Flags().StringVarP(&format, "output", "o", "table", "table or json")
	return cmd
}

func printStatus(w io.Writer, format string, st cluster.Status) error {
	switch format {
	case "json":
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		return e.Encode(st)
	case "table":
	default:
		return fmt.Errorf("output %q: want table or json", format)
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "MACHINE\tADDRESS\tLINK\tCOMPONENT\tPID\tHEALTH")
	for _, m := range st.Machines {
		for _, c := range m.Components {
			fmt.Fprintf(t, "%s\t%v\t%s\t%s\t%d\t%s\n", m.Name, strings.Trim(fmt.Sprint(m.Addresses), "[]"), m.Link, c.Name, c.PID, c.Health)
		}
	}
	if err := t.Flush(); err != nil {
		return err
	}
	fmt.Fprintf(w, "\nserver      %s\nkubeconfig  %s\nlogs        %s/machines/MACHINE/log\nshell       nsenter --target PID --all (PID of a node's containerd)\ncapture     nsenter --net=%s tcpdump -ni %s\n",
		st.Server, st.Kubeconfig, st.StateDir, st.LAN.Netns, st.LAN.Bridge)
	return nil
}

func kubeconfigCommand(o *options) *cobra.Command {
	var raw bool
	cmd := &cobra.Command{
		Use: "kubeconfig", Short: "Print the path of the kubeconfig", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := o.open()
			if err != nil {
				return err
			}
			content, err := os.ReadFile(c.Kubeconfig())
			if err != nil {
				return fmt.Errorf("cluster %s is not up: %w", c.Name(), err)
			}
			if raw {
				_, err = cmd.OutOrStdout().Write(content)
				return err
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), c.Kubeconfig())
			return err
		},
	}
	cmd.Flags().BoolVar(&raw, "raw", false, "print its content instead")
	return cmd
}

func kubectlCommand(o *options) *cobra.Command {
	return &cobra.Command{
		Use: "kubectl [--] ARGUMENT...", Short: "Run kubectl against a cluster", Args: cobra.ArbitraryArgs,
		RunE: func(_ *cobra.Command, args []string) error {
			c, err := o.open()
			if err != nil {
				return err
			}
			s, err := o.supplies()
			if err != nil {
				return err
			}
			// Becomes kubectl, so that terminals and signals work as always.
			kube := filepath.Join(s.Bin(), "kube")
			return syscall.Exec(kube, append([]string{"kubectl"}, args...), c.KubectlEnv())
		},
	}
}

func listCommand(o *options) *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "Name the clusters of this machine", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			names, err := cluster.List(o.root)
			for _, name := range names {
				fmt.Fprintln(cmd.OutOrStdout(), name)
			}
			return err
		},
	}
}
