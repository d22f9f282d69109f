// Package names decides what a name means to a pod: the addresses that the mesh
// has for it, or that the mesh does not know it.
//
// It owns the order in which a name is looked for (as asked, expanded, and with
// what a search list had put behind it taken off again), wildcards, whose
// service is meant, and which addresses are told. It refuses to know the form
// of DNS messages and to guess: of a name that the mesh does not know for
// certain somebody else is asked. Pure; ztunnel/dns calls it.
package names

import (
	"net/netip"

	"github.com/ambit-mesh/ambit/internal/mesh"
)

// Question is a name, and who asks for it.
type Question struct {
	// Client is the pod that asks. Required.
	Client *mesh.Workload
	// Domain is the cluster's, without dots around it.
	Domain string
	// Name is in lower case, without the dot at its end.
	Name string
	// V6 asks for IPv6 addresses, else for IPv4.
	V6 bool
}

// Answer is what the mesh knows of a name.
type Answer struct {
	// Alias is the name that was meant, where a search list had put something
	// behind it; empty if the name itself was.
	Alias string
	// Service is whose addresses they are.
	Service *mesh.Service
	// Addresses may be none: the name is there, and has none of this family.
	Addresses []netip.Addr
}
