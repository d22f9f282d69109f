package dns

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/net/dns/dnsmessage"

	"github.com/ambit-mesh/ambit/internal/linux/linuxtest"
	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/internal/view"
	"github.com/ambit-mesh/ambit/ztunnel/dump"
)

const world = `
workloads:
- {uid: k//Pod/shop/client, name: client, namespace: shop, serviceAccount: client, workloadIps: [10.1.0.5], protocol: HBONE, canonicalName: client, canonicalRevision: v1}
services:
- {name: web, namespace: shop, hostname: web.shop.svc.cluster.local, vips: [/10.96.0.1], ports: {80: 8080}}
- {name: api, namespace: shop, hostname: api.example.com, vips: [/240.240.0.1], ports: {443: 443}}
`

// resolver is a name server on this machine's loopback.
type resolver struct {
	at     netip.AddrPort
	asked  atomic.Int64
	mu     sync.Mutex
	answer func(network string, raw []byte) [][]byte
}

// newResolver answers over UDP and TCP on one port.
func newResolver(t *testing.T, answer func(network string, raw []byte) [][]byte) *resolver {
	t.Helper()
	r := &resolver{answer: answer}
	packets, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	r.at = packets.LocalAddr().(*net.UDPAddr).AddrPort()
	l, err := net.Listen("tcp4", r.at.String())
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		buf := make([]byte, maxSize)
		for {
			n, from, err := packets.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			r.asked.Add(1)
			for _, b := range r.reply("udp", bytes.Clone(buf[:n])) {
				packets.WriteToUDPAddrPort(b, from)
			}
		}
	})
	serving.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			raw, err := readMessage(c)
			if err == nil {
				r.asked.Add(1)
				for _, b := range r.reply("tcp", raw) {
					writeMessage(c, b)
				}
			}
			c.Close()
		}
	})
	t.Cleanup(func() { packets.Close(); l.Close(); serving.Wait() })
	return r
}

func (r *resolver) reply(network string, raw []byte) [][]byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.answer(network, raw)
}

// mirror answers with the query itself, turned into an answer.
func mirror(_ string, raw []byte) [][]byte {
	raw[2] |= 0x80
	return [][]byte{raw}
}

// says answers every question with these records.
func says(rcode dnsmessage.RCode, truncated bool, addresses ...string) func(string, []byte) [][]byte {
	return func(network string, raw []byte) [][]byte {
		q, _ := readQuery(raw)
		b := dnsmessage.NewBuilder(nil, dnsmessage.Header{ID: q.header.ID, Response: true, RCode: rcode, Truncated: truncated && network == "udp"})
		b.StartQuestions()
		b.Question(q.question)
		b.StartAnswers()
		v6, _ := q.addresses()
		for _, text := range addresses {
			if a := netip.MustParseAddr(text); a.Is6() == v6 && !(truncated && network == "udp") {
				address(&b, q.question.Name, a)
			}
		}
		out, err := b.Finish()
		if err != nil {
			panic(err)
		}
		return [][]byte{out}
	}
}

// rig is a server in a namespace of its own, in which "down" resolvers refuse.
type rig struct {
	t       *testing.T
	server  *Server
	store   *view.Store
	metrics *Metrics
	config  Config
}

// newRig starts a server whose name servers are at these addresses of this
// machine.
func newRig(t *testing.T, change func(*Config), servers ...netip.AddrPort) *rig {
	t.Helper()
	model, err := dump.ParseLocal([]byte(world))
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, store: view.NewStore(), metrics: NewMetrics()}
	r.store.Replace(model)
	r.config = Config{
		Store: r.store, NS: linuxtest.NewNetNS(t), Metrics: r.metrics, Logger: slog.New(slog.DiscardHandler), ReusePort: true,
		Local: func(ctx context.Context) (*mesh.Workload, error) {
			return r.store.Local(ctx, "shop", "client", "client")
		},
		Known:   func() *mesh.Workload { return r.store.View().WorkloadByAccount("shop", "client", "client") },
		Servers: func() ([]netip.AddrPort, error) { return servers, nil },
		Dial: func(ctx context.Context, network string, to netip.AddrPort) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, network, to.String())
		},
		LocalTimeout: 50 * time.Millisecond, Retry: 10 * time.Millisecond,
	}
	if change != nil {
		change(&r.config)
	}
	r.server = Start(r.config)
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		r.server.Drain(ctx)
	})
	if why := r.server.Trouble(); why != "" {
		t.Fatal(why)
	}
	return r
}

