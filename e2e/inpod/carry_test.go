package inpod_test

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"testing"

	"github.com/ambit-mesh/ambit/internal/linux"
	"github.com/ambit-mesh/ambit/internal/mesh"
)

func TestConnectionsBetweenPods(t *testing.T) {
	needsRoot(t)
	w := newWorld(t, "one", "two")
	client := w.newPod(w.nodes[0], "client").enrolled()
	plainClient := w.newPod(w.nodes[0], "plain-client")
	near := w.newPod(w.nodes[0], "near").enrolled()
	far := w.newPod(w.nodes[1], "far").enrolled()
	plain := w.newPod(w.nodes[1], "plain")
	for _, p := range []*pod{near, far, plain, client} {
		p.echo(8080)
	}
	w.change(func(m *mesh.Model) {
		s := &mesh.Service{
			Name: "far", Namespace: "shop", Hostname: "far.shop.svc.cluster.local", Ports: []mesh.Port{{Service: 80, Target: 8080}},
			Addresses: []mesh.NetworkPrefix{{Prefix: netip.MustParsePrefix("10.96.0.1/32")}},
		}
		m.Services[s.Key()] = s
	})
	far.edit(func(x *mesh.Workload) {
		x.Services = map[mesh.ServiceKey][]mesh.Port{{Namespace: "shop", Hostname: "far.shop.svc.cluster.local"}: {{Service: 80, Target: 8080}}}
	})
	w.settle()
	for _, c := range []struct {
		name   string
		from   *pod
		to     netip.AddrPort
		server *pod
		hbone  bool // by tunnel
		sides  int  // how many ztunnels write a record
	}{
		{"same node, by tunnel", client, near.at(8080), near, true, 2},
		{"across nodes, by tunnel", client, far.at(8080), far, true, 2},
		{"across nodes, IPv6, by tunnel", client, far.at6(8080), far, true, 2},
		{"to a service, by tunnel to its pod", client, netip.MustParseAddrPort("10.96.0.1:80"), far, true, 2},
		{"to a pod outside of the mesh, plain", client, plain.at(8080), plain, false, 1},
		{"from a pod outside of the mesh, plain", plainClient, far.at(8080), far, false, 1},
		{"from a pod outside of the mesh on the same node, IPv6", plainClient, near.at6(8080), near, false, 1},
		{"between pods outside of the mesh, untouched", plainClient, plain.at(8080), plain, false, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			seen, err := c.from.call(c.to)
			if err != nil {
				t.Fatal(err)
			}
			if want := c.from.v4; c.to.Addr().Is4() && seen != want || c.to.Addr().Is6() && seen != c.from.v6 {
				t.Errorf("the server saw %s, want the client's own address %s", seen, want)
			}
			who := map[bool]any{true: c.from.identity().String()}[c.hbone]
			if c.sides == 2 {
				c.from.node.logged(t, map[string]any{"direction": "outbound", "src.identity": who, "dst.identity": c.server.identity().String(), "src.workload": c.from.name, "dst.workload": c.server.name, "reason": "allowed: no policy restricts it"})
			}
			if c.sides > 0 && c.server != plain {
				c.server.node.logged(t, map[string]any{"direction": "inbound", "src.identity": who, "src.workload": c.from.name, "dst.workload": c.server.name, "reason": "allowed: no policy restricts it"})
			}
		})
	}
}

func TestAPodReachesItself(t *testing.T) {
	needsRoot(t)
	w := newWorld(t, "one")
	p := w.newPod(w.nodes[0], "self").enrolled()
	p.echo(8080)
	w.change(func(m *mesh.Model) {
		s := &mesh.Service{
			Name: "self", Namespace: "shop", Hostname: "self.shop.svc.cluster.local", Ports: []mesh.Port{{Service: 80, Target: 8080}},
			Addresses: []mesh.NetworkPrefix{{Prefix: netip.MustParsePrefix("10.96.0.1/32")}},
		}
		m.Services[s.Key()] = s
	})
	p.edit(func(x *mesh.Workload) {
		x.Services = map[mesh.ServiceKey][]mesh.Port{{Namespace: "shop", Hostname: "self.shop.svc.cluster.local"}: {{Service: 80, Target: 8080}}}
	})
	w.settle()
	for _, to := range []string{p.at(8080).String(), "127.0.0.1:8080", "[::1]:8080", p.at6(8080).String(), "10.96.0.1:80"} {
		if _, err := p.call(netip.MustParseAddrPort(to)); err != nil {
			t.Errorf("calling itself at %s: %v", to, err)
		}
	}
}

