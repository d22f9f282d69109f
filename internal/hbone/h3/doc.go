// Package h3 carries HBONE over QUIC and HTTP/3 (RFC 9000, RFC 9114): a Dialer
// and a Server with the meaning that hbone/h2 gives them. quic-go does packets,
// recovery, flow control and TLS; the frames of HTTP/3, the life of a tunnel and
// the bounds against abusive peers are here, as they are for HTTP/2, because no
// implementation of HTTP/3 lets a CONNECT half-close either way and tells of a
// drain.
//
// What QUIC has otherwise than TCP, and what is made of it:
//
//   - A reset overtakes bytes. Both ends speak RESET_STREAM_AT, and what was
//     written before a Reset is still delivered before it (abort in stream.go).
//   - The end of a connection drops what its applications have not read. So who
//     is told of a drain reads its ended streams into memory and only then says
//     that nothing is missing, and a tunnel is closed when both ends have said so
//     (leave.go).
//   - A connection may move to another address. A tunnel whose peer's IP address
//     changes is ended before a byte goes either way (moved in tunnel.go): policy
//     judged the address that it began with.
//   - A window is given back as the application reads, for the tunnel as for its
//     streams. The tunnel's window is therefore as large as what all streams may
//     hold that are never read, so that these hold up nobody.
//
// A CONNECT-UDP sends each datagram in a packet where it fits, and otherwise as a
// capsule on its stream (datagram.go).
//
// There is no 0-RTT and no resumption: each tunnel is a full handshake.
//
// Lock order: stream.wmu, stream.rmu, tunnel.mu; tunnel.mu is taken in callbacks
// of quic-go's, so nothing of quic-go's is called under it.
package h3
