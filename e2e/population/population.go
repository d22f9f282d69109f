// Package population fills an API server with what a large cluster has: nodes
// that are not there, and pods that run on them as far as their status says.
//
// It owns the objects and their changes. It refuses to start anything:
// e2e/apiserver runs the server, and what reads the objects is the caller's.
// Called by bench.
package population

import (
	"context"
	"fmt"

	"golang.org/x/sync/errgroup"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// Size is how much there is. Pods are spread evenly over nodes, namespaces and
// services.
type Size struct{ Nodes, Namespaces, Services, Pods int }

// Population is what was filled in.
type Population struct {
	Size
	client  kubernetes.Interface
	dynamic dynamic.Interface
}

// workers bounds how many requests are under way at once.
const workers = 32

// Open connects to the server that a kubeconfig leads to, and fills nothing.
func Open(kubeconfig string, size Size) (*Population, error) {
	cfg, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", kubeconfig, err)
	}
	cfg.QPS = -1 // workers are bound enough
	builtin := rest.CopyConfig(cfg)
	builtin.ContentType = "application/vnd.kubernetes.protobuf"
	p := &Population{Size: size}
	if p.client, err = kubernetes.NewForConfig(builtin); err != nil {
		return nil, err
	}
	p.dynamic, err = dynamic.NewForConfig(cfg)
	return p, err
}

// Fill makes everything. What others refer to is made first.
func (p *Population) Fill(ctx context.Context) error {
	for _, part := range []struct {
		n    int
		make func(context.Context, int) error
	}{
		{1, func(ctx context.Context, _ int) error { return p.namespace(ctx, "istio-system", nil) }},
		{1, p.makeNodeProxyAccount},
		{p.Namespaces, func(ctx context.Context, i int) error {
			return p.namespace(ctx, namespaceName(i), map[string]string{"istio.io/dataplane-mode": "ambient"})
		}},
		{p.Nodes, p.makeNode},
		{p.Services, p.makeService},
		{p.Services, p.makeSlice},
		{p.Pods, p.makePod},
	} {
		if err := each(ctx, part.n, part.make); err != nil {
			return fmt.Errorf("filling the API server: %w", err)
		}
	}
	return nil
}

// each calls make for 0 to n-1, some at a time.
func each(ctx context.Context, n int, make func(context.Context, int) error) error {
	tasks, ctx := errgroup.WithContext(ctx)
	tasks.SetLimit(workers)
	for i := range n {
		if ctx.Err() != nil {
			break
		}
		tasks.Go(func() error { return make(ctx, i) })
	}
	return tasks.Wait()
}

func (p *Population) namespace(ctx context.Context, name string, labels map[string]string) error {
	_, err := p.client.CoreV1().Namespaces().Create(ctx, namespace(name, labels), metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		return nil
	}
	return err
}

func (p *Population) makeNode(ctx context.Context, i int) error {
	n := node(i)
	made, err := p.client.CoreV1().Nodes().Create(ctx, n, metav1.CreateOptions{})
	if err != nil {
		return err
	}
	made.Status = n.Status
	_, err = p.client.CoreV1().Nodes().UpdateStatus(ctx, made, metav1.UpdateOptions{})
	return err
}

func (p *Population) makeService(ctx context.Context, i int) error {
	_, err := p.client.CoreV1().Services(p.namespaceOf(i)).Create(ctx, p.service(i), metav1.CreateOptions{})
	return err
}

func (p *Population) makeSlice(ctx context.Context, i int) error {
	_, err := p.client.DiscoveryV1().EndpointSlices(p.namespaceOf(i)).Create(ctx, p.slice(i), metav1.CreateOptions{})
	return err
}

// makePod writes a pod and then its status, as the kubelet does.
func (p *Population) makePod(ctx context.Context, i int) error {
	pod := p.pod(i)
	made, err := p.client.CoreV1().Pods(pod.Namespace).Create(ctx, pod, metav1.CreateOptions{})
	if err != nil {
		return err
	}
	made.Status = pod.Status
	_, err = p.client.CoreV1().Pods(pod.Namespace).UpdateStatus(ctx, made, metav1.UpdateOptions{})
	return err
}