func TestAPodWithoutIPv6IsServed(t *testing.T) {
	needsRoot(t)
	w := newWorld(t, "one")
	client, server := w.newPod(w.nodes[0], "client"), w.newPod(w.nodes[0], "server")
	sysctl(t, server.ns, "net.ipv6.conf.all.disable_ipv6", "1")
	server.listenAt(netip.AddrPortFrom(netip.IPv4Unspecified(), 8080), func(c *net.TCPConn) {
		fmt.Fprintln(c, linux.AddrPort(c.RemoteAddr()).Addr())
		io.Copy(c, c)
	})
	client.enrolled()
	server.enrolled()
	if seen, err := client.call(server.at(8080)); err != nil || seen != client.v4 {
		t.Errorf("seen as %v, %v", seen, err)
	}
}

func TestWhateverTheApplicationsDo(t *testing.T) {
	needsRoot(t)
	w := newWorld(t, "one", "two")
	client := w.newPod(w.nodes[0], "client").enrolled()
	plainClient := w.newPod(w.nodes[0], "plain-client")
	server := w.newPod(w.nodes[1], "server").enrolled()
	for _, from := range []*pod{client, plainClient} {
		t.Run("from "+from.name, func(t *testing.T) { behaviours(t, from, server) })
	}
}

func behaviours(t *testing.T, client, server *pod) {
	const (
		banner, reply, reset, refuse, bulk = 7001, 7002, 7003, 7004, 7005
	)
	offset := uint16(0)
	if client.name != "client" {
		offset = 100 // each client has its own servers
	}
	at := func(port uint16) netip.AddrPort { return server.at(port + offset) }
	connect := func(t *testing.T, port uint16) *net.TCPConn {
		t.Helper()
		c, err := client.dial(at(port))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	t.Run("the server may speak first", func(t *testing.T) {
		server.listen(banner+offset, func(c *net.TCPConn) { io.WriteString(c, "220 ready\n"); io.Copy(io.Discard, c) })
		c := connect(t, banner)
		b := make([]byte, 10)
		if _, err := io.ReadFull(c, b); err != nil || string(b) != "220 ready\n" {
			t.Errorf("banner %q, %v", b, err)
		}
	})
	t.Run("the client may end first and still be answered", func(t *testing.T) {
		server.listen(reply+offset, func(c *net.TCPConn) {
			b, _ := io.ReadAll(c)
			fmt.Fprintf(c, "got %d", len(b))
		})
		c := connect(t, reply)
		io.WriteString(c, "question")
		c.CloseWrite()
		if b, err := io.ReadAll(c); err != nil || string(b) != "got 8" {
			t.Errorf("answer %q, %v", b, err)
		}
	})
	t.Run("the server may end first and still be told", func(t *testing.T) {
		heard := make(chan string, 1)
		server.listen(reply+1000+offset, func(c *net.TCPConn) {
			c.CloseWrite()
			b, _ := io.ReadAll(c)
			heard <- string(b)
		})
		c := connect(t, reply+1000)
		if b, err := io.ReadAll(c); err != nil || len(b) > 0 {
			t.Fatalf("read %q, %v; want the end", b, err)
		}
		io.WriteString(c, "afterwards")
		c.CloseWrite()
		if got := <-heard; got != "afterwards" {
			t.Errorf("the server heard %q", got)
		}
	})
	t.Run("a reset is a reset", func(t *testing.T) {
		server.listen(reset+offset, func(c *net.TCPConn) {
			io.ReadFull(c, make([]byte, 1))
			c.SetLinger(0)
		})
		c := connect(t, reset)
		io.WriteString(c, "x")
		if _, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, io.EOF) {
			t.Errorf("read gave %v, want a reset", err)
		}
	})
	t.Run("nobody listening is an error, not silence", func(t *testing.T) {
		c, err := client.dial(at(refuse))
		if err == nil {
			defer c.Close()
			if _, err = c.Read(make([]byte, 1)); errors.Is(err, io.EOF) {
				t.Errorf("read gave %v, want a reset", err)
			}
		}
		if err == nil {
			t.Error("no error")
		}
	})
	t.Run("megabytes arrive whole, both ways at once", func(t *testing.T) {
		server.listen(bulk+offset, func(c *net.TCPConn) { io.Copy(c, c); c.CloseWrite() })
		c := connect(t, bulk)
		sum := sha256.New()
		go func() {
			src := rand.NewChaCha8([32]byte{1})
			io.CopyN(io.MultiWriter(c, sum), src, 64<<20)
			c.CloseWrite()
		}()
		got := sha256.New()
		n, err := io.Copy(got, c)
		if err != nil || n != 64<<20 || string(got.Sum(nil)) != string(sum.Sum(nil)) {
			t.Errorf("%d bytes back, %v; sums equal: %v", n, err, string(got.Sum(nil)) == string(sum.Sum(nil)))
		}
	})
}
