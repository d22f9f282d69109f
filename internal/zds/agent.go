package zds

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// Listener is the agent's end: ztunnels connect to it.
type Listener struct {
	l *net.UnixListener
}

// Listen listens at path, making its directory and replacing a socket that an
// earlier agent left behind.
func Listen(path string) (*Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		return nil, fmt.Errorf("making the directory of the zds socket: %w", err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("removing an old zds socket: %w", err)
	}
	l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: path, Net: "unixpacket"})
	if err != nil {
		return nil, fmt.Errorf("listening for ztunnels: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(fmt.Errorf("restricting the zds socket: %w", err), l.Close())
	}
	return &Listener{l}, nil
}

// Accept waits for a ztunnel; the hello is still to come (Conn.Hello), so that
// a silent peer holds up nobody else.
func (l *Listener) Accept() (*Conn, error) {
	c, err := l.l.AcceptUnix()
	if err != nil {
		return nil, fmt.Errorf("accepting a ztunnel: %w", err)
	}
	return newConn(c), nil
}

// Close stops accepting and removes the socket; connections live on.
func (l *Listener) Close() error { return l.l.Close() }

// Conn is the agent's connection to one ztunnel. Its requests wait for each
// other and each for its ack; any error but a *NackError has closed it.
type Conn struct {
	c    *net.UnixConn
	acks chan []byte   // from the reader to whoever asks
	done chan struct{} // closed by the reader at its end

	asking sync.Mutex // held from request to ack

	mu      sync.Mutex
	waiting bool  // a request is on its way
	err     error // why it ended
}

func newConn(c *net.UnixConn) *Conn {
	conn := &Conn{c: c, acks: make(chan []byte, 1), done: make(chan struct{}), waiting: true}
	go conn.read()
	return conn
}

// read ends with the connection; Close waits for it. Only reading all the time
// notices at once that a ztunnel has gone.
func (c *Conn) read() {
	defer close(c.done)
	for {
		b, f, err := readPacket(c.c, make([]byte, maxMessage))
		if f != nil {
			f.Close()
			err = violation("descriptor from ztunnel")
		}
		if err == nil && !c.takeWaiting() {
			err = violation("message from ztunnel that answers nothing")
		}
		if err != nil {
			c.fail(err)
			return
		}
		c.acks <- b // never blocks: one is awaited, one fits
	}
}

func (c *Conn) takeWaiting() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	w := c.waiting
	c.waiting = false
	return w
}

// fail closes the socket and keeps the first reason.
func (c *Conn) fail(err error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == nil {
		c.err = err
	}
	c.c.Close()
	return c.err
}

// Hello waits for ztunnel's greeting and gives its version. It must be the
// first call.
func (c *Conn) Hello(ctx context.Context) (version int32, err error) {
	c.asking.Lock()
	defer c.asking.Unlock()
	b, err := c.await(ctx)
	if err != nil {
		return 0, fmt.Errorf("waiting for ztunnel's hello: %w", err)
	}
	if version, err = unmarshalHello(b); err != nil {
		return 0, c.fail(err)
	}
	return version, nil
}

// Add asks to serve pod in the namespace that netns is a file of.
func (c *Conn) Add(ctx context.Context, pod Pod, netns *os.File) error {
	return c.ask(ctx, Request{Kind: Add, Pod: pod, NetNS: netns})
}

// Keep says that the pod lives though its namespace is not known.
func (c *Conn) Keep(ctx context.Context, uid string) error {
	return c.ask(ctx, Request{Kind: Keep, Pod: Pod{UID: uid}})
}

// Del asks to stop serving the pod. ztunnel stops listening before its ack;
// connections it has accepted drain or, if the pod is gone, are cut.
func (c *Conn) Del(ctx context.Context, uid string) error {
	return c.ask(ctx, Request{Kind: Del, Pod: Pod{UID: uid}})
}

// SnapshotSent ends the first listing; pods not listed are stopped.
func (c *Conn) SnapshotSent(ctx context.Context) error {
	return c.ask(ctx, Request{Kind: SnapshotSent})
}

func (c *Conn) ask(ctx context.Context, r Request) error {
	b, err := marshalRequest(r)
	if err != nil {
		return err // nothing was sent: the connection is whole
	}
	c.asking.Lock()
	defer c.asking.Unlock()
	c.mu.Lock()
	c.waiting = true
	c.mu.Unlock()
	c.c.SetWriteDeadline(time.Now().Add(AckTimeout))
	if err := writePacket(c.c, b, r.NetNS); err != nil {
		return fmt.Errorf("%s %s: %w", r.Kind, r.Pod.UID, c.fail(err))
	}
	answer, err := c.await(ctx)
	if err != nil {
		return fmt.Errorf("%s %s: %w", r.Kind, r.Pod.UID, err)
	}
	reason, err := unmarshalAck(answer)
	if err != nil {
		return fmt.Errorf("%s %s: %w", r.Kind, r.Pod.UID, c.fail(err))
	}
	if reason != "" {
		return &NackError{Reason: reason}
	}
	return nil
}

// await gives the next message, or closes the connection: after a timeout
// nobody could tell whose ack comes next.
func (c *Conn) await(ctx context.Context) ([]byte, error) {
	timeout := time.NewTimer(AckTimeout)
	defer timeout.Stop()
	select {
	case b := <-c.acks:
		return b, nil
	case <-c.done:
		select {
		case b := <-c.acks: // answered, then left
			return b, nil
		default:
			return nil, c.Err()
		}
	case <-ctx.Done():
		return nil, c.fail(context.Cause(ctx))
	case <-timeout.C:
		return nil, c.fail(fmt.Errorf("no answer in %v", AckTimeout))
	}
}

// Done is closed when the connection has ended, whoever ended it.
func (c *Conn) Done() <-chan struct{} { return c.done }

// Err is why the connection ended, nil while it lives.
func (c *Conn) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// Close ends the connection and waits for its reader. It may be called twice.
func (c *Conn) Close() error {
	c.fail(ErrClosed)
	<-c.done
	return nil
}