// dial reaches the server from inside its namespace.
func (r *rig) dial(network, host string) net.Conn {
	r.t.Helper()
	var c net.Conn
	if err := r.config.NS.Do(func() (err error) {
		c, err = net.Dial(network, net.JoinHostPort(host, fmt.Sprint(Port)))
		return err
	}); err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(20 * time.Second))
	return c
}

// exchange sends a message and gives the answer.
func (r *rig) exchange(network, host string, raw []byte) []byte {
	r.t.Helper()
	c := r.dial(network, host)
	if network == "tcp" {
		if err := writeMessage(c, raw); err != nil {
			r.t.Fatal(err)
		}
		b, err := readMessage(c)
		if err != nil {
			r.t.Fatal(err)
		}
		return b
	}
	if _, err := c.Write(raw); err != nil {
		r.t.Fatal(err)
	}
	b := make([]byte, maxSize)
	n, err := c.Read(b)
	if err != nil {
		r.t.Fatal(err)
	}
	return b[:n]
}

// ask is a query with or without EDNS.
func ask(name string, typ dnsmessage.Type, edns uint16) []byte {
	b := dnsmessage.NewBuilder(nil, dnsmessage.Header{ID: 4711, RecursionDesired: true})
	b.StartQuestions()
	b.Question(dnsmessage.Question{Name: dnsmessage.MustNewName(name), Type: typ, Class: dnsmessage.ClassINET})
	if edns > 0 {
		b.StartAdditionals()
		var h dnsmessage.ResourceHeader
		h.SetEDNS0(int(edns), dnsmessage.RCodeSuccess, true)
		b.OPTResource(h, dnsmessage.OPTResource{Options: []dnsmessage.Option{{Code: 10, Data: []byte("cookie!!")}}})
	}
	raw, err := b.Finish()
	if err != nil {
		panic(err)
	}
	return raw
}

// show is an answer in one line.
func show(t *testing.T, raw []byte) string {
	t.Helper()
	var m dnsmessage.Message
	if err := m.Unpack(raw); err != nil {
		t.Fatalf("unpacking %x: %v", raw, err)
	}
	out := []string{strings.TrimPrefix(m.RCode.String(), "RCode")}
	if m.Authoritative {
		out = append(out, "AA")
	}
	if m.Truncated {
		out = append(out, "TC")
	}
	for _, a := range m.Answers {
		switch body := a.Body.(type) {
		case *dnsmessage.AResource:
			out = append(out, fmt.Sprintf("%s=%s(%d)", a.Header.Name, netip.AddrFrom4(body.A), a.Header.TTL))
		case *dnsmessage.AAAAResource:
			out = append(out, fmt.Sprintf("%s=%s(%d)", a.Header.Name, netip.AddrFrom16(body.AAAA), a.Header.TTL))
		case *dnsmessage.CNAMEResource:
			out = append(out, fmt.Sprintf("%s->%s(%d)", a.Header.Name, body.CNAME, a.Header.TTL))
		}
	}
	for _, a := range m.Additionals {
		if a.Header.Type == dnsmessage.TypeOPT {
			out = append(out, "EDNS")
		}
	}
	return strings.Join(out, " ")
}

