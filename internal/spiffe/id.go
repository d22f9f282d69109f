// Package spiffe owns the mesh's form of a SPIFFE identity:
// spiffe://<trust domain>/ns/<namespace>/sa/<service account>.
//
// It refuses every other path form. Certificates, trust bundles and their
// verification are go-spiffe's and internal/certs' matter. Everything that
// speaks of who a workload is uses this package.
package spiffe

import (
	"fmt"
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// DefaultTrustDomain is what an empty trust domain on the wire means
// (dataplane spec 4.8).
const DefaultTrustDomain = "cluster.local"

// ID is a workload's identity. It is comparable; the zero value is "no
// identity", which is what a plaintext peer has.
type ID struct {
	TrustDomain    string
	Namespace      string
	ServiceAccount string
}

// Parse reads the seven-component text form and checks it by go-spiffe's rules.
func Parse(s string) (ID, error) {
	sid, err := spiffeid.FromString(s)
	if err != nil {
		return ID{}, fmt.Errorf("parsing identity %q: %w", s, err)
	}
	p := strings.Split(sid.Path(), "/")
	if len(p) != 5 || p[1] != "ns" || p[3] != "sa" {
		return ID{}, fmt.Errorf("parsing identity %q: want spiffe://<trust domain>/ns/<namespace>/sa/<service account>", s)
	}
	return ID{TrustDomain: sid.TrustDomain().Name(), Namespace: p[2], ServiceAccount: p[4]}, nil
}

// IsZero reports whether there is no identity.
func (id ID) IsZero() bool { return id == ID{} }

// String is the URI form; the zero ID is the empty string.
func (id ID) String() string {
	if id.IsZero() {
		return ""
	}
	return "spiffe://" + id.Principal()
}

// Principal is the text that policies compare with: the URI without its scheme.
func (id ID) Principal() string {
	if id.IsZero() {
		return ""
	}
	return id.TrustDomain + "/ns/" + id.Namespace + "/sa/" + id.ServiceAccount
}

// SPIFFE is the same identity as go-spiffe's value.
func (id ID) SPIFFE() (spiffeid.ID, error) { return spiffeid.FromString(id.String()) }
