package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/ambit-mesh/ambit/ambit/ask"
	"github.com/ambit-mesh/ambit/ambit/reach"
	"github.com/ambit-mesh/ambit/internal/decision"
	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/internal/spiffe"
	"github.com/ambit-mesh/ambit/manifests"
)

func (g *global) canCommand() *cobra.Command {
	var header []string
	c := &cobra.Command{
		Use:   "can SOURCE METHOD URL",
		Short: "Say whether a request would be let through, and by which policy and route, without sending it",
		Long: `can asks the waypoint of the service, or without one a node proxy, what would
become of a request. SOURCE is a pod or a service account as namespace/name; URL
names a service as a pod of SOURCE's namespace would. Nothing is sent to the
service; external authorizers and token issuers are asked as for a real request.
Exit code 0: yes; 2: no; 1: it could not be found out.`,
		Example: `  ambit can shop/client GET http://reviews:9080/reviews/1
  ambit can shop/client-7d9-x DELETE http://web.bank/ -H 'Authorization: Bearer …'`,
		Args: func(c *cobra.Command, args []string) error {
			if len(args) != 3 {
				return usageError{fmt.Errorf("%s takes three arguments, SOURCE METHOD URL (see: %s --help)", c.CommandPath(), c.CommandPath())}
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
	q := &decision.Question{Method: strings.ToUpper(args[1]), URL: args[2], Header: map[string]string{}}
	if !strings.Contains(q.URL, "://") {
		q.URL = "http://" + q.URL
	}
	if ns, name, ok := strings.Cut(args[0], "/"); !ok || ns == "" || name == "" || strings.Contains(name, "/") {
		return nil, fmt.Errorf("%q: want namespace/name of a pod or a service account", args[0])
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
	if err := identify(ctx, c, source, q); err != nil {
		return nil, err
	}
	ztunnels, err := c.RunningPods(ctx, manifests.Namespace, ztunnelLabel, "")
	if err != nil {
		return nil, err
	}
	if len(ztunnels) == 0 {
		return nil, noProxy("")
	}
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

// identify finds the identity of a pod or a service account.
func identify(ctx context.Context, c *reach.Cluster, source string, q *decision.Question) error {
	ns, name, _ := strings.Cut(source, "/")
	domain, err := trustDomain(ctx, c)
	if err != nil {
		return err
	}
	id := spiffe.ID{TrustDomain: domain, Namespace: ns, ServiceAccount: name}
	pod, err := c.Client.CoreV1().Pods(ns).Get(ctx, name, metav1.GetOptions{})
	switch {
	case err == nil:
		q.Address = pod.Status.PodIP
		if id.ServiceAccount = pod.Spec.ServiceAccountName; id.ServiceAccount == "" {
			id.ServiceAccount = "default"
		}
	case !apierrors.IsNotFound(err):
		return fmt.Errorf("looking for pod %s: %w", source, err)
	default:
		if _, err := c.Client.CoreV1().ServiceAccounts(ns).Get(ctx, name, metav1.GetOptions{}); err != nil {
			return fmt.Errorf("looking for a pod or service account %s: %w", source, err)
		}
	}
	q.Source = id.String()
	return nil
}

// trustDomain is the mesh's.
func trustDomain(ctx context.Context, c *reach.Cluster) (string, error) {
	cm, err := c.Client.CoreV1().ConfigMaps(manifests.Namespace).Get(ctx, "istio", metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return spiffe.DefaultTrustDomain, nil
	}
	if err != nil {
		return "", fmt.Errorf("reading the mesh's settings: %w", err)
	}
	settings := struct {
		TrustDomain string `json:"trustDomain"`
	}{spiffe.DefaultTrustDomain}
	if err := yaml.Unmarshal([]byte(cm.Data["mesh"]), &settings); err != nil {
		return "", fmt.Errorf("reading the mesh's settings: %w", err)
	}
	return settings.TrustDomain, nil
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
