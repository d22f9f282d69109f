// Package trial puts the mesh on trial: it compiles the official conformance
// suite (e2e/conformance, a module of its own), runs it on a stage in one of
// several modes, and reads from its log and its report whether everything that
// we claim was passed. It owns the list of claims; it refuses to interpret a
// test. Called by cmd/conformance and, for a few tests, by e2e/suite.
package trial
