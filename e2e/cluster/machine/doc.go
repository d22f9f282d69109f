// Package machine runs one pretend computer of a test cluster: a set of Linux
// namespaces (network, mount, PID, UTS, IPC) with its own disk, its own /run,
// its own cgroup and a small init that keeps the services of its Spec alive.
//
// It owns the life of the namespaces: Start, Stop, Kill and the init itself
// (Init, called by cmd/machine-init as PID 1). Killing PID 1 is pulling the
// plug: the kernel ends every process of the machine with it.
//
// It refuses to know anything about Kubernetes, and it makes no network: the
// network namespace is made by the caller and named in the Spec.
// Package cluster is its only caller.
package machine