func TestNamesOfTheMeshAreAnsweredWithoutAResolver(t *testing.T) {
	r := newRig(t, nil) // nobody to ask
	for _, tt := range []struct {
		name string
		typ  dnsmessage.Type
		edns uint16
		want string
	}{
		{"web.shop.svc.cluster.local.", dnsmessage.TypeA, 0, "Success AA web.shop.svc.cluster.local.=10.96.0.1(30)"},
		{"WEB.Shop.svc.cluster.local.", dnsmessage.TypeA, 0, "Success AA WEB.Shop.svc.cluster.local.=10.96.0.1(30)"},
		{"web.shop.svc.cluster.local.", dnsmessage.TypeAAAA, 0, "Success AA"},
		{"web.shop.svc.cluster.local.", dnsmessage.TypeA, 1232, "Success AA web.shop.svc.cluster.local.=10.96.0.1(30) EDNS"},
		{"api.example.com.shop.svc.cluster.local.", dnsmessage.TypeA, 0,
			"Success AA api.example.com.shop.svc.cluster.local.->api.example.com.(30) api.example.com.=240.240.0.1(30)"},
		{"www.example.org.", dnsmessage.TypeA, 0, "ServerFailure"},
	} {
		for _, network := range []string{"udp", "tcp"} {
			for _, host := range []string{"127.0.0.1", "::1"} {
				got := show(t, r.exchange(network, host, ask(tt.name, tt.typ, tt.edns)))
				if d := cmp.Diff(tt.want, got); d != "" {
					t.Errorf("%s by %s at %s (-want +got):\n%s", tt.name, network, host, d)
				}
			}
		}
	}
}

func TestEverythingElseGoesOnByteForByte(t *testing.T) {
	up := newResolver(t, mirror)
	r := newRig(t, nil, up.at)
	update := ask("web.shop.svc.cluster.local.", dnsmessage.TypeSOA, 0)
	update[2] |= 5 << 3 // opcode UPDATE
	notify := ask("web.shop.svc.cluster.local.", dnsmessage.TypeSOA, 0)
	notify[2] |= 4 << 3
	two := ask("web.shop.svc.cluster.local.", dnsmessage.TypeA, 0)
	two = append(two, two[headerSize:]...)
	two[5] = 2
	strange := ask("web.shop.svc.cluster.local.", dnsmessage.TypeA, 0)
	strange[len(strange)-1] = 3 // class CHAOS
	for sentence, raw := range map[string][]byte{
		"a name that the mesh does not know": ask("www.example.org.", dnsmessage.TypeA, 0),
		"with options":                       ask("www.example.org.", dnsmessage.TypeA, 4000),
		"another type of a name of the mesh": ask("web.shop.svc.cluster.local.", dnsmessage.TypeSRV, 1232),
		"a type without a name":              ask("web.shop.svc.cluster.local.", 65, 1232),
		"a reverse name":                     ask("1.0.96.10.in-addr.arpa.", dnsmessage.TypePTR, 0),
		"an update":                          update,
		"a notification":                     notify,
		"two questions":                      two,
		"another class":                      strange,
		"no question":                        {0x12, 0x67, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0},
		"a question that cannot be read":     {0x12, 0x67, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0xc0, 0x0c, 0, 1, 0, 1},
	} {
		for _, network := range []string{"udp", "tcp"} {
			want := bytes.Clone(raw)
			want[2] |= 0x80
			if got := r.exchange(network, "127.0.0.1", raw); !bytes.Equal(got, want) {
				t.Errorf("%s by %s: came back as %x, want %x", sentence, network, got, want)
			}
		}
	}
}

