package bench

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"

	"github.com/ambit-mesh/ambit/internal/linux"
)

// What a client asks of the application with its first byte.
const (
	askEcho  = 'e' // everything comes back
	askCount = 'c' // bytes until the half-close; their number comes back
	askCarry = 'i' // carried bytes, then one comes back, then nothing more
)

// carried is what an idle connection has carried before.
const carried = 1 << 20

// runApp is the application: app ADDRESS.
func runApp(ctx context.Context, args []string, ready func()) error {
	l, err := net.Listen("tcp", args[0])
	if err != nil {
		return err
	}
	ready()
	return accept(ctx, l, serveApp)
}

// accept serves connections until ctx ends.
func accept(ctx context.Context, l net.Listener, serve func(*net.TCPConn)) error {
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	for {
		c, err := l.Accept()
		if ctx.Err() != nil {
			return nil // the process ends with it, and so what is being served
		}
		if err != nil {
			return err
		}
		go serve(c.(*net.TCPConn))
	}
}

func serveApp(c *net.TCPConn) {
	defer c.Close()
	var ask [1]byte
	if _, err := io.ReadFull(c, ask[:]); err != nil {
		return
	}
	switch ask[0] {
	case askEcho:
		echo(c)
	case askCount:
		n, _ := discard(c, -1)
		c.Write(binary.BigEndian.AppendUint64(nil, uint64(n)))
	case askCarry:
		discard(c, carried)
		c.Write(ask[:])
		c.Read(ask[:])
	}
}

func echo(c *net.TCPConn) {
	var buf [4096]byte
	for {
		n, err := c.Read(buf[:])
		if err != nil {
			return
		}
		if _, err := c.Write(buf[:n]); err != nil {
			return
		}
	}
}

var appBufs = sync.Pool{New: func() any { return new([256 << 10]byte) }}

// discard reads n bytes, or all for -1.
func discard(c *net.TCPConn, n int64) (total int64, err error) {
	b := appBufs.Get().(*[256 << 10]byte)
	defer appBufs.Put(b)
	for n < 0 || total < n {
		m, err := c.Read(b[:])
		total += int64(m)
		if err != nil {
			return total, err
		}
	}
	return total, nil
}

// path is a way to the application.
type path struct {
	name string
	ns   *linux.NetNS // where the client is
	to   netip.AddrPort
}

// ask connects and says what is wanted.
func (p *path) ask(what byte) (*net.TCPConn, error) {
	c, err := linux.DialTCP(context.Background(), p.ns, p.to, linux.DialOptions{})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", p.name, err)
	}
	if _, err := c.Write([]byte{what}); err != nil {
		c.Close()
		return nil, fmt.Errorf("%s: %w", p.name, err)
	}
	return c, nil
}
