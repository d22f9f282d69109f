// Package zds owns both ends of the node-local protocol between the CNI agent
// and ztunnel: one message a packet on a SOCK_SEQPACKET socket, the pod's
// network namespace as a descriptor beside it (dataplane spec 3.1-3.3).
//
// It refuses to know what a pod means to either side: the agent's reasons are
// in cni/agent, which calls Listen; ztunnel's states are in ztunnel/inpod,
// which calls Dial. It is the only user of the generated messages.
package zds
