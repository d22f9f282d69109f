// Package advanced is the echo program of the official Gateway API conformance
// suite: a server in every pod of its mesh tests, and the client that the suite
// runs in those pods and whose output it reads. It owns that output, line for
// line, and the server's, which is carried inside of it; it refuses everything
// the suite does not ask for, since e2e/echo is the program of our own tests.
// cmd/server and cmd/client are the two programs of the image.
package advanced
