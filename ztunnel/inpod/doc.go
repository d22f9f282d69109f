// Package inpod keeps a proxy in each pod that the CNI agent names (dataplane
// spec 3.4). It owns the list of pods: what is served, what could not be
// served yet and is tried again, what drains.
//
// A pod that cannot be served harms only itself: it is refused to the agent
// with the reason and tried again, while the others and the node's readiness
// go on. While the agent is away everything keeps being served. The package
// refuses to know what a proxy does; ztunnel's root gives it a function that
// starts one.
package inpod
