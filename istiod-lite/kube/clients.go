package kube

import (
	"fmt"

	istio "istio.io/client-go/pkg/clientset/versioned"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	gateway "sigs.k8s.io/gateway-api/pkg/client/clientset/versioned"
)

// Clients speak to one API server.
type Clients struct {
	Kube    kubernetes.Interface
	Istio   istio.Interface
	Gateway gateway.Interface
	// Metadata reads the names of custom resource definitions.
	Metadata metadata.Interface
	// Dynamic writes statuses, whatever their kind.
	Dynamic dynamic.Interface
}

// NewClients connects as a kubeconfig file says, or as the pod it runs in if
// the path is empty.
func NewClients(kubeconfig, userAgent string) (Clients, error) {
	cfg, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return Clients{}, fmt.Errorf("finding the API server: %w", err)
	}
	cfg.UserAgent = userAgent
	// A replica that starts reads everything and reviews many tokens at once;
	// the API server has its own fairness.
	cfg.QPS, cfg.Burst = 200, 400
	// The built-in kinds are cheaper in protobuf; custom ones have only JSON.
	builtin := rest.CopyConfig(cfg)
	builtin.AcceptContentTypes = "application/vnd.kubernetes.protobuf,application/json"
	builtin.ContentType = "application/vnd.kubernetes.protobuf"
	c := Clients{}
	if c.Kube, err = kubernetes.NewForConfig(builtin); err != nil {
		return c, fmt.Errorf("making a client: %w", err)
	}
	if c.Istio, err = istio.NewForConfig(cfg); err != nil {
		return c, fmt.Errorf("making a client: %w", err)
	}
	if c.Gateway, err = gateway.NewForConfig(cfg); err != nil {
		return c, fmt.Errorf("making a client: %w", err)
	}
	if c.Metadata, err = metadata.NewForConfig(cfg); err != nil {
		return c, fmt.Errorf("making a client: %w", err)
	}
	// Statuses are written by few at once, which is bound enough: of a thousand
	// that change together, none should wait for its turn by the clock.
	statuses := rest.CopyConfig(cfg)
	statuses.QPS = -1
	if c.Dynamic, err = dynamic.NewForConfig(statuses); err != nil {
		return c, fmt.Errorf("making a client: %w", err)
	}
	return c, nil
}
