package netnstest

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ambit-mesh/ambit/internal/linux"
)

// Patience is how long anything here may take.
const Patience = 10 * time.Second

// Serve answers, inside ns, each line on every connection to port with
// "NAME PEER: LINE". It ends with the test.
func Serve(t testing.TB, ns *linux.NetNS, port uint16, name string, o linux.ListenOptions) {
	t.Helper()
	l, err := linux.ListenTCP(t.Context(), ns, netip.AddrPortFrom(netip.IPv6Unspecified(), port), o)
	if err != nil {
		t.Fatal(err)
	}
	serve(t, l, func(c *net.TCPConn) {
		peer := linux.AddrPort(c.RemoteAddr()).Addr()
		lines := bufio.NewScanner(c)
		for lines.Scan() {
			fmt.Fprintf(c, "%s %s: %s\n", name, peer, lines.Text())
		}
	})
}

// Proxy plays ztunnel inside ns: what arrives at 15001 or 15006 is carried to
// its original destination, from the original source if it came in, and each
// line back is marked with "by 15001 " or so.
func Proxy(t testing.TB, ns *linux.NetNS) {
	t.Helper()
	for _, port := range []uint16{15001, 15006} {
		o := linux.ListenOptions{Mark: linux.Mark, Transparent: true, ReusePort: true}
		l, err := linux.ListenTCP(t.Context(), ns, netip.AddrPortFrom(netip.IPv6Unspecified(), port), o)
		if err != nil {
			t.Fatal(err)
		}
		serve(t, l, func(c *net.TCPConn) { carry(t.Context(), ns, c, port) })
	}
}

func carry(ctx context.Context, ns *linux.NetNS, c *net.TCPConn, port uint16) {
	dst, err := linux.OriginalDst(c)
	if err != nil || dst.Port() == port {
		return
	}
	o := linux.DialOptions{Mark: linux.Mark}
	if port == 15006 {
		o.Source = linux.AddrPort(c.RemoteAddr()).Addr()
	}
	up, err := linux.DialTCP(ctx, ns, dst, o)
	if err != nil {
		c.SetLinger(0)
		return
	}
	defer up.Close()
	var back sync.WaitGroup
	back.Go(func() {
		lines := bufio.NewScanner(up)
		for lines.Scan() {
			fmt.Fprintf(c, "by %d %s\n", port, lines.Text())
		}
		c.CloseWrite()
	})
	io.Copy(up, c)
	up.CloseWrite()
	back.Wait()
}

// serve accepts until the test ends and then waits for every connection.
func serve(t testing.TB, l *net.TCPListener, handle func(*net.TCPConn)) {
	var all sync.WaitGroup
	var mu sync.Mutex
	open := map[*net.TCPConn]bool{}
	all.Go(func() {
		for {
			c, err := l.AcceptTCP()
			if err != nil {
				return
			}
			mu.Lock()
			open[c] = true
			mu.Unlock()
			all.Go(func() { handle(c); c.Close() })
		}
	})
	t.Cleanup(func() {
		l.Close()
		mu.Lock()
		for c := range open {
			c.Close()
		}
		mu.Unlock()
		all.Wait()
	})
}

// Client is one connection.
type Client struct {
	c *net.TCPConn
	r *bufio.Reader
}

// Dial connects from ns.
func Dial(t testing.TB, ns *linux.NetNS, to netip.AddrPort) (*Client, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), Patience)
	defer cancel()
	c, err := linux.DialTCP(ctx, ns, to, linux.DialOptions{})
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() { c.Close() })
	return &Client{c, bufio.NewReader(c)}, nil
}

// Ask sends a line and gives the answer.
func (c *Client) Ask(line string) (string, error) {
	c.c.SetDeadline(time.Now().Add(Patience))
	if _, err := fmt.Fprintln(c.c, line); err != nil {
		return "", err
	}
	answer, err := c.r.ReadString('\n')
	return strings.TrimSpace(answer), err
}

// Close ends the connection.
func (c *Client) Close() { c.c.Close() }

// Ask asks one line on a connection of its own; the answer to a failure is
// "failed".
func Ask(t testing.TB, ns *linux.NetNS, to netip.AddrPort, line string) string {
	t.Helper()
	c, err := Dial(t, ns, to)
	if err != nil {
		return "failed"
	}
	defer c.Close()
	answer, err := c.Ask(line)
	if err != nil {
		return "failed"
	}
	return answer
}
