// Package ca is the mesh's certificate authority: it signs what ztunnel and
// waypoints ask for, and decides whose identity a caller may ask for.
//
// It owns issuing (Authority), the form of the signing material (Material),
// the rule of impersonation (Authorize) and the certificate request service.
// It refuses to know Kubernetes: who a token belongs to, which pods run where
// and where keys are kept come through small interfaces, which
// istiod-lite/kube fulfils. The root package of istiod-lite wires it.
package ca
