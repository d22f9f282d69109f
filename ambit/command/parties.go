package command

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/ambit-mesh/ambit/ambit/ask"
	"github.com/ambit-mesh/ambit/ambit/reach"
	"github.com/ambit-mesh/ambit/internal/decision"
	"github.com/ambit-mesh/ambit/internal/spiffe"
	"github.com/ambit-mesh/ambit/manifests"
)

// isObject reports whether a text is namespace/name.
func isObject(text string) bool {
	ns, name, ok := strings.Cut(text, "/")
	return ok && ns != "" && name != "" && !strings.Contains(name, "/")
}

// splitDestination takes the port off a destination, 0 if it has none. An IPv6
// address with a port is in brackets.
func splitDestination(text string) (host string, port uint16, err error) {
	if _, err := netip.ParseAddr(text); err == nil || !strings.Contains(text, ":") {
		return text, 0, nil
	}
	host, after, err := net.SplitHostPort(text)
	if err != nil {
		return "", 0, err
	}
	n, err := strconv.ParseUint(after, 10, 16)
	if err != nil || n == 0 || host == "" {
		return "", 0, fmt.Errorf("%q has no valid port", text)
	}
	return host, uint16(n), nil
}

// address puts a pod's address in place of its name in a destination.
func address(ctx context.Context, c *reach.Cluster, destination string) (string, error) {
	host, port, err := splitDestination(destination)
	if err != nil || !isObject(host) {
		return destination, err
	}
	ns, name, _ := strings.Cut(host, "/")
	pod, err := c.Client.CoreV1().Pods(ns).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return "", fmt.Errorf("looking for pod %s: %w", host, err)
	}
	if pod.Status.PodIP == "" {
		return "", fmt.Errorf("pod %s has no address yet", host)
	}
	return net.JoinHostPort(pod.Status.PodIP, strconv.Itoa(int(port))), nil
}

// pair finds both ends of connections by what a user calls them.
func pair(ctx context.Context, c *reach.Cluster, source, destination string) (p ask.Pair, err error) {
	p.Text = source + " → " + destination
	if p.Source, err = sourceParty(ctx, c, source); err != nil {
		return p, err
	}
	host, port, err := splitDestination(destination)
	if err != nil {
		return p, err
	}
	ns, _, _ := strings.Cut(source, "/")
	p.Port = port
	p.Destination, err = destinationParty(ctx, c, ns, host)
	return p, err
}

func sourceParty(ctx context.Context, c *reach.Cluster, source string) (ask.Party, error) {
	if a, err := netip.ParseAddr(source); err == nil {
		return ask.Party{Addresses: []netip.Addr{a.Unmap()}}, nil
	}
	ns, name, _ := strings.Cut(source, "/")
	pod, err := c.Client.CoreV1().Pods(ns).Get(ctx, name, metav1.GetOptions{})
	if err == nil {
		return podParty(pod), nil
	}
	var q decision.Question
	if _, err := identify(ctx, c, source, &q); err != nil {
		// A pod that is gone may still be remembered.
		return ask.Party{Names: []string{source}}, nil
	}
	return ask.Party{Identities: []string{q.Source}}, nil
}

// destinationParty is a pod, an address, or a service as a pod of a namespace
// would call it.
func destinationParty(ctx context.Context, c *reach.Cluster, namespace, host string) (ask.Party, error) {
	if a, err := netip.ParseAddr(host); err == nil {
		return ask.Party{Addresses: []netip.Addr{a.Unmap()}}, nil
	}
	if isObject(host) {
		ns, name, _ := strings.Cut(host, "/")
		pod, err := c.Client.CoreV1().Pods(ns).Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return ask.Party{Names: []string{host}}, nil
		}
		return podParty(pod), nil
	}
	out := ask.Party{Hosts: []string{host}}
	name, in, qualified := strings.Cut(host, ".")
	if !qualified {
		in = namespace
		out.Hosts = []string{name + "." + in}
	}
	in, _, _ = strings.Cut(in, ".")
	s, err := c.Client.CoreV1().Services(in).Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return out, nil // a name from outside
	}
	if err != nil {
		return out, fmt.Errorf("looking for service %s: %w", host, err)
	}
	out.Addresses = addresses(s.Spec.ClusterIPs)
	return out, nil
}

func podParty(pod *corev1.Pod) ask.Party {
	out := ask.Party{Names: []string{pod.Namespace + "/" + pod.Name}}
	for _, ip := range pod.Status.PodIPs {
		out.Addresses = append(out.Addresses, addresses([]string{ip.IP})...)
	}
	return out
}

func addresses(texts []string) (out []netip.Addr) {
	for _, text := range texts {
		if a, err := netip.ParseAddr(text); err == nil {
			out = append(out, a.Unmap())
		}
	}
	return out
}

// identify finds the identity of a pod or a service account, and the node of a
// pod.
func identify(ctx context.Context, c *reach.Cluster, source string, q *decision.Question) (node string, err error) {
	ns, name, _ := strings.Cut(source, "/")
	domain, err := trustDomain(ctx, c)
	if err != nil {
		return "", err
	}
	id := spiffe.ID{TrustDomain: domain, Namespace: ns, ServiceAccount: name}
	pod, err := c.Client.CoreV1().Pods(ns).Get(ctx, name, metav1.GetOptions{})
	switch {
	case err == nil:
		q.Address, node = pod.Status.PodIP, pod.Spec.NodeName
		if id.ServiceAccount = pod.Spec.ServiceAccountName; id.ServiceAccount == "" {
			id.ServiceAccount = "default"
		}
	case !apierrors.IsNotFound(err):
		return "", fmt.Errorf("looking for pod %s: %w", source, err)
	default:
		if _, err := c.Client.CoreV1().ServiceAccounts(ns).Get(ctx, name, metav1.GetOptions{}); err != nil {
			return "", fmt.Errorf("looking for a pod or service account %s: %w", source, err)
		}
	}
	q.Source = id.String()
	return node, nil
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