func TestAnotherResolverIsAsked(t *testing.T) {
	gone := netip.MustParseAddrPort("127.0.0.1:1")
	good := newResolver(t, says(dnsmessage.RCodeSuccess, false, "192.0.2.1"))
	sick := newResolver(t, says(dnsmessage.RCodeServerFailure, false))
	sure := newResolver(t, says(dnsmessage.RCodeNameError, false))
	liar := newResolver(t, func(_ string, raw []byte) [][]byte {
		answer := says(dnsmessage.RCodeSuccess, false, "192.0.2.66")
		other := ask("evil.example.org.", dnsmessage.TypeA, 0)
		wrongID := bytes.Clone(raw)
		wrongID[0] ^= 0xff
		return [][]byte{answer("udp", wrongID)[0], answer("udp", other)[0]}
	})
	for _, tt := range []struct {
		sentence string
		servers  []netip.AddrPort
		want     string
	}{
		{"the first is away", []netip.AddrPort{gone, good.at}, "Success www.example.org.=192.0.2.1(30)"},
		{"the first fails", []netip.AddrPort{sick.at, good.at}, "Success www.example.org.=192.0.2.1(30)"},
		{"the first says that there is no such name", []netip.AddrPort{sure.at, good.at}, "NameError"},
		{"the only one fails", []netip.AddrPort{sick.at}, "ServerFailure"},
		{"all are away", []netip.AddrPort{gone, gone}, "ServerFailure"},
		{"the first answers something else", []netip.AddrPort{liar.at, good.at}, "Success www.example.org.=192.0.2.1(30)"},
	} {
		r := newRig(t, nil, tt.servers...)
		got := show(t, r.exchange("udp", "127.0.0.1", ask("www.example.org.", dnsmessage.TypeA, 0)))
		if d := cmp.Diff(tt.want, got); d != "" {
			t.Errorf("%s (-want +got):\n%s", tt.sentence, d)
		}
	}
}

// manyPods makes a headless service with n pods.
func (r *rig) manyPods(n int) {
	m := mesh.Model{Workloads: map[string]*mesh.Workload{}, Services: map[mesh.ServiceKey]*mesh.Service{}}
	for _, w := range r.store.View().Workloads() {
		m.Workloads[w.UID] = w
	}
	s := &mesh.Service{Name: "db", Namespace: "shop", Hostname: "db.shop.svc.cluster.local"}
	m.Services[s.Key()] = s
	for i := range n {
		uid := fmt.Sprint("k//Pod/shop/db-", i)
		m.Workloads[uid] = &mesh.Workload{UID: uid, Namespace: "shop", Name: fmt.Sprint("db-", i),
			Addresses: []netip.Addr{netip.AddrFrom4([4]byte{10, 2, byte(i >> 8), byte(i)})}, Services: map[mesh.ServiceKey][]mesh.Port{s.Key(): nil}}
	}
	r.store.Replace(m)
}

func TestALongAnswerIsCutShortAndComesWholeByTCP(t *testing.T) {
	const pods = 300
	r := newRig(t, nil)
	r.manyPods(pods)
	for _, tt := range []struct {
		network   string
		edns      uint16
		limit     int
		truncated bool
	}{
		{"udp", 0, 512, true}, {"udp", 100, 512, true}, {"udp", 1232, 1232, true}, {"udp", 8192, 8192, false}, {"tcp", 0, maxSize, false},
	} {
		raw := r.exchange(tt.network, "127.0.0.1", ask("db.shop.svc.cluster.local.", dnsmessage.TypeA, tt.edns))
		var m dnsmessage.Message
		if err := m.Unpack(raw); err != nil {
			t.Fatal(err)
		}
		if len(raw) > tt.limit || m.Truncated != tt.truncated || (len(m.Answers) == pods) == tt.truncated || len(m.Answers) == 0 {
			t.Errorf("%s with EDNS %d: %d bytes, %d answers, truncated %v", tt.network, tt.edns, len(raw), len(m.Answers), m.Truncated)
		}
	}
}

