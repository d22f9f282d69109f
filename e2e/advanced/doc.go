// Package advanced is the echo program of the official Gateway API conformance
// suite: a server in every pod of its mesh tests, and the client that the suite
// runs in those pods and whose output it reads. It owns that output, line for
// line, and the server's, which is carried inside of it; it refuses what neither
// the suite nor our cases beside it ask for: e2e/echo is the program of all
// other tests.
// cmd/server and cmd/client are the two programs of the image.
package advanced
