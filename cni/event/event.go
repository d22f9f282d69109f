// Package event owns what the CNI plugin tells the node agent, and how: HTTP
// over a socket on the node, one request for each sandbox that is made or
// ended. The agent answers 200 once the pod may start.
//
// It refuses decisions: cni/plugin calls it, cni/agent serves it. It stays
// small, for the plugin is run anew for each pod.
package event

import (
	"errors"
	"fmt"
	"net/netip"
)

// DefaultSocket is where the agent listens on the node.
const DefaultSocket = "/var/run/istio-cni/pluginevent.sock"

// The paths of the requests, each a POST of JSON.
const (
	// AddPath takes an Add: 200 the pod may start, 400 no request of ours, 500
	// not yet, with the reason as text.
	AddPath = "/cmdadd"
	// DelPath takes a Del; the answer does not matter.
	DelPath = "/cmddel"
)

// Add is a sandbox whose network is made and whose containers have not started.
type Add struct {
	// Netns is the path of the network namespace on the node.
	Netns string
	// PodName and PodNamespace name the pod.
	PodName, PodNamespace string
	// PodUID is its UID, empty if the runtime does not say.
	PodUID string
	// ContainerID is the sandbox's.
	ContainerID string
	// IPs are the addresses that the plugins before gave it.
	IPs []IP
}

// IP is one address of a sandbox.
type IP struct {
	// Address has the prefix, e.g. 10.1.2.3/24.
	Address string
	// Gateway may be empty.
	Gateway string
}

// Addresses are the sandbox's own, or why they cannot be read.
func (a *Add) Addresses() ([]netip.Addr, error) {
	var all []netip.Addr
	for _, ip := range a.IPs {
		p, err := netip.ParsePrefix(ip.Address)
		if err != nil {
			return nil, fmt.Errorf("reading the pod's addresses: %w", err)
		}
		all = append(all, p.Addr().Unmap())
	}
	if len(all) == 0 {
		return nil, errors.New("the plugins before gave the pod no address")
	}
	return all, nil
}

// Del is a sandbox that ends.
type Del struct {
	// ContainerID is the sandbox's.
	ContainerID string
	// PodName and PodNamespace name the pod, for the log.
	PodName, PodNamespace string
}
