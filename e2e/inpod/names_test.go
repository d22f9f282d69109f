package inpod_test

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/ambit-mesh/ambit/cni/rules"
	"github.com/ambit-mesh/ambit/internal/health"
	"github.com/ambit-mesh/ambit/internal/linux"
	"github.com/ambit-mesh/ambit/internal/mesh"
)

// cluster is the cluster's DNS: a pod that knows one address for every name,
// and tells no more than one record by UDP of names that begin with "long".
type cluster struct {
	*pod
	asked   atomic.Int64
	by      atomic.Value               // the last client's address
	address atomic.Pointer[netip.Addr] // where every name leads
}

func (w *world) newCluster(n *node, address string) *cluster {
	w.t.Helper()
	c := &cluster{pod: w.newPod(n, "coredns")}
	leads := netip.MustParseAddr(address)
	c.address.Store(&leads)
	packets, err := linux.ListenUDP(w.t.Context(), c.ns, netip.AddrPortFrom(c.v4, 53), linux.ListenOptions{})
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { packets.Close() })
	go func() {
		buf := make([]byte, 4096)
		for {
			n, from, err := packets.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			c.by.Store(from.Addr())
			packets.WriteToUDPAddrPort(c.reply(buf[:n], false), from)
		}
	}()
	c.listen(53, func(conn *net.TCPConn) {
		var size [2]byte
		if _, err := io.ReadFull(conn, size[:]); err != nil {
			return
		}
		b := make([]byte, binary.BigEndian.Uint16(size[:]))
		if _, err := io.ReadFull(conn, b); err != nil {
			return
		}
		answer := c.reply(b, true)
		conn.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(answer))), answer...))
	})
	return c
}

func (c *cluster) reply(raw []byte, whole bool) []byte {
	c.asked.Add(1)
	var m dnsmessage.Message
	if m.Unpack(raw) != nil || len(m.Questions) == 0 {
		return raw
	}
	q := m.Questions[0]
	m.Response, m.Additionals = true, nil
	m.Truncated = strings.HasPrefix(q.Name.String(), "long") && !whole
	if q.Type == dnsmessage.TypeA && !m.Truncated {
		m.Answers = []dnsmessage.Resource{{
			Header: dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class, TTL: 1},
			Body:   &dnsmessage.AResource{A: c.address.Load().As4()},
		}}
	}
	out, err := m.Pack()
	if err != nil {
		return raw
	}
	return out
}

// names is the pod's resolver, which asks the cluster's DNS.
func (p *pod) names(c *cluster) *net.Resolver {
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		to := netip.AddrPortFrom(c.v4, 53)
		if strings.HasPrefix(network, "tcp") {
			return linux.DialTCP(ctx, p.ns, to, linux.DialOptions{})
		}
		return linux.DialUDP(ctx, p.ns, to, linux.DialOptions{})
	}}
}

// lookup is the IPv4 addresses of a name, in words.
func (p *pod) lookup(c *cluster, name string) string {
	all, err := p.names(c).LookupNetIP(context.Background(), "ip4", name+".")
	if err != nil {
		return err.Error()
	}
	return strings.Trim(fmt.Sprint(all), "[]")
}

func (w *world) service(hostname, vip string) {
	w.t.Helper()
	name, _, _ := strings.Cut(hostname, ".")
	w.change(func(m *mesh.Model) {
		a := netip.MustParseAddr(vip)
		s := &mesh.Service{Name: name, Namespace: "shop", Hostname: hostname, Ports: []mesh.Port{{Service: 80, Target: 8080}},
			Addresses: []mesh.NetworkPrefix{{Prefix: netip.PrefixFrom(a, a.BitLen())}}}
		m.Services[s.Key()] = s
	})
}

// naming is a world with two nodes and the cluster's DNS in it.
func naming(t *testing.T) (*world, *cluster) {
	t.Helper()
	w := bare(t, "one", "two")
	resolv := filepath.Join(t.TempDir(), "resolv.conf")
	for _, n := range w.nodes {
		n.resolv = resolv
	}
	// The first pod of a node has this address.
	if err := os.WriteFile(resolv, fmt.Appendf(nil, "nameserver 10.%d.0.2\n", w.nodes[1].n), 0o600); err != nil {
		t.Fatal(err)
	}
	w.boot()
	return w, w.newCluster(w.nodes[1], "192.0.2.9")
}

func TestNamesAreAnsweredFromTheMesh(t *testing.T) {
	needsRoot(t)
	w, c := naming(t)
	client := w.newPod(w.nodes[0], "client").enrolled()
	plain := w.newPod(w.nodes[0], "plain")
	w.service("web.shop.svc.cluster.local", "10.96.0.1")
	w.service("api.example.com", "240.240.0.1")
	w.settle()
	for _, tt := range []struct {
		sentence string
		from     *pod
		name     string
		want     string
		asked    bool
	}{
		{"a service, by the mesh", client, "web.shop.svc.cluster.local", "10.96.0.1", false},
		{"an entry, by the mesh", client, "api.example.com", "240.240.0.1", false},
		{"the outside, by the cluster", client, "www.example.org", "192.0.2.9", true},
		{"the outside, whole by TCP only", client, "long.example.org", "192.0.2.9", true},
		{"a pod that is not captured asks the cluster", plain, "web.shop.svc.cluster.local", "192.0.2.9", true},
	} {
		before := c.asked.Load()
		if got := tt.from.lookup(c, tt.name); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.sentence, got, tt.want)
		}
		if asked := c.asked.Load() > before; asked != tt.asked {
			t.Errorf("%s: the cluster was asked %v, want %v", tt.sentence, asked, tt.asked)
		}
		if by := c.by.Load(); tt.asked && by != tt.from.v4 {
			t.Errorf("%s: the cluster saw %v, want the pod's own address", tt.sentence, by)
		}
	}
	// Opting out takes effect on a pod that runs.
	if err := rules.Apply(client.ns, rules.Spec{}); err != nil {
		t.Fatal(err)
	}
	if got := client.lookup(c, "web.shop.svc.cluster.local"); got != "192.0.2.9" {
		t.Errorf("opted out: %s", got)
	}
}

