// Package certs owns the client side of workload certificates (dataplane spec
// 6): one certificate per identity, requested from a CA, renewed at half its
// life and served until its last second whatever the CA does meanwhile; and the
// TLS configurations that present them and verify peers.
//
// Which roots are trusted comes with the certificates, or, outweighing that,
// from a control plane that tells of them (Guide): it changes them in steps, and
// hears of each how far we are. Lists of revoked certificates come from there
// and from a file; they end tunnels too.
//
// It refuses to issue anything, which is istiod-lite/ca's matter, and to know
// transports: hbone.Credentials is what it offers to them. Verification is
// go-spiffe's; what is added is who may be met: a server admits its own trust
// domain, a client the exact identities that it asked for.
package certs
