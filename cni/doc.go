// Package cni is the node agent: it puts the pods of its node into the mesh
// before their first packet or live, takes them out again, and keeps its CNI
// plugin in the node's chain. This package is its wiring.
//
//	cni/plugin ─► cni/event ─► cni/agent ─► cni/members ─► cni/rules, cni/probes ─► cni/nft
//	                             │  │            └───────► cni/handoff ─► internal/zds ─► ztunnel
//	                     cni/enrol  cni/podns
//
// It refuses to carry traffic (ztunnel does) and to know policies.
// cni/cmd/ambit-cni-agent runs it.
package cni
