package cni

import (
	"log/slog"
	"path/filepath"
	"time"

	"github.com/ambit-mesh/ambit/cni/agent"
	"github.com/ambit-mesh/ambit/cni/event"
	"github.com/ambit-mesh/ambit/cni/plugin"
	"github.com/ambit-mesh/ambit/internal/zds"
)

// Config is what Run needs. Paths are as the agent's container sees them.
type Config struct {
	// Kube is the cluster's API; required.
	Kube agent.Kube
	// NodeName is the node's name; required.
	NodeName string
	// Exclude are namespaces that are never enrolled and whose pods start
	// without the agent; nil is plugin.DefaultExclude. The agent's own must be
	// among them.
	Exclude []string
	// ControlPlane is the namespace of the control plane, which is asked before
	// a pod is let go of; empty: nobody is asked.
	ControlPlane string
	// ControlPlanePort is where its pods answer; 0 is 8080.
	ControlPlanePort uint16
	// NoDNS leaves the DNS queries of pods alone that do not ask by annotation.
	NoDNS bool
	// RunDir is for the plugin's socket, the same path on the node; empty is
	// the directory of event.DefaultSocket.
	RunDir string
	// ZtunnelSocket is where ztunnels connect; empty is zds.DefaultPath.
	ZtunnelSocket string
	// PluginSource is the plugin's binary in the image; empty is
	// /opt/cni/bin/ambit-cni.
	PluginSource string
	// BinDir and ConfDir are the node's CNI directories; empty is
	// /host/opt/cni/bin and /host/etc/cni/net.d.
	BinDir, ConfDir string
	// NodeNetNS is the node's own network namespace; empty is
	// /proc/1/ns/net, which is right in the host PID namespace.
	NodeNetNS string
	// Proc is where the node's processes are; empty is /proc.
	Proc string
	// KubeletUID is who the kubelet runs as; 0 is root.
	KubeletUID uint32
	// HealthAddr and MetricsAddr are listened on; empty is :8000 and :15014.
	HealthAddr, MetricsAddr string
	// LookEvery is how often the kernel is compared with what is wished; 0 is
	// 10 seconds.
	LookEvery time.Duration
	// Grace is how long a released pod goes on accepting HBONE at the least; 0
	// is 5 seconds.
	Grace time.Duration
	// LeaveLimit bounds how long Uninstall waits for captured connections; 0
	// is 30 seconds.
	LeaveLimit time.Duration
	// Log is required.
	Log *slog.Logger
}

func (c Config) withDefaults() Config {
	fill := func(s *string, value string) {
		if *s == "" {
			*s = value
		}
	}
	fill(&c.RunDir, filepath.Dir(event.DefaultSocket))
	fill(&c.ZtunnelSocket, zds.DefaultPath)
	fill(&c.PluginSource, "/opt/cni/bin/"+plugin.Type)
	fill(&c.BinDir, "/host/opt/cni/bin")
	fill(&c.ConfDir, "/host/etc/cni/net.d")
	fill(&c.NodeNetNS, "/proc/1/ns/net")
	fill(&c.Proc, "/proc")
	fill(&c.HealthAddr, ":8000")
	fill(&c.MetricsAddr, ":15014")
	if c.Exclude == nil {
		c.Exclude = plugin.DefaultExclude
	}
	if c.LeaveLimit == 0 {
		c.LeaveLimit = 30 * time.Second
	}
	return c
}

func (c Config) pluginSocket() string {
	return filepath.Join(c.RunDir, filepath.Base(event.DefaultSocket))
}