func TestAZoneTransferIsHandedOver(t *testing.T) {
	up := newResolver(t, func(network string, raw []byte) [][]byte {
		a, b := mirror(network, bytes.Clone(raw))[0], mirror(network, bytes.Clone(raw))[0]
		return [][]byte{a, b, a}
	})
	r := newRig(t, nil, up.at)
	c := r.dial("tcp", "127.0.0.1")
	if err := writeMessage(c, ask("example.org.", dnsmessage.TypeAXFR, 0)); err != nil {
		t.Fatal(err)
	}
	n := 0
	for {
		if _, err := readMessage(c); err != nil {
			if !errors.Is(err, io.EOF) {
				t.Error(err)
			}
			break
		}
		n++
	}
	if n != 3 {
		t.Errorf("%d messages came, want 3", n)
	}
}

func TestManyQueriesInOneConnection(t *testing.T) {
	up := newResolver(t, mirror)
	r := newRig(t, nil, up.at)
	c := r.dial("tcp", "127.0.0.1")
	for i := range 5 {
		name := []string{"web.shop.svc.cluster.local.", "www.example.org."}[i%2]
		if err := writeMessage(c, ask(name, dnsmessage.TypeA, 0)); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 5 {
		if b, err := readMessage(c); err != nil || binary.BigEndian.Uint16(b) != 4711 {
			t.Fatalf("answer %d: %x, %v", i, b, err)
		}
	}
}

func TestOnlySoManyMayWait(t *testing.T) {
	release := make(chan struct{})
	up := newResolver(t, func(network string, raw []byte) [][]byte {
		<-release
		return mirror(network, raw)
	})
	defer close(release)
	r := newRig(t, func(c *Config) { c.Datagrams = 2 }, up.at)
	waiting := []net.Conn{r.dial("udp", "127.0.0.1"), r.dial("udp", "127.0.0.1")}
	for _, c := range waiting {
		c.Write(ask("www.example.org.", dnsmessage.TypeA, 0))
	}
	// Both are taken before the third: one socket is read in order.
	got := show(t, r.exchange("udp", "127.0.0.1", ask("www.example.org.", dnsmessage.TypeA, 0)))
	if got != "ServerFailure" {
		t.Errorf("one too many: %s", got)
	}
	if got := show(t, r.exchange("udp", "127.0.0.1", ask("web.shop.svc.cluster.local.", dnsmessage.TypeA, 0))); !strings.HasPrefix(got, "Success") {
		t.Errorf("a name of the mesh meanwhile: %s", got)
	}
}

func TestWithoutThePodsRecordNothingIsAnswered(t *testing.T) {
	up := newResolver(t, mirror)
	r := newRig(t, nil, up.at)
	r.store.Replace(mesh.Model{})
	for _, name := range []string{"web.shop.svc.cluster.local.", "www.example.org."} {
		if got := show(t, r.exchange("udp", "127.0.0.1", ask(name, dnsmessage.TypeA, 0))); got != "ServerFailure" {
			t.Errorf("%s: %s", name, got)
		}
	}
	if n := up.asked.Load(); n != 0 {
		t.Errorf("the resolver was asked %d times", n)
	}
}

func TestAPortThatIsTakenIsToldAndTriedAgain(t *testing.T) {
	ns := linuxtest.NewNetNS(t)
	var taken net.PacketConn
	if err := ns.Do(func() (err error) {
		taken, err = net.ListenPacket("udp4", "0.0.0.0:15053")
		return err
	}); err != nil {
		t.Fatal(err)
	}
	var config Config
	r := newRig(t, func(c *Config) { config = *c })
	config.NS = ns
	s := Start(config)
	defer s.Drain(t.Context())
	if why := s.Trouble(); !strings.Contains(why, "dns proxy port 15053") || !strings.Contains(why, "address already in use") {
		t.Errorf("told %q", why)
	}
	taken.Close()
	for deadline := time.Now().Add(20 * time.Second); s.Trouble() != ""; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("still: %s", s.Trouble())
		}
	}
	r.config.NS = ns
	if got := show(t, r.exchange("udp", "127.0.0.1", ask("web.shop.svc.cluster.local.", dnsmessage.TypeA, 0))); !strings.HasPrefix(got, "Success") {
		t.Errorf("once it was free: %s", got)
	}
}

