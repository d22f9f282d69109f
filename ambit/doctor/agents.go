package doctor

import (
	"fmt"
	"strings"
	"time"

	"github.com/ambit-mesh/ambit/internal/health"
)

// unlooked is how long the agent may not have compared a pod's rules with the
// kernel; it looks every ten seconds.
const unlooked = 2 * time.Minute

// judgeAgents tells what node agents know: the plugin, and the pods' rules.
func judgeAgents(f Facts) []Finding {
	var all []Finding
	for _, a := range f.Agents {
		if a.Why != "" {
			all = append(all, Finding{Fail, "node agent on " + a.Heard.Node, "could not be asked: " + a.Why, "kubectl -n istio-system logs " + short(a.Heard.Pod)})
			continue
		}
		all = append(all, f.judgePlugin(a.Heard.Node, a.Plugin)...)
		if a.Ztunnels == 0 {
			all = append(all, Finding{Fail, "ztunnel on " + a.Heard.Node, "is not connected to the node agent: new pods of the mesh wait, and its pods are not served", "kubectl -n istio-system get pods -o wide -l app=ztunnel; both mount /var/run/ztunnel of the node"})
		}
		for _, p := range a.Pods {
			all = append(all, f.judgeRules(a.Agent, p)...)
		}
	}
	return all
}

// short is a pod's name without its namespace.
func short(pod string) string { return pod[strings.IndexByte(pod, '/')+1:] }

func (f *Facts) judgePlugin(node string, p health.Plugin) []Finding {
	check := "plugin on " + node
	switch {
	case !p.InPlace:
		return []Finding{{Fail, check, "is not in the node's CNI configuration: " + p.Error, "pods would start outside the mesh: see that /etc/cni/net.d of the node has the configuration of its network; the agent then puts the plugin in by itself"}}
	case f.recently(p.Last):
		return []Finding{{Warn, check, fmt.Sprintf("had been taken out of the node's CNI configuration and was put back, %d times, last %s ago", p.Restored, f.ago(p.Last)), "find what else writes /etc/cni/net.d on the node: another network plugin's installer, or a configuration tool"}}
	}
	return []Finding{ok(check, "in place")}
}

func (f *Facts) judgeRules(a health.Agent, p health.Pod) []Finding {
	check := "rules of " + p.Pod
	const fix = "find what else changes nftables, ip rules or routes in the pod: a privileged container of it, or a tool on the node"
	switch {
	case p.Error != "":
		return []Finding{{Fail, check, "could not be mended: " + p.Error, fix + "; kubectl -n istio-system logs -l k8s-app=istio-cni-node"}}
	case f.recently(p.Last):
		return []Finding{{Warn, check, fmt.Sprintf("were missing or changed and are mended, %d times, last %s ago: %s", p.Mended, f.ago(p.Last), p.Drift), fix}}
	case p.Phase == "captured" && !p.Verified.IsZero() && a.Now.Sub(p.Verified) > unlooked:
		return []Finding{{Warn, check, "have not been compared with the kernel for " + a.Now.Sub(p.Verified).Round(time.Second).String(), "the node agent is overloaded or stuck: kubectl -n istio-system logs -l k8s-app=istio-cni-node"}}
	}
	return nil
}

func (f *Facts) ago(at time.Time) time.Duration { return max(f.Now.Sub(at), 0).Round(time.Second) }
