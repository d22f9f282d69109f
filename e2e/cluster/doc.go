// Package cluster makes a real Kubernetes cluster out of namespaces on one
// Linux machine: etcd, kube-apiserver, kube-controller-manager and
// kube-scheduler on a machine named "control", and kubelet, containerd, runc
// and kube-proxy on machines "node1", "node2" and so on.
//
// It owns everything that carries its name: the state directory, the network
// namespaces ambit-NAME-*, the host interface ambitN, the cgroup
// ambit-e2e/NAME and the processes in it. Down removes every trace, also those
// of a run that crashed. Of the host's settings it raises two limits while a
// cluster exists (limits.go) and changes nothing else.
//
// It refuses to know anything about the mesh. Tests and the demo call Open,
// Up, Load, the Node functions and Down; cmd/cluster is a thin command over
// the same functions. The package needs root.
//
// The wire between the machines is a bridge, br0, in a network namespace of
// its own, ambit-NAME-lan, with one port per machine (node1, node2, control)
// and one for the host. Living apart it is out of reach of the host's
// firewall, and a capture there sees every frame between the nodes.
package cluster
