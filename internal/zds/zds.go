package zds

import (
	"errors"
	"fmt"
	"os"
	"time"
)

// DefaultPath is where the agent listens.
const DefaultPath = "/var/run/ztunnel/ztunnel.sock"

// AckTimeout bounds the answer to each request, and the hello. The agent drops
// a connection that misses it, since a late ack would be taken for the next
// request's (dataplane spec 3.7).
const AckTimeout = 5 * time.Second

// maxMessage is what both sides can read.
const maxMessage = 1024

// Pod is what ztunnel is told of a pod. The last three must match the workload
// that the control plane sends, or the pod's connections fail.
type Pod struct {
	// UID is the Kubernetes UID.
	UID string
	// Name, Namespace and ServiceAccount are never empty.
	Name, Namespace, ServiceAccount string
}

// String is "namespace/name".
func (p Pod) String() string { return p.Namespace + "/" + p.Name }

// Kind says what a request asks for.
type Kind uint8

// The requests.
const (
	// Add starts serving a pod; it carries the network namespace.
	Add Kind = iota + 1
	// Keep says that a pod still exists though the agent does not know its
	// namespace; only before SnapshotSent.
	Keep
	// Del stops serving a pod.
	Del
	// SnapshotSent ends the first listing; exactly once a connection.
	SnapshotSent
)

// String is the name used in logs.
func (k Kind) String() string {
	switch k {
	case Add:
		return "add"
	case Keep:
		return "keep"
	case Del:
		return "del"
	case SnapshotSent:
		return "snapshot-sent"
	}
	return "unknown"
}

// Request is one message from the agent.
type Request struct {
	Kind Kind
	// Pod is whole for Add; only its UID is set for Keep and Del.
	Pod Pod
	// NetNS is set for Add; the receiver closes it.
	NetNS *os.File
}

// NackError is ztunnel's answer that it could not do what was asked. The
// connection lives on; ztunnel itself retries a pod it could not serve.
type NackError struct{ Reason string }

func (e *NackError) Error() string { return "ztunnel answered: " + e.Reason }

// ErrClosed is any use of a connection after its end.
var ErrClosed = errors.New("zds: connection closed")

// ProtocolError is a peer that does not keep to the protocol.
type ProtocolError struct{ What string }

func (e *ProtocolError) Error() string { return "zds protocol violation: " + e.What }

func violation(format string, args ...any) error {
	return &ProtocolError{What: fmt.Sprintf(format, args...)}
}
