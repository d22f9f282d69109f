package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"

	"github.com/ambit-mesh/ambit/ambit/ask"
	"github.com/ambit-mesh/ambit/ambit/reach"
	"github.com/ambit-mesh/ambit/internal/decision"
	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/manifests"
)

func (g *global) canCommand() *cobra.Command {
	var header []string
	c := &cobra.Command{
		Use:   "can SOURCE METHOD URL | can SOURCE DESTINATION:PORT",
		Short: "Say whether a request or a connection would be let through, and by which policy and route, without sending it",
		Long: `can asks the waypoint of the service, or without one a node proxy, what would
become of a request; or, of a connection to a port, where it would go and what
both ends would say. SOURCE is a pod or a service account as namespace/name; URL
names a service as a pod of SOURCE's namespace would; DESTINATION is such a name,
a pod as namespace/name, or an address. Nothing is sent to the service; external
authorizers and token issuers are asked as for a real request.
Exit code 0: yes; 2: no; 1: it could not be found out.`,
		Example: `  ambit can shop/client GET http://reviews:9080/reviews/1
  ambit can shop/client-7d9-x DELETE http://web.bank/ -H 'Authorization: Bearer …'
  ambit can shop/client-7d9-x db.bank:5432
  ambit can shop/client-7d9-x bank/db-0:5432`,
		Args: func(c *cobra.Command, args []string) error {
			if len(args) != 2 && len(args) != 3 {
				return usageError{fmt.Errorf("%s takes SOURCE METHOD URL, or SOURCE DESTINATION:PORT (see: %s --help)", c.CommandPath(), c.CommandPath())}
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			q, err := question(args, header)
			if err != nil {
				return usageError{err}
			}
			cluster, err := g.open(g.kubeconfig, g.context)
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeoutCause(c.Context(), 30*time.Second, errors.New("no answer within 30 s"))
			defer cancel()
			f, err := can(ctx, cluster, args[0], q)
			if err != nil {
				return err
			}
			if err := g.print(c.OutOrStdout(), f, func(w io.Writer) error { return writeForecast(w, f) }); err != nil {
				return err
			}
			if !f.Allowed {
				return errUnhealthy
			}
			return nil
		},
	}
	g.outputFlag(c)
	c.Flags().StringArrayVarP(&header, "header", "H", nil, "a header of the request, as \"Name: value\"")
	return c
}

// question reads the command line, all but who asks.
func question(args, header []string) (*decision.Question, error) {
	if !isObject(args[0]) {
		return nil, fmt.Errorf("%q: want namespace/name of a pod or a service account", args[0])
	}
	if len(args) == 2 {
		if _, port, err := splitDestination(args[1]); err != nil || port == 0 {
			return nil, errors.Join(fmt.Errorf("%q: want DESTINATION:PORT", args[1]), err)
		}
		return &decision.Question{Destination: args[1]}, nil
	}
	q := &decision.Question{Method: strings.ToUpper(args[1]), URL: args[2], Header: map[string]string{}}
	if !strings.Contains(q.URL, "://") {
		q.URL = "http://" + q.URL
	}
	for _, h := range header {
		k, v, ok := strings.Cut(h, ":")
		if !ok || strings.TrimSpace(k) == "" {
			return nil, fmt.Errorf("header %q: want \"Name: value\"", h)
		}
		q.Header[strings.TrimSpace(k)] = strings.TrimSpace(v)
	}
	return q, nil
}

func can(ctx context.Context, c *reach.Cluster, source string, q *decision.Question) (*decision.Forecast, error) {
	node, err := identify(ctx, c, source, q)
	if err != nil {
		return nil, err
	}
	if q.Destination, err = address(ctx, c, q.Destination); err != nil {
		return nil, err
	}
	ztunnels, err := c.RunningPods(ctx, manifests.Namespace, ztunnelLabel, "")
	if err != nil {
		return nil, err
	}
	if len(ztunnels) == 0 {
		return nil, noProxy("")
	}
	// The client's own node knows most: it has the certificate, or has it not.
	slices.SortStableFunc(ztunnels, func(a, b corev1.Pod) int {
		switch {
		case (a.Spec.NodeName == node) == (b.Spec.NodeName == node):
			return 0
		case a.Spec.NodeName == node:
			return -1
		}
		return 1
	})
	return ask.Can(ctx, openers(c, ztunnels), func(ctx context.Context, k mesh.ServiceKey) ([]ask.Opener, error) {
		gateway, _, _ := strings.Cut(k.Hostname, ".")
		pods, err := c.RunningPods(ctx, k.Namespace, "gateway.networking.k8s.io/gateway-name="+gateway, "")
		return openers(c, pods), err
	}, q)
}

func openers(c *reach.Cluster, pods []corev1.Pod) []ask.Opener {
	var out []ask.Opener
	for i := range pods {
		out = append(out, opener(c, &pods[i], adminPort))
	}
	return out
}

func writeForecast(w io.Writer, f *decision.Forecast) error {
	answer := "no"
	if f.Allowed {
		answer = "yes"
	}
	if _, err := fmt.Fprintf(w, "%s: %s\n", answer, f.Says); err != nil || f.Story.Kind == "" {
		return err
	}
	fmt.Fprintln(w)
	return f.Story.Write(w)
}
