// Package eavesdrop listens on the wire between the two ends of a tunnel, in
// one process. It owns the promise that what applications say cannot be read
// there; it holds only tests, and refuses to know the tunnel's inside. The same
// promise is kept on a real cluster by e2e/suite.
package eavesdrop
