// Package kept keeps what a ztunnel knows on its node, so that one that is
// started while the control plane is away begins where the one before ended:
// what the control plane sent, with the version of each resource, and the
// certificates of the accounts that run there.
//
// It owns the files: their form, their checks, when and how they are written.
// A file is written whole or not at all, with the workloads and their policies
// of one moment in one file; one that is torn, changed, too old or of another
// mesh is refused, said in the log and in a metric, and never half used.
// Writing is not on any connection's path, and both its rate and its size are
// bounded. It refuses to know what a resource means, and keeps keys only where
// they are in memory. ztunnel's root calls it.
package kept
