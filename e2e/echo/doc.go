// Package echo is the one test program that runs in pods: a server that tells
// what it saw (HTTP, TCP, UDP, gRPC health, a protocol where the server speaks
// first, bulk transfer with checksums, half-closed connections), and clients
// that try the same from the other side and print what happened as JSON.
//
// It owns the little protocols of its ports (ports.go). It refuses to know the
// mesh: what it prints is what any program would see. cmd/echo is the program;
// the demo and the end-to-end tests run it as the image localhost/ambit/echo:dev.
package echo
