package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/ambit-mesh/ambit/ambit/ask"
	"github.com/ambit-mesh/ambit/ambit/reach"
	"github.com/ambit-mesh/ambit/manifests"
)

// The Secrets of the certificate authority, and what is written on them to ask
// istiod for something.
const (
	ownRootSecret  = "istio-ca-secret"
	authorityState = "ambit-ca-state"
	askRotation    = "ambit.io/rotate"
	askForce       = "ambit.io/force"
)

func (g *global) caCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "ca",
		Short: "Show and replace the root of the mesh's certificates, and take certificates back",
		Args:  noSubcommand,
		RunE:  func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(g.caStatusCommand(), g.caRotateCommand(), g.caRevokeCommand())
	return c
}

func (g *global) caStatusCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "status",
		Short: "Show the trusted roots, which proxy trusts and uses which, and how far a replacement is",
		Long: `status shows what each proxy says itself of the roots that it trusts and of the
certificates that it uses. Exit code 0: all is as it should be; 2: somebody is
behind or silent; 1: the status could not be found.`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			cluster, err := g.open(g.kubeconfig, g.context)
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeoutCause(c.Context(), 30*time.Second, errors.New("no answer within 30 s"))
			defer cancel()
			a, err := authority(ctx, cluster)
			if err != nil {
				return err
			}
			if err := g.print(c.OutOrStdout(), a, func(w io.Writer) error { return writeAuthority(w, a, time.Now()) }); err != nil {
				return err
			}
			if a.Behind() {
				return errUnhealthy
			}
			return nil
		},
	}
	g.outputFlag(c)
	return c
}

func authority(ctx context.Context, cluster *reach.Cluster) (*ask.Authority, error) {
	planes, err := replicas(ctx, cluster)
	if err != nil {
		return nil, err
	}
	return ask.AuthorityOf(ctx, planes)
}

func writeAuthority(w io.Writer, a *ask.Authority, now time.Time) error {
	tw := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(tw, "PHASE\tEPOCH\tSINCE\tAUTHORITY")
	fmt.Fprintf(tw, "%s\t%d\t%s ago\t%s\n", a.Phase, a.Epoch, now.Sub(a.Since).Round(time.Second), map[bool]string{true: "plugged in (Secret cacerts)", false: "the mesh's own"}[a.Plugged])
	fmt.Fprintln(tw, "\nROOT\tSUBJECT\tUNTIL\tREMARK")
	for _, r := range a.Roots {
		fmt.Fprintf(tw, "%s\t%s\t%s\t%s\n", brief(r.Fingerprint), r.Subject, r.NotAfter.Format(time.DateOnly), map[bool]string{true: "signs"}[r.Signs])
	}
	fmt.Fprintln(tw, "\nPROXY\tKIND\tNODE\tTRUSTS\tCERTIFICATES\tREMARK")
	lacks := map[string]string{}
	for _, l := range a.Waiting {
		lacks[l.ID] = l.Lacks
	}
	for _, p := range a.Proxies {
		var trusts, holds []string
		for _, r := range p.Trusts {
			trusts = append(trusts, brief(r))
		}
		for _, h := range p.Holds {
			holds = append(holds, fmt.Sprintf("%d of %s", h.Count, brief(h.Root)))
		}
		remark := lacks[p.ID]
		if remark == "" {
			remark = p.Says
		}
		fmt.Fprintf(tw, "%s\t%s\t%s\t%s\t%s\t%s\n", p.Name, p.Kind, dash(p.Node), dash(strings.Join(trusts, " ")), dash(strings.Join(holds, ", ")), remark)
	}
	for _, l := range a.Waiting {
		if !slices.ContainsFunc(a.Proxies, func(p ask.Truster) bool { return p.ID == l.ID }) {
			fmt.Fprintf(tw, "%s\t%s\t%s\t-\t-\t%s\n", l.Name, l.Kind, dash(l.Node), l.Lacks)
		}
	}
	return tw.Flush()
}

// brief is enough of a fingerprint.
func brief(fingerprint string) string { return fingerprint[:min(len(fingerprint), 12)] }

