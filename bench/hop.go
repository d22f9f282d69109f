package bench

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"

	"github.com/ambit-mesh/ambit/internal/certs"
	"github.com/ambit-mesh/ambit/internal/certs/certstest"
	"github.com/ambit-mesh/ambit/internal/linux"
	"github.com/ambit-mesh/ambit/internal/spiffe"
)

// The baselines. They are frozen: a proxy that does nothing but copy, with a
// buffer of 64 KiB for each direction, over plain TCP or crypto/tls. The kernel
// captures and marks for them as it does for ztunnel: the near one listens where
// captured connections arrive, the far one connects with the client's address.

// runPlainOut is the near hop of plain copying: plain-out LISTEN TO.
func runPlainOut(ctx context.Context, args []string, ready func()) error {
	return hop(ctx, args[0], ready, func(c *net.TCPConn) (end, end, error) {
		to, err := dial(args[1], netip.Addr{})
		return c, to, err
	})
}

// runPlainIn is the far one: plain-in LISTEN TO.
func runPlainIn(ctx context.Context, args []string, ready func()) error {
	return hop(ctx, args[0], ready, func(c *net.TCPConn) (end, end, error) {
		to, err := dial(args[1], linux.AddrPort(c.RemoteAddr()).Addr())
		return c, to, err
	})
}

// runTLSOut encrypts: tls-out LISTEN TO CAFILE frozen|tuned.
func runTLSOut(ctx context.Context, args []string, ready func()) error {
	cert, err := certificate(ctx, args[2], clientID)
	if err != nil {
		return err
	}
	cfg := cert.ClientTLS([]spiffe.ID{serverID})
	return hop(ctx, args[0], ready, func(c *net.TCPConn) (end, end, error) {
		to, err := dial(args[1], netip.Addr{})
		if err != nil {
			return nil, nil, err
		}
		far, err := secure(to, args[3], func(c net.Conn) *tls.Conn { return tls.Client(c, cfg) })
		return c, far, err
	})
}

// runTLSIn decrypts: tls-in LISTEN TO CAFILE frozen|tuned.
func runTLSIn(ctx context.Context, args []string, ready func()) error {
	cert, err := certificate(ctx, args[2], serverID)
	if err != nil {
		return err
	}
	cfg := cert.ServerTLS()
	return hop(ctx, args[0], ready, func(c *net.TCPConn) (end, end, error) {
		to, err := dial(args[1], linux.AddrPort(c.RemoteAddr()).Addr())
		if err != nil {
			return nil, nil, err
		}
		near, err := secure(c, args[3], func(c net.Conn) *tls.Conn { return tls.Server(c, cfg) })
		return near, to, err
	})
}

// end is *net.TCPConn or *tls.Conn.
type end interface {
	io.ReadWriteCloser
	CloseWrite() error
}

func hop(ctx context.Context, listen string, ready func(), ends func(*net.TCPConn) (end, end, error)) error {
	l, err := net.Listen("tcp", listen)
	if err != nil {
		return err
	}
	ready()
	return accept(ctx, l, func(c *net.TCPConn) {
		defer c.Close()
		a, b, err := ends(c)
		if err != nil {
			fmt.Fprintln(os.Stderr, "hop:", err)
			return
		}
		defer b.Close()
		var back sync.WaitGroup
		back.Go(func() { copyLoop(a, b) })
		copyLoop(b, a)
		back.Wait()
	})
}

// dial marks its packets as ztunnel's, which are not captured, and takes the
// source's address if there is one.
func dial(to string, source netip.Addr) (*net.TCPConn, error) {
	addr, err := netip.ParseAddrPort(to)
	if err != nil {
		return nil, err
	}
	return linux.DialTCP(context.Background(), nil, addr, linux.DialOptions{Mark: linux.Mark, Source: source})
}

// copyLoop is the frozen loop.
func copyLoop(dst, src end) {
	buf := make([]byte, 64<<10)
	for {
		n, err := src.Read(buf)
		if n > 0 {
			if _, err := dst.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			if errors.Is(err, io.EOF) {
				dst.CloseWrite()
			}
			return
		}
	}
}

// The identities of the two pods.
var (
	clientID = certstest.ID("bench", "client")
	serverID = certstest.ID("bench", "server")
)

// certificate asks the CA in a file.
func certificate(ctx context.Context, caFile string, id spiffe.ID) (*certs.Certificate, error) {
	m, stop, err := credentials(ctx, caFile)
	if err != nil {
		return nil, err
	}
	defer stop()
	return m.Certificate(ctx, id)
}