func TestWhatWasTakenIsAnsweredWhileLeaving(t *testing.T) {
	release, asked := make(chan struct{}), make(chan struct{})
	up := newResolver(t, func(network string, raw []byte) [][]byte {
		close(asked)
		<-release
		return mirror(network, raw)
	})
	r := newRig(t, nil, up.at)
	c := r.dial("udp", "127.0.0.1")
	c.Write(ask("www.example.org.", dnsmessage.TypeA, 0))
	<-asked
	fresh := Start(r.config) // the proxy that takes over
	defer fresh.Drain(t.Context())
	drained := make(chan struct{})
	go func() { defer close(drained); r.server.Drain(t.Context()) }()
	r.server.StopAccepting()
	for range 50 {
		if got := show(t, r.exchange("udp", "127.0.0.1", ask("web.shop.svc.cluster.local.", dnsmessage.TypeA, 0))); !strings.HasPrefix(got, "Success") {
			t.Fatalf("by the proxy that takes over: %s", got)
		}
	}
	close(release)
	b := make([]byte, 512)
	if n, err := c.Read(b); err != nil || n < headerSize {
		t.Errorf("the query that was on its way: %v", err)
	}
	<-drained
}

func TestMetrics(t *testing.T) {
	up := newResolver(t, mirror)
	r := newRig(t, nil, up.at)
	r.exchange("udp", "127.0.0.1", ask("web.shop.svc.cluster.local.", dnsmessage.TypeA, 0))
	r.exchange("tcp", "127.0.0.1", ask("www.example.org.", dnsmessage.TypeMX, 0))
	r.exchange("udp", "127.0.0.1", ask("www.example.org.", 4242, 0))
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(r.metrics)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			name := f.GetName()
			for _, l := range m.GetLabel() {
				name += " " + l.GetValue()
			}
			got[name] = m.GetCounter().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	want := map[string]float64{
		"istio_dns_requests_total tcp MX v1 client":                       1,
		"istio_dns_requests_total udp A v1 client":                        1,
		"istio_dns_requests_total udp other v1 client":                    1,
		"istio_dns_upstream_requests_total tcp MX v1 client":              1,
		"istio_dns_upstream_requests_total udp other v1 client":           1,
		"istio_dns_upstream_failures_total tcp MX v1 client":              0,
		"istio_dns_upstream_failures_total udp other v1 client":           0,
		"istio_dns_upstream_request_duration_seconds tcp MX v1 client":    1,
		"istio_dns_upstream_request_duration_seconds udp other v1 client": 1,
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

// FuzzQuery: whatever a program sends, what comes back is its answer or nothing.
func FuzzQuery(f *testing.F) {
	f.Add(ask("web.shop.svc.cluster.local.", dnsmessage.TypeA, 0))
	f.Add(ask("api.example.com.shop.svc.cluster.local.", dnsmessage.TypeAAAA, 1232))
	f.Add([]byte{0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0xc0, 12, 0, 1, 0, 1})
	model, err := dump.ParseLocal([]byte(world))
	if err != nil {
		f.Fatal(err)
	}
	store := view.NewStore()
	store.Replace(model)
	s := &Server{Config: Config{Store: store, Domain: "cluster.local", Logger: slog.New(slog.DiscardHandler)}}
	local := store.View().WorkloadByAccount("shop", "client", "client")
	f.Fuzz(func(t *testing.T, raw []byte) {
		q, ok := readQuery(raw)
		if !ok {
			return
		}
		q.kind()
		for _, b := range [][]byte{q.fail(), first(s.resolve(&q, local, q.size))} {
			if b == nil {
				continue
			}
			if len(b) > max(q.size, plainSize) || !q.answers(b) {
				t.Errorf("%x is answered with %x", raw, b)
			}
		}
		q.answers(raw)
		readReply(raw)
	})
}

func first(b []byte, _ bool) []byte { return b }
