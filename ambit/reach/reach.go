// Package reach finds a cluster by its kubeconfig and gets at what runs in it:
// its API, and the admin ports of its pods by port-forward. It owns the
// connection; it refuses to interpret what comes back. Called by the other
// packages of the ambit command.
package reach

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/transport/spdy"
)

// Cluster is a connection to one cluster.
type Cluster struct {
	Config  *rest.Config
	Client  kubernetes.Interface
	Dynamic dynamic.Interface
	Mapper  *restmapper.DeferredDiscoveryRESTMapper
}

// Open reads the kubeconfig (empty: $KUBECONFIG, then the home directory's, then
// the pod's own) and picks a context (empty: the current one). Nothing is
// contacted yet.
func Open(kubeconfig, kubecontext string) (*Cluster, error) {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = kubeconfig
	overrides := &clientcmd.ConfigOverrides{CurrentContext: kubecontext}
	cfg, err := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, overrides).ClientConfig()
	if clientcmd.IsEmptyConfig(err) {
		return nil, fmt.Errorf("finding the cluster: there is none in %s: set KUBECONFIG or --kubeconfig", strings.Join(rules.GetLoadingPrecedence(), ", "))
	}
	if err != nil {
		return nil, fmt.Errorf("finding the cluster (set KUBECONFIG or --kubeconfig): %w", err)
	}
	return New(cfg)
}

// New connects by a ready configuration.
func New(cfg *rest.Config) (*Cluster, error) {
	cfg.QPS, cfg.Burst = 50, 100 // a command, not a controller: no reason to crawl
	client, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		return nil, fmt.Errorf("making a client: %w", err)
	}
	dyn, err := dynamic.NewForConfig(cfg)
	if err != nil {
		return nil, fmt.Errorf("making a client: %w", err)
	}
	mapper := restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(client.Discovery()))
	return &Cluster{Config: cfg, Client: client, Dynamic: dyn, Mapper: mapper}, nil
}

// RunningPods are the running pods of a namespace that carry the label, by
// node if node is not empty.
func (c *Cluster) RunningPods(ctx context.Context, namespace, label, node string) ([]corev1.Pod, error) {
	list, err := c.Client.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{LabelSelector: label})
	if err != nil {
		return nil, fmt.Errorf("listing pods: %w", err)
	}
	var pods []corev1.Pod
	for _, p := range list.Items {
		if p.Status.Phase == corev1.PodRunning && p.DeletionTimestamp == nil && (node == "" || p.Spec.NodeName == node) {
			pods = append(pods, p)
		}
	}
	return pods, nil
}

// Get fetches http://localhost:port/path from inside a pod.
func (c *Cluster) Get(ctx context.Context, namespace, pod string, port uint16, path string) ([]byte, error) {
	d, err := c.Door(ctx, namespace, pod, port)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	return d.Get(ctx, path)
}

// Door opens a way to an HTTP server on a pod's loopback. Close ends it.
func (c *Cluster) Door(ctx context.Context, namespace, pod string, port uint16) (*Door, error) {
	local, stop, err := c.forward(ctx, namespace, pod, port)
	if err != nil {
		return nil, err
	}
	return &Door{Name: namespace + "/" + pod, URL: "http://" + local.String(), stop: stop}, nil
}

// forward opens a local port that leads into the pod; stop ends it and waits.
func (c *Cluster) forward(ctx context.Context, namespace, pod string, port uint16) (netip.AddrPort, func(), error) {
	transport, upgrader, err := spdy.RoundTripperFor(c.Config)
	if err != nil {
		return netip.AddrPort{}, nil, fmt.Errorf("preparing a port-forward: %w", err)
	}
	url := c.Client.CoreV1().RESTClient().Post().Resource("pods").Namespace(namespace).Name(pod).SubResource("portforward").URL()
	dialer := spdy.NewDialer(upgrader, &http.Client{Transport: transport}, http.MethodPost, url)
	end, ready := make(chan struct{}), make(chan struct{})
	fw, err := portforward.NewOnAddresses(dialer, []string{"127.0.0.1"}, []string{"0:" + strconv.Itoa(int(port))}, end, ready, io.Discard, io.Discard)
	if err != nil {
		return netip.AddrPort{}, nil, fmt.Errorf("preparing a port-forward: %w", err)
	}
	done := make(chan error, 1)
	go func() { done <- fw.ForwardPorts() }()
	stop := func() { close(end); <-done }
	select {
	case err := <-done:
		return netip.AddrPort{}, nil, fmt.Errorf("port-forward to %s/%s: %w", namespace, pod, errors.Join(err, ctx.Err()))
	case <-ctx.Done():
		stop()
		return netip.AddrPort{}, nil, fmt.Errorf("port-forward to %s/%s: %w", namespace, pod, ctx.Err())
	case <-ready:
	}
	ports, err := fw.GetPorts()
	if err != nil || len(ports) == 0 {
		stop()
		return netip.AddrPort{}, nil, fmt.Errorf("port-forward to %s/%s: %w", namespace, pod, err)
	}
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), ports[0].Local), stop, nil
}
