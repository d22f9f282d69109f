// Package health is what the running parts of a mesh say of themselves to
// `ambit check`: plain values, written as JSON by the one who answers and read
// by the one who asks.
//
// It owns the forms and the path under which they are served. It refuses to
// judge: a part tells facts, ambit/doctor says what is wrong with them. Filled
// in by the roots of ztunnel, waypoint, cni and istiod-lite.
package health

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"time"
)

// Path is where each part serves its facts, to its own loopback only.
const Path = "/debug/health"

// ReachPath is where a node proxy makes a tunnel to each other node.
const ReachPath = "/debug/reach"

// Proxy is what a node proxy or a waypoint says.
type Proxy struct {
	Node    string    `json:"node,omitempty"`
	Version string    `json:"version,omitempty"`
	Now     time.Time `json:"now"`
	// Configuration is the control plane's generation that decides here.
	Configuration uint64 `json:"configuration"`
	// Age is how long no control plane has confirmed the state that decides
	// here; 0 while one is connected.
	Age          time.Duration `json:"age,omitempty"`
	ControlPlane Connection    `json:"controlPlane"`
	// Identities are those it speaks for, or tries to.
	Identities []Identity `json:"identities,omitempty"`
	// Roots are all that it trusts.
	Roots []Root `json:"roots,omitempty"`
	// Unserved are pods of its node that it cannot serve, or not wholly.
	Unserved []Unserved `json:"unserved,omitempty"`
}

// Connection is how a part is connected to another.
type Connection struct {
	Address   string    `json:"address,omitempty"`
	Connected bool      `json:"connected"`
	Since     time.Time `json:"since,omitzero"`
	// Error is why the last connection ended or did not come about.
	Error string `json:"error,omitempty"`
}

// Identity is one identity and its certificate.
type Identity struct {
	// ID is a SPIFFE id, TrustDomain its first part.
	ID          string    `json:"id"`
	TrustDomain string    `json:"trustDomain"`
	State       string    `json:"state"`
	Until       time.Time `json:"until,omitzero"`
	// Error is of the last request for a certificate.
	Error string `json:"error,omitempty"`
}

// Root is a certificate that peers may chain to.
type Root struct {
	Fingerprint string    `json:"fingerprint"`
	Subject     string    `json:"subject,omitempty"`
	From        time.Time `json:"from"`
	Until       time.Time `json:"until"`
}

// RootOf describes a certificate.
func RootOf(c *x509.Certificate) Root {
	sum := sha256.Sum256(c.Raw)
	return Root{Fingerprint: hex.EncodeToString(sum[:8]), Subject: c.Subject.String(), From: c.NotBefore, Until: c.NotAfter}
}

// RootsOf describes the certificates of a PEM text, and says whether all of it
// could be read.
func RootsOf(text []byte) (all []Root, whole bool) {
	whole = true
	for {
		block, rest := pem.Decode(text)
		if block == nil {
			return all, whole && len(all) > 0
		}
		text = rest
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			whole = false
			continue
		}
		all = append(all, RootOf(c))
	}
}

// Unserved is a pod, and what is not done for it.
type Unserved struct {
	Pod   string `json:"pod"`
	Error string `json:"error"`
}

// Reach is one tunnel that was tried to another node, without a stream in it.
type Reach struct {
	// Node is the other one; From and To are the pods between which.
	Node    string `json:"node"`
	From    string `json:"from"`
	To      string `json:"to"`
	Address string `json:"address"`
	Error   string `json:"error,omitempty"`
	// Silent says that nothing at all came back.
	Silent bool `json:"silent,omitempty"`
}

// Agent is what a node agent says.
type Agent struct {
	Node string    `json:"node"`
	Now  time.Time `json:"now"`
	// Ztunnels are how many node proxies have been told of all pods.
	Ztunnels int    `json:"ztunnels"`
	Plugin   Plugin `json:"plugin"`
	Pods     []Pod  `json:"pods,omitempty"`
	// Waiting are pods that may not start yet.
	Waiting []Waiting `json:"waiting,omitempty"`
}

// Plugin is the CNI plugin's place in the node's chain.
type Plugin struct {
	InPlace bool   `json:"inPlace"`
	Error   string `json:"error,omitempty"`
	// Restored is how often somebody had taken it out, Last when that was seen.
	Restored int       `json:"restored,omitempty"`
	Last     time.Time `json:"last,omitzero"`
}

// Pod is a pod of the mesh and its rules.
type Pod struct {
	Pod   string `json:"pod"`
	Phase string `json:"phase"`
	// Verified is when its rules were last compared with the kernel.
	Verified time.Time `json:"verified,omitzero"`
	// Mended is how often they differed, Last when, Drift how.
	Mended int       `json:"mended,omitempty"`
	Last   time.Time `json:"last,omitzero"`
	Drift  string    `json:"drift,omitempty"`
	// Error is why they could not be looked at or mended the last time.
	Error string `json:"error,omitempty"`
}

// Waiting is a pod that may not start yet: told so first at Since, and at Last
// again, with the Reason.
type Waiting struct {
	Pod    string    `json:"pod"`
	Since  time.Time `json:"since"`
	Last   time.Time `json:"last"`
	Reason string    `json:"reason"`
}

// ControlPlane is what a replica of the control plane says.
type ControlPlane struct {
	Now         time.Time `json:"now"`
	TrustDomain string    `json:"trustDomain"`
	Roots       []Root    `json:"roots,omitempty"`
	// Signs is until when it can sign.
	Signs time.Time `json:"signs,omitzero"`
}