func TestAnEntryIsReachedByNameThroughItsAddress(t *testing.T) {
	needsRoot(t)
	w, c := naming(t)
	client := w.newPod(w.nodes[0], "client").enrolled()
	outside := w.newPod(w.nodes[1], "outside")
	outside.echo(8080)
	c.address.Store(&outside.v4)
	w.service("api.example.com", "240.240.0.1")
	w.change(func(m *mesh.Model) {
		delete(m.Workloads, outside.workload)
		m.Workloads["entry"] = &mesh.Workload{UID: "entry", Name: "api", Namespace: "shop", Hostname: "eu.example.com", TrustDomain: "cluster.local",
			ServiceAccount: "default", ClusterID: "Kubernetes", Capacity: 1, Services: map[mesh.ServiceKey][]mesh.Port{
				{Namespace: "shop", Hostname: "api.example.com"}: {{Service: 80, Target: 8080}},
			}}
	})
	client.edit(func(x *mesh.Workload) { x.Settings.RegistryOnly = true }) // what is named may be reached, and nothing else
	w.settle()
	at, err := netip.ParseAddr(client.lookup(c, "api.example.com"))
	if err != nil {
		t.Fatal(err)
	}
	if seen, err := client.call(netip.AddrPortFrom(at, 80)); err != nil || seen != client.v4 {
		t.Errorf("by name: seen as %v, %v", seen, err)
	}
	client.node.logged(t, map[string]any{"direction": "outbound", "dst.service": "api.example.com", "dst.addr": outside.at(8080).String(), "level": "INFO"})
	if _, err := client.call(outside.at(8080)); refused(err) != nil {
		t.Errorf("past its name: %v", refused(err))
	}
}

func TestNamesGoOnWhileZtunnelIsReplaced(t *testing.T) {
	needsRoot(t)
	w, c := naming(t)
	client := w.newPod(w.nodes[0], "client").enrolled()
	w.service("web.shop.svc.cluster.local", "10.96.0.1")
	w.settle()
	stop, done := make(chan struct{}), make(chan error, 1)
	var asked atomic.Int64
	go func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				done <- nil
				return
			default:
			}
			name := []string{"web.shop.svc.cluster.local", "www.example.org"}[i%2]
			if got := client.lookup(c, name); got != "10.96.0.1" && got != "192.0.2.9" {
				done <- errors.New(name + ": " + got)
				return
			}
			asked.Add(1)
		}
	}()
	for range 3 {
		n := w.nodes[0]
		old := n.ztunnels[len(n.ztunnels)-1]
		n.start(w)
		before := asked.Load()
		old.end(t)
		eventually(t, func() error {
			if asked.Load() < before+20 {
				return errors.New("names are not asked for")
			}
			return nil
		})
	}
	close(stop)
	if err := <-done; err != nil {
		t.Errorf("after %d names: %v", asked.Load(), err)
	}
}

func TestATakenDNSPortIsToldAndHarmsNothingElse(t *testing.T) {
	needsRoot(t)
	w, _ := naming(t)
	n := w.nodes[0]
	client := w.newPod(n, "client")
	taken, err := linux.ListenUDP(t.Context(), client.ns, netip.MustParseAddrPort("127.0.0.1:15053"), linux.ListenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	client.enrolled()
	web := w.newPod(n, "web").enrolled()
	web.echo(8080)
	if _, err := client.call(web.at(8080)); err != nil {
		t.Errorf("its connections: %v", err)
	}
	r, err := http.Get(n.ztunnels[0].admin + "/config_dump")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	var d struct {
		WorkloadState map[string]struct{ State, DNS string }
	}
	if err := json.NewDecoder(r.Body).Decode(&d); err != nil {
		t.Fatal(err)
	}
	if s := d.WorkloadState["uid-client"]; s.State != "Up" || !strings.Contains(s.DNS, "15053") {
		t.Errorf("dumped as %+v", s)
	}
	if s := d.WorkloadState["uid-web"]; s.State != "Up" || s.DNS != "" {
		t.Errorf("the other pod is dumped as %+v", s)
	}
	h, err := http.Get(n.ztunnels[0].admin + health.Path)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Body.Close()
	var facts health.Proxy
	if err := json.NewDecoder(h.Body).Decode(&facts); err != nil {
		t.Fatal(err)
	}
	// It is what `ambit check` looks at.
	if len(facts.Unserved) != 1 || !strings.HasSuffix(facts.Unserved[0].Pod, "/client") || !strings.Contains(facts.Unserved[0].Error, "15053") {
		t.Errorf("told as not wholly served: %+v", facts.Unserved)
	}
}
