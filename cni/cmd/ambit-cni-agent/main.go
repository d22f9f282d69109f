// Command ambit-cni-agent is the node agent. It reads the environment that the
// manifests set and does one of two things: "agent" (the default) keeps the
// node's pods in the mesh; "uninstall" takes the mesh off the node and ends.
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"

	"github.com/ambit-mesh/ambit/cni"
	"github.com/ambit-mesh/ambit/cni/plugin"
	"github.com/ambit-mesh/ambit/internal/admin"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "ambit-cni-agent:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) == 0 {
		args = []string{"agent"}
	}
	cfg, err := fromEnvironment()
	if err != nil {
		return err
	}
	switch args[0] {
	case "agent":
		return cni.Run(ctx, cfg)
	case "uninstall":
		return cni.Uninstall(ctx, cfg)
	}
	return fmt.Errorf("unknown command %q; there are agent and uninstall", args[0])
}

// fromEnvironment reads the variables; those that upstream's agent knows have
// its names.
func fromEnvironment() (cni.Config, error) {
	levels, err := admin.ParseLevels(os.Getenv("LOG_LEVEL"))
	if err != nil {
		return cni.Config{}, fmt.Errorf("LOG_LEVEL: %w", err)
	}
	cfg := cni.Config{
		NodeName:      os.Getenv("NODE_NAME"),
		Exclude:       excluded(os.Getenv("EXCLUDE_NAMESPACES"), os.Getenv("POD_NAMESPACE")),
		ControlPlane:  os.Getenv("POD_NAMESPACE"),
		RunDir:        os.Getenv("CNI_AGENT_RUN_DIR"),
		ZtunnelSocket: os.Getenv("ZTUNNEL_UDS_ADDRESS"),
		PluginSource:  os.Getenv("CNI_PLUGIN_SOURCE"),
		BinDir:        os.Getenv("MOUNTED_CNI_BIN_DIR"),
		ConfDir:       os.Getenv("MOUNTED_CNI_NET_DIR"),
		NodeNetNS:     os.Getenv("NODE_NETNS"),
		HealthAddr:    os.Getenv("HEALTH_ADDR"),
		MetricsAddr:   os.Getenv("METRICS_ADDR"),
		Log:           slog.New(levels.Handler(slog.NewTextHandler(os.Stdout, &slog.HandlerOptions{Level: slog.LevelDebug}))),
	}
	if cfg.NodeName == "" {
		return cni.Config{}, errors.New("NODE_NAME is not set; the manifest sets it to spec.nodeName")
	}
	if err := errors.Join(
		duration("LOOK_EVERY", &cfg.LookEvery),
		duration("RELEASE_GRACE", &cfg.Grace),
		duration("UNINSTALL_LIMIT", &cfg.LeaveLimit),
		number("KUBELET_UID", &cfg.KubeletUID),
		not("AMBIENT_DNS_CAPTURE", &cfg.NoDNS),
	); err != nil {
		return cni.Config{}, err
	}
	// The API server's client tells each of its steps; only trouble is news.
	trouble := slog.NewTextHandler(os.Stdout, &slog.HandlerOptions{Level: slog.LevelWarn})
	klog.SetSlogLogger(slog.New(trouble).With("component", "client-go"))
	cfg.Kube, err = kube()
	return cfg, err
}

// excluded are the namespaces of the list, and always the agent's own: it and
// ztunnel must be able to start before it.
func excluded(list, own string) []string {
	all := plugin.DefaultExclude
	if list != "" {
		all = strings.FieldsFunc(list, func(r rune) bool { return r == ',' || r == ' ' })
	}
	for _, name := range all {
		if name == own {
			return all
		}
	}
	if own == "" {
		return all
	}
	return append(append([]string{}, all...), own)
}

func duration(name string, d *time.Duration) error {
	s := os.Getenv(name)
	if s == "" {
		return nil
	}
	var err error
	if *d, err = time.ParseDuration(s); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// not sets the opposite of a variable that is true unless it is said.
func not(name string, b *bool) error {
	s := os.Getenv(name)
	if s == "" {
		return nil
	}
	v, err := strconv.ParseBool(s)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	*b = !v
	return nil
}

func number(name string, n *uint32) error {
	s := os.Getenv(name)
	if s == "" {
		return nil
	}
	v, err := strconv.ParseUint(s, 10, 32)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	*n = uint32(v)
	return nil
}

// kube connects as the pod's service account, or by KUBECONFIG outside a pod.
func kube() (kubernetes.Interface, error) {
	config, err := rest.InClusterConfig()
	if path := os.Getenv("KUBECONFIG"); path != "" {
		config, err = clientcmd.BuildConfigFromFlags("", path)
	}
	if err != nil {
		return nil, fmt.Errorf("finding the cluster: %w", err)
	}
	config.QPS, config.Burst = 50, 100 // a namespace's pods are annotated at once
	config.UserAgent = "ambit-cni"
	config.AcceptContentTypes = "application/vnd.kubernetes.protobuf,application/json"
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("connecting to the cluster: %w", err)
	}
	return client, nil
}
