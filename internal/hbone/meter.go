package hbone

import "syscall"

// Socket is what ReadFrom and WriteTo look for in their argument to move bytes
// between a kernel socket and the tunnel without waiting in a buffer. Bytes
// moved that way pass neither Read nor Write, so a caller that counts implements
// Moved too, as relay does.
type Socket interface {
	syscall.Conn
	// Moved is told of n > 0 bytes read from, or written to, the raw socket.
	Moved(n int)
}

// ResetWaiter is a stream that can be watched after its orderly end of reading,
// when otherwise only a failing write would show that the peer has gone.
type ResetWaiter interface {
	// AwaitReset returns ErrReset once the peer has aborted the stream, and nil
	// or ErrClosed once the stream has ended.
	AwaitReset() error
}

// DropCounter is a CONNECT-UDP stream that says how many datagrams had to be
// dropped because nobody received those before them.
type DropCounter interface {
	Dropped() uint64
}
