package netnstest

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

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
	s := serve(l, func(c *net.TCPConn) {
		peer := linux.AddrPort(c.RemoteAddr()).Addr()
		lines := bufio.NewScanner(c)
		for lines.Scan() {
			fmt.Fprintf(c, "%s %s: %s\n", name, peer, lines.Text())
		}
	})
	t.Cleanup(s.stop)
}

// Proxy plays ztunnel inside ns until the test ends: what arrives at 15001 or
// 15006 is carried to its original destination, from the original source if it
// came in, and each line back is marked with "by 15001 " or so.
func Proxy(t testing.TB, ns *linux.NetNS) {
	t.Helper()
	p, err := newProxy(t.Context(), ns)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.stop)
}

// proxy is the listeners of one pod.
type proxy []*server

func newProxy(ctx context.Context, ns *linux.NetNS) (proxy, error) {
	var p proxy
	for _, port := range []uint16{15001, 15006} {
		o := linux.ListenOptions{Mark: linux.Mark, Transparent: true, ReusePort: true}
		l, err := linux.ListenTCP(ctx, ns, netip.AddrPortFrom(netip.IPv6Unspecified(), port), o)
		if err != nil {
			p.stop()
			return nil, err
		}
		p = append(p, serve(l, func(c *net.TCPConn) { carry(ctx, ns, c, port) }))
	}
	return p, nil
}

func (p proxy) stop() {
	for _, s := range p {
		s.stop()
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
	stop := context.AfterFunc(ctx, func() { up.Close() })
	defer stop()
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

// server is a listener with its connections.
type server struct {
	l    *net.TCPListener
	all  sync.WaitGroup
	mu   sync.Mutex
	open map[*net.TCPConn]bool // guarded by mu; nil once stopped
}

func serve(l *net.TCPListener, handle func(*net.TCPConn)) *server {
	s := &server{l: l, open: map[*net.TCPConn]bool{}}
	s.all.Go(func() {
		for {
			c, err := l.AcceptTCP()
			if err != nil {
				return
			}
			s.mu.Lock()
			if s.open == nil {
				c.Close()
				s.mu.Unlock()
				return
			}
			s.open[c] = true
			s.mu.Unlock()
			s.all.Go(func() {
				handle(c)
				c.Close()
				s.mu.Lock()
				delete(s.open, c)
				s.mu.Unlock()
			})
		}
	})
	return s
}

// stop closes everything and waits.
func (s *server) stop() {
	s.l.Close()
	s.mu.Lock()
	for c := range s.open {
		c.Close()
	}
	s.open = nil
	s.mu.Unlock()
	s.all.Wait()
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

// DialFrom connects from ns, and from a port that is given.
func DialFrom(t testing.TB, ns *linux.NetNS, from, to netip.AddrPort) *Client {
	t.Helper()
	var c net.Conn
	Do(t, ns, func() (err error) {
		c, err = (&net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(from), Timeout: Patience}).Dial("tcp", to.String())
		return err
	})
	t.Cleanup(func() { c.Close() })
	return &Client{c.(*net.TCPConn), bufio.NewReader(c)}
}

// Knock begins to connect from ns: when it returns the first packet has been
// sent, and nothing has been waited for.
func Knock(t testing.TB, ns *linux.NetNS, to netip.AddrPort) *Client {
	t.Helper()
	var fd int
	Do(t, ns, func() (err error) {
		if fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0); err != nil {
			return err
		}
		if err := unix.Connect(fd, &unix.SockaddrInet4{Addr: to.Addr().As4(), Port: int(to.Port())}); err != unix.EINPROGRESS {
			return fmt.Errorf("connecting to %s: %w", to, err)
		}
		return nil
	})
	f := os.NewFile(uintptr(fd), "knock")
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return &Client{c.(*net.TCPConn), bufio.NewReader(c)}
}

// Ask sends a line and gives the answer.
func (c *Client) Ask(line string) (string, error) {
	if err := c.Send(line); err != nil {
		return "", err
	}
	return c.Answer()
}

// Send sends a line.
func (c *Client) Send(line string) error {
	c.c.SetDeadline(time.Now().Add(Patience))
	_, err := fmt.Fprintln(c.c, line)
	return err
}

// Answer waits for the answer to a line.
func (c *Client) Answer() (string, error) {
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