// rotateOptions are the flags of `ambit ca rotate`.
type rotateOptions struct {
	force             bool
	patience, timeout time.Duration
}

func (g *global) caRotateCommand() *cobra.Command {
	o := rotateOptions{}
	c := &cobra.Command{
		Use:   "rotate",
		Short: "Replace the mesh's own root, in steps that each proxy confirms, and show how far they are",
		Long: `rotate makes a new root and lets every proxy trust it beside the old one; then
it signs; then every certificate is replaced; then the old root is forgotten.
Nobody's connection breaks. A phase waits until every proxy has confirmed it:
one that is away holds it back until its certificates have ended, or until
--force. The control plane does the work: if this command ends, the rotation goes
on, and running it again shows how far it is. A plugged-in authority (Secret
cacerts) is replaced by writing its successor there; this command then shows the
same steps.`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			cluster, err := g.open(g.kubeconfig, g.context)
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeoutCause(c.Context(), o.timeout, fmt.Errorf("not done within %v; the control plane goes on (ambit ca status, or ambit ca rotate again)", o.timeout))
			defer cancel()
			return rotate(ctx, cluster, o, c.OutOrStdout())
		},
	}
	c.Flags().BoolVar(&o.force, "force", false, "go on without those who have not confirmed for --patience: they may be refused by others, and refuse them")
	c.Flags().DurationVar(&o.patience, "patience", 3*time.Minute, "with --force: how long nobody must have confirmed anything")
	c.Flags().DurationVar(&o.timeout, "timeout", 30*time.Minute, "how long to watch")
	return c
}

func rotate(ctx context.Context, cluster *reach.Cluster, o rotateOptions, w io.Writer) error {
	a, err := authority(ctx, cluster)
	if err != nil {
		return err
	}
	before := a.Root
	if a.Phase == "steady" {
		if a.Plugged {
			return errors.New("the authority is plugged in: write its successor into Secret istio-system/cacerts, which replaces it in the same steps; this command then shows them")
		}
		if err := annotate(ctx, cluster, ownRootSecret, askRotation, time.Now().UTC().Format(time.RFC3339Nano)); err != nil {
			return err
		}
		fmt.Fprintf(w, "asked for a new root in place of %s\n", brief(before))
	} else {
		before = "" // it has begun already
	}
	return watchRotation(ctx, cluster, o, before, w)
}

// watchRotation prints how far it is until it is done.
func watchRotation(ctx context.Context, cluster *reach.Cluster, o rotateOptions, before string, w io.Writer) error {
	p := ask.Progress{FromStart: before != ""}
	forced := uint64(0)
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		a, err := authority(ctx, cluster)
		if err == nil && (a.Phase != "steady" || a.Root != before) {
			for _, line := range p.Look(a, time.Now()) {
				fmt.Fprintln(w, time.Now().Format(time.TimeOnly), line)
			}
			if a.Phase == "steady" {
				return nil
			}
			if o.force && len(a.Waiting) > 0 && forced != a.Epoch && time.Since(p.Stagnant()) > o.patience {
				fmt.Fprintf(w, "%s going on without %d that have not confirmed\n", time.Now().Format(time.TimeOnly), len(a.Waiting))
				if err := annotate(ctx, cluster, authorityState, askForce, strconv.FormatUint(a.Epoch, 10)); err != nil {
					return err
				}
				p.GiveUp()
				forced = a.Epoch
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return errors.Join(context.Cause(ctx), err)
		}
	}
}

// annotate writes what istiod is asked for on a Secret.
func annotate(ctx context.Context, cluster *reach.Cluster, secret, key, value string) error {
	patch := fmt.Sprintf(`{"metadata":{"annotations":{%q:%q}}}`, key, value)
	if _, err := cluster.Client.CoreV1().Secrets(manifests.Namespace).Patch(ctx, secret, types.MergePatchType, []byte(patch), metav1.PatchOptions{}); err != nil {
		return fmt.Errorf("writing on secret %s/%s: %w", manifests.Namespace, secret, err)
	}
	return nil
}
