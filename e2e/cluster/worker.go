package cluster

import (
	"fmt"
	"net/netip"
	"path/filepath"

	"github.com/ambit-mesh/ambit/e2e/cluster/machine"
)

// cniPlugins are the programs that the node's network configuration names.
var cniPlugins = []string{"ptp", "host-local", "portmap", "loopback"}

// hostSettings are settings of the whole host that a kubelet would change, with
// the values that content it.
var hostSettings = map[string]string{
	"vm/overcommit_memory":      "1",
	"vm/panic_on_oom":           "0",
	"kernel/panic":              "10",
	"kernel/panic_on_oops":      "1",
	"kernel/keys/root_maxkeys":  "1000000",
	"kernel/keys/root_maxbytes": "25000000",
}

// nodeSysctls are settings of the node's own network namespace.
var nodeSysctls = map[string]string{
	"net/ipv4/ip_forward":              "1",
	"net/ipv6/conf/all/forwarding":     "1",
	"net/ipv6/conf/default/forwarding": "1",
	// The plan makes duplicate addresses impossible; looking for them would keep
	// the way to a new pod closed for its first second.
	"net/ipv6/conf/all/accept_dad":     "0",
	"net/ipv6/conf/default/accept_dad": "0",
}

// workerSpec describes the machine of a node.
func workerSpec(s *state, dir string, ca *pki, n node, snapshotter string) (machine.Spec, error) {
	p := s.plan()
	files, err := workerFiles(p, ca, n, snapshotter)
	if err != nil {
		return machine.Spec{}, err
	}
	return machine.Spec{
		Name: n.Name, Netns: netnsPath(p.netns(n.Name)), Cgroup: p.cgroupOf(n.Name),
		Disk: diskOf(dir, n.Name), Bin: s.Bin, Files: files, Masks: hostSettings,
		Sysctls: nodeSysctls,
		Services: []machine.Service{
			{Name: "containerd", Args: []string{"containerd", "--config", "/etc/containerd/config.toml"}},
			{Name: "kubelet", Program: "kube", Args: kubeletArgs(p, n), Await: containerdSocket},
			{Name: "kube-proxy", Program: "kube", Args: []string{"kube-proxy", "--config=" + kubernetesDir + "/kube-proxy.yaml"}, Await: "tcp:" + p.apiAddr()},
		},
	}, nil
}

const containerdSocket = "/run/containerd/containerd.sock"

func workerFiles(p plan, ca *pki, n node, snapshotter string) (map[string]machine.File, error) {
	f := p.facts(n.Name)
	f.OwnPods, f.Snapshotter = p.podsOf(n.Number), snapshotter
	files := map[string]machine.File{
		pkiDir + "/ca.crt":             {Content: string(ca.bundle())},
		kubernetesDir + "/resolv.conf": {Content: fmt.Sprintf("nameserver %s\n", p.dnsAddr())},
	}
	for path, asset := range map[string]string{
		"/etc/containerd/config.toml":      "containerd.toml",
		kubernetesDir + "/kubelet.yaml":    "kubelet.yaml",
		kubernetesDir + "/kube-proxy.yaml": "kube-proxy.yaml",
	} {
		content, err := render(asset, f)
		if err != nil {
			return nil, err
		}
		files[path] = machine.File{Content: content}
	}
	hosts := []string{n.Name}
	for _, a := range p.nodeAddrs(n.Number) {
		hosts = append(hosts, a.String())
	}
	if err := addCertificate(files, ca, "kubelet", subject{name: "system:node:" + n.Name, group: "system:nodes", hosts: hosts}); err != nil {
		return nil, err
	}
	for name, user := range map[string]subject{
		"kubelet":    {name: "system:node:" + n.Name, group: "system:nodes"},
		"kube-proxy": {name: "system:kube-proxy"},
	} {
		if err := addKubeconfig(files, p, ca, name, user); err != nil {
			return nil, err
		}
	}
	return files, nil
}

// cniConfigFile is the node's network configuration. It is written once, when
// the disk is new: after that it belongs to who chains plugins into it, and
// survives reboots as on a real node.
const cniConfigFile = "/etc/cni/net.d/10-ambit-e2e.conflist"

func cniConfig(p plan, n node) (string, error) {
	f := p.facts(n.Name)
	f.OwnPods = p.podsOf(n.Number)
	return render("cni.json", f)
}

func kubeletArgs(p plan, n node) []string {
	zone := string(rune('a' + (n.Number-1)%26))
	return []string{
		"kubelet",
		"--config=" + kubernetesDir + "/kubelet.yaml",
		"--kubeconfig=" + kubernetesDir + "/kubelet.kubeconfig",
		"--hostname-override=" + n.Name,
		"--node-ip=" + joined(p.nodeAddrs(n.Number)),
		"--node-labels=topology.kubernetes.io/region=local,topology.kubernetes.io/zone=local-" + zone,
	}
}

// diskOf is the directory of a machine's disk.
func diskOf(dir, name string) string { return filepath.Join(dir, "machines", name) }

// bracketed prints an address as the host part of host:port.
func bracketed(a netip.Addr) string {
	if a.Is6() {
		return "[" + a.String() + "]"
	}
	return a.String()
}
