package ca

import (
	"errors"
	"fmt"
	"slices"

	"github.com/ambit-mesh/ambit/internal/spiffe"
)

// Account is a service account.
type Account struct{ Namespace, Name string }

// String is "namespace/name".
func (a Account) String() string { return a.Namespace + "/" + a.Name }

// Caller is who a token belongs to.
type Caller struct {
	Account Account
	// PodName and PodUID are of the pod the token is bound to, empty if none.
	PodName, PodUID string
	// Node is the node the token is bound to, empty if it does not say.
	Node string
}

// Pod is what the rule of impersonation needs to know of a pod.
type Pod struct {
	UID, ServiceAccount, Node string
	// Ended pods have succeeded or failed.
	Ended bool
}

// Pods is where pods run.
type Pods interface {
	// Pod finds a pod by name.
	Pod(namespace, name string) (Pod, bool)
	// Runs reports whether a pod of the account that has not ended is on the node.
	Runs(node string, account Account) bool
}

// Authorize decides whether a caller may have a certificate of another's
// identity: only a trusted node proxy, only from the pod and node its token is
// bound to, and only identities that live on that node. A node that is taken
// over can so obtain no more than what runs on it.
func Authorize(c Caller, trusted []Account, pods Pods, trustDomain string, want spiffe.ID) error {
	if !slices.Contains(trusted, c.Account) {
		return fmt.Errorf("%s is not trusted to act for others", c.Account)
	}
	if c.PodName == "" || c.PodUID == "" {
		return errors.New("the token is not bound to a pod")
	}
	proxy, ok := pods.Pod(c.Account.Namespace, c.PodName)
	switch {
	case !ok:
		return fmt.Errorf("the caller's pod %s/%s is not known", c.Account.Namespace, c.PodName)
	case proxy.UID != c.PodUID:
		return fmt.Errorf("the caller's pod %s/%s has UID %s, the token %s", c.Account.Namespace, c.PodName, proxy.UID, c.PodUID)
	case proxy.ServiceAccount != c.Account.Name:
		return fmt.Errorf("the caller's pod %s/%s runs as %s", c.Account.Namespace, c.PodName, proxy.ServiceAccount)
	case proxy.Ended:
		return fmt.Errorf("the caller's pod %s/%s has ended", c.Account.Namespace, c.PodName)
	case proxy.Node == "":
		return fmt.Errorf("the caller's pod %s/%s is on no node", c.Account.Namespace, c.PodName)
	case c.Node != "" && c.Node != proxy.Node:
		return fmt.Errorf("the caller's token is for node %s, its pod is on %s", c.Node, proxy.Node)
	case want.TrustDomain != trustDomain:
		return fmt.Errorf("trust domain %q is not ours, %q", want.TrustDomain, trustDomain)
	}
	if !pods.Runs(proxy.Node, Account{want.Namespace, want.ServiceAccount}) {
		return fmt.Errorf("no pod of %s/%s runs on node %s", want.Namespace, want.ServiceAccount, proxy.Node)
	}
	return nil
}
