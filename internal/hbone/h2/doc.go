// Package h2 carries HBONE over TLS 1.3 and HTTP/2 (dataplane spec 1): a Dialer,
// a Server and the one engine below both.
//
// It owns the frames, the flow control, keepalive, drain and the bounds against
// abusive peers. Control frames and header blocks are golang.org/x/net/http2's
// and hpack's work; DATA is written and read here, because there each byte must
// be touched as rarely as possible:
//
//   - below crypto/tls, wire reads many records with one system call and gathers
//     many into one (wire.go);
//   - ReadFrom reads the application's socket into a buffer with nine bytes in
//     front, into which the frame header goes (send.go);
//   - the one reader of a tunnel writes DATA straight to the application's socket
//     as long as that takes it, and queues, within the stream's window, what it
//     does not take (recv.go). So the reader never waits for an application, and
//     in the common case no byte changes goroutine.
//
// A CONNECT-UDP (RFC 8441, RFC 9298) is capsules in DATA, which that reader decodes
// (datagram.go).
//
// Buffers are held only while bytes move. Nothing here decides who may connect:
// that is hbone.Credentials' and the handler's matter. Lock order: tunnel.wmu,
// stream.rmu, tunnel.cmu, tunnel.mu; none is held while waiting for another
// stream's application.
package h2
