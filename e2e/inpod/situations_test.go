package inpod_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/ambit-mesh/ambit/ambit/ask"
	"github.com/ambit-mesh/ambit/ambit/reach"
	"github.com/ambit-mesh/ambit/internal/decision"
	"github.com/ambit-mesh/ambit/internal/hbone"
	"github.com/ambit-mesh/ambit/internal/hbone/h2"
	"github.com/ambit-mesh/ambit/internal/linux"
	"github.com/ambit-mesh/ambit/internal/linux/linuxtest"
	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/internal/spiffe"
)

// situation is one that is planted: what becomes of a connection, what is said
// before of one that nobody makes, and the story afterwards.
type situation struct {
	name    string
	arrange func(m *mesh.Model)
	// from is the client; nil is a program on the host network of node one.
	from *pod
	// to is dialled; host is what is asked about, to if it is empty.
	to   netip.AddrPort
	host string
	ok   bool
	// can is whether it would be let through by all that is configured, and says
	// a part of why.
	can  bool
	says string
	// story are parts of it, in their order.
	story []string
}

// cast are the pods of the situations.
type cast struct {
	*world
	client, stranger, plain, uncertified    *pod
	web, second, legacy, imposter           *pod
	webService, lost, empty, refusing, none mesh.ServiceKey
}

func serviceKey(name string) mesh.ServiceKey {
	return mesh.ServiceKey{Namespace: "shop", Hostname: name + ".shop.svc.cluster.local"}
}

func vip(n byte) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 96, 0, n}), 80)
}

func newCast(t *testing.T) *cast {
	t.Helper()
	c := &cast{world: bare(t, "one", "two")}
	c.world.refusing = []spiffe.ID{{TrustDomain: "cluster.local", Namespace: "shop", ServiceAccount: "uncertified"}}
	c.boot()
	one, two := c.nodes[0], c.nodes[1]
	c.client, c.stranger, c.uncertified = c.newPod(one, "client").enrolled(), c.newPod(one, "stranger").enrolled(), c.newPod(one, "uncertified").enrolled()
	c.plain = c.newPod(one, "plain")
	c.web, c.second = c.newPod(two, "web").enrolled(), c.newPod(two, "second").enrolled()
	c.legacy, c.imposter = c.newPod(two, "legacy"), c.newPod(two, "imposter")
	for _, p := range []*pod{c.web, c.second, c.legacy} {
		p.echo(8080)
		p.echo(9090)
	}
	outside := &pod{podNet: podNet{ns: two.ns}, w: c.world}
	outside.listenAt(netip.AddrPortFrom(netip.MustParseAddr("172.30.0.2"), 8080), greet)
	c.pretends(c.imposter, c.stranger.identity())
	c.imposter.edit(func(w *mesh.Workload) { w.Tunnel = mesh.TunnelHBONE })
	c.webService, c.lost, c.empty, c.refusing, c.none = serviceKey("web"), serviceKey("lost"), serviceKey("empty"), serviceKey("refusing"), serviceKey("headless")
	c.change(func(m *mesh.Model) {
		for i, s := range []struct {
			k    mesh.ServiceKey
			port uint16
		}{{c.webService, 8080}, {c.lost, 8080}, {c.empty, 8080}, {c.refusing, 7070}, {c.none, 8080}} {
			service := &mesh.Service{
				Name: strings.SplitN(s.k.Hostname, ".", 2)[0], Namespace: "shop", Hostname: s.k.Hostname, Ports: []mesh.Port{{Service: 80, Target: s.port}},
				Addresses: []mesh.NetworkPrefix{{Prefix: netip.PrefixFrom(vip(byte(i+1)).Addr(), 32)}},
			}
			switch s.k {
			case c.none:
				service.Addresses, service.Ports = nil, []mesh.Port{{Service: 8080, Target: 8080}}
			case c.lost:
				service.Waypoint = mesh.GatewayAddress{Service: serviceKey("nowhere"), Port: hbone.Port}
			}
			m.Services[s.k] = service
			if s.k != c.empty {
				web := *m.Workloads[c.web.workload]
				web.Services = maps.Clone(web.Services)
				web.Services[s.k] = service.Ports
				m.Workloads[c.web.workload] = &web
			}
		}
	})
	c.settle()
	return c
}

// pretends serves tunnels in a pod with another's identity.
func (c *cast) pretends(p *pod, id spiffe.ID) {
	c.t.Helper()
	l, err := linux.ListenTCP(context.Background(), p.ns, p.at(hbone.Port), linux.ListenOptions{})
	if err != nil {
		c.t.Fatal(err)
	}
	s := h2.NewServer(h2.ServerConfig{
		Listener: l, Self: func(context.Context) (spiffe.ID, error) { return id, nil }, Credentials: c.ca.Credentials(c.t, id),
		Handler: func(in hbone.Incoming) { in.Reject(hbone.StatusUnavailable, "an imposter carries nothing") },
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx) }()
	c.t.Cleanup(func() { cancel(); <-done })
}

func (c *cast) openers() (out []ask.Opener) {
	for _, n := range c.nodes {
		d := &reach.Door{Name: n.name, URL: n.ztunnels[0].admin}
		out = append(out, func(context.Context) (*reach.Door, error) { return d, nil })
	}
	return out
}

// may asks before the connection is made.
func (c *cast) may(s *situation) (*decision.Forecast, error) {
	q := &decision.Question{Source: c.client.identity().String(), Address: hostAddress.String(), Destination: s.to.String()}
	if s.from != nil {
		q.Source, q.Address = s.from.identity().String(), s.from.v4.String()
	}
	if s.host != "" {
		q.Destination = s.host
	}
	return ask.Can(c.t.Context(), c.openers(), nil, q)
}

// hostAddress is node one's own.
var hostAddress = netip.MustParseAddr("172.30.0.1")

// happens makes the connection.
func (c *cast) happens(s *situation) error {
	if s.from != nil {
		_, err := s.from.call(s.to)
		return err
	}
	conn, err := linux.DialTCP(c.t.Context(), c.nodes[0].ns, s.to, linux.DialOptions{})
	if err != nil {
		return err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	_, err = speak(conn, "hello")
	return err
}

// told is the newest story between the two since a time, in words.
func (c *cast) told(s *situation, since time.Time) (text string, err error) {
	p := ask.Pair{Source: ask.Party{Addresses: []netip.Addr{hostAddress}}, Destination: ask.Party{Addresses: []netip.Addr{s.to.Addr()}}, Port: s.to.Port(), Text: s.name}
	if s.from != nil {
		p.Source = ask.Party{Names: []string{"shop/" + s.from.name}, Addresses: []netip.Addr{s.from.v4}}
	}
	stories, silent, err := ask.Latest(c.t.Context(), c.openers(), p)
	if err != nil || len(silent) > 0 {
		return "", errors.Join(append(silent, err)...)
	}
	if stories[0].At.Before(since) {
		return "", fmt.Errorf("the newest story is of %s", stories[0].At)
	}
	var b strings.Builder
	for _, story := range stories {
		if err := errors.Join(story.Write(&b), c.recorded(story)); err != nil {
			return "", err
		}
	}
	return b.String(), nil
}

// recorded is an error unless the access log of the story's proxy has one record
// of it.
func (c *cast) recorded(s decision.Story) error {
	n := 0
	for _, node := range c.nodes {
		for _, r := range node.ztunnels[0].log.records() {
			if s.Proxy == "ztunnel "+node.name && r["component"] == "access" && r["id"] == s.ID {
				n++
			}
		}
	}
	if n != 1 {
		return fmt.Errorf("%s has %d access records of %s, want 1", s.Proxy, n, s.ID)
	}
	return nil
}

// inOrder is an error unless all parts are in a text, one after the other.
func inOrder(text string, parts []string) error {
	rest := text
	for _, p := range parts {
		_, after, ok := strings.Cut(rest, p)
		if !ok {
			return fmt.Errorf("%q is not in it, or not there:\n%s", p, text)
		}
		rest = after
	}
	return nil
}

// plaintext is what STRICT denies; on is where.
func plaintext(on mesh.Match) *mesh.Policy {
	on.NotPrincipals = []mesh.StringMatch{{Op: mesh.OpPresence}}
	return policy("istio_converted_static_strict", mesh.ScopeSelector, mesh.ActionDeny, on)
}

// TestTwentySituationsAreForeseenAndExplained: in each, what `ambit can` says of
// a connection is what the mesh would do with it, and `ambit why` tells the
// story of the one that was made.
func TestTwentySituationsAreForeseenAndExplained(t *testing.T) {
	needsRoot(t)
	c := newCast(t)
	applied := func(policies ...*mesh.Policy) func(*mesh.Model) {
		return func(m *mesh.Model) {
			web := *m.Workloads[c.web.workload]
			for _, p := range policies {
				m.Policies[p.Key] = p
				if p.Scope == mesh.ScopeSelector {
					web.Policies = append(web.Policies, p.Key)
				}
			}
			m.Workloads[c.web.workload] = &web
		}
	}
	deny := func(name string, m mesh.Match) func(*mesh.Model) {
		return applied(policy(name, mesh.ScopeNamespace, mesh.ActionDeny, m))
	}
	dry := policy("watched", mesh.ScopeNamespace, mesh.ActionDeny, mesh.Match{Principals: principal(c.client)})
	dry.DryRun = true
	web := c.web.at(8080)
	all := []situation{
		{
			name: "no policy", from: c.client, to: vip(1), host: "web:80", ok: true, can: true, says: "allowed: no policy restricts it",
			story: []string{
				"decided by ztunnel one with configuration", "client    spiffe://cluster.local/ns/shop/sa/client (shop/client ", "asked     10.96.0.1:80 of service shop/web.shop.svc.cluster.local", "endpoint  spiffe://cluster.local/ns/shop/sa/web", "an endpoint of the service, by a tunnel",
				"decided by ztunnel two with configuration", "client    spiffe://cluster.local/ns/shop/sa/client", "ruling    allowed: no policy restricts it",
			},
		},
		{
			name: "denied by principal", from: c.stranger, to: vip(1), host: "web:80", arrange: deny("not-stranger", mesh.Match{Principals: principal(c.stranger)}),
			says:  "denied by DENY policy shop/not-stranger rule 0",
			story: []string{"ztunnel one", "flag DENY", "ztunnel two", "DENY shop/not-stranger: rule 0 matches ←", "ruling    denied by DENY policy shop/not-stranger rule 0"},
		},
		{
			name: "denied by namespace", from: c.client, to: web, arrange: deny("not-shop", mesh.Match{Namespaces: []mesh.StringMatch{{Value: "shop"}}}),
			says:  "denied by DENY policy shop/not-shop rule 0",
			story: []string{"ztunnel one", "the workload that was dialled, by a tunnel", "ztunnel two", "DENY shop/not-shop: rule 0 matches ←"},
		},
		{
			name: "denied by port", from: c.client, to: web, arrange: deny("not-8080", mesh.Match{DestinationPorts: []uint16{8080}}),
			says: "denied by DENY policy shop/not-8080 rule 0", story: []string{"DENY shop/not-8080: rule 0 matches ←"},
		},
		{
			name: "another port than the denied one", from: c.client, to: c.web.at(9090), arrange: deny("not-8080", mesh.Match{DestinationPorts: []uint16{8080}}),
			ok: true, can: true, says: "allowed", story: []string{"ztunnel two", "DENY shop/not-8080: does not match", "ruling    allowed"},
		},
		{
			name: "denied by address block", from: c.client, to: web, arrange: deny("not-there", mesh.Match{SourceIPs: []netip.Prefix{netip.PrefixFrom(c.client.v4, 32)}}),
			says: "denied by DENY policy shop/not-there rule 0", story: []string{"DENY shop/not-there: rule 0 matches ←"},
		},
		{
			name: "no ALLOW policy matches", from: c.client, to: web, arrange: applied(policy("friends", mesh.ScopeNamespace, mesh.ActionAllow, mesh.Match{Principals: principal(c.stranger)})),
			says: "denied: no ALLOW policy matches (shop/friends applies)", story: []string{"ALLOW shop/friends: does not match", "ruling    denied: no ALLOW policy matches"},
		},
		{
			name: "an ALLOW policy matches", from: c.stranger, to: web, arrange: applied(policy("friends", mesh.ScopeNamespace, mesh.ActionAllow, mesh.Match{Principals: principal(c.stranger)})),
			ok: true, can: true, says: "allowed by ALLOW policy shop/friends rule 0", story: []string{"ztunnel two", "ALLOW shop/friends: rule 0 matches ←", "ruling    allowed by ALLOW policy shop/friends rule 0"},
		},
		{
			name: "plaintext under STRICT", from: c.plain, to: web, arrange: applied(plaintext(mesh.Match{})),
			says:  "denied by DENY policy shop/istio_converted_static_strict rule 0",
			story: []string{"ztunnel two", "without an identity", "DENY shop/istio_converted_static_strict: rule 0 matches ←"},
		},
		{
			name: "plaintext to an exempt port under STRICT", from: c.plain, to: c.web.at(9090), arrange: applied(plaintext(mesh.Match{NotDestinationPorts: []uint16{9090}})),
			ok: true, can: true, says: "allowed", story: []string{"ztunnel two", "without an identity", "istio_converted_static_strict: does not match", "ruling    allowed"},
		},
		{
			name: "the host network under STRICT", to: web, arrange: applied(plaintext(mesh.Match{})),
			says: "denied by DENY policy shop/istio_converted_static_strict rule 0", story: []string{"ztunnel two", "172.30.0.1", "without an identity", "rule 0 matches ←"},
		},
		{
			name: "a policy that has not come", from: c.client, to: web, arrange: func(m *mesh.Model) {
				x := *m.Workloads[c.web.workload]
				x.Policies = []mesh.PolicyKey{key("lost")}
				m.Workloads[c.web.workload] = &x
			},
			says: "denied: policy shop/lost is not known here yet", story: []string{"ztunnel two", "unknown shop/lost: not known here, or not understood: it closes ←"},
		},
		{
			name: "a policy on trial", from: c.client, to: web, arrange: applied(dry), ok: true, can: true, says: "allowed",
			story: []string{"ztunnel two", "DENY shop/watched: rule 0 matches (dry run)", "ruling    allowed"},
		},
		{
			name: "no endpoint", from: c.client, to: vip(3), host: "empty:80", says: "service shop/empty.shop.svc.cluster.local has no endpoint to use",
			story: []string{"ztunnel one", "asked     10.96.0.3:80 of service shop/empty.shop.svc.cluster.local", "flag CONNECT", "has no endpoint to use"},
		},
		{
			name: "no such port", from: c.client, to: netip.AddrPortFrom(vip(1).Addr(), 81), host: "web:81", says: "service shop/web.shop.svc.cluster.local has no port 81",
			story: []string{"ztunnel one", "has no port 81"},
		},
		{
			name: "the application does not accept", from: c.client, to: vip(4), host: "refusing:80", can: true, says: "allowed: no policy restricts it",
			story: []string{"ztunnel one", "the application does not accept", "ztunnel two", "ruling    allowed: no policy restricts it", "the application does not accept"},
		},
		{
			name: "the server is somebody else", from: c.client, to: c.imposter.at(8080), can: true, says: "allowed",
			story: []string{"ztunnel one", "flag TLS_FAILURE", "peer spiffe://cluster.local/ns/shop/sa/stranger not accepted"},
		},
		{
			name: "the client has no certificate", from: c.uncertified, to: web, says: "the client's node has no certificate of spiffe://cluster.local/ns/shop/sa/uncertified",
			story: []string{"ztunnel one", "certificate of spiffe://cluster.local/ns/shop/sa/uncertified", "gets no certificate"},
		},
		{
			name: "a destination outside of the mesh", from: c.client, to: netip.AddrPortFrom(netip.MustParseAddr("172.30.0.2"), 8080), ok: true, can: true, says: "passed on in clear: the destination is not in the mesh",
			story: []string{"ztunnel one", "asked     172.30.0.2:8080", "nothing of the mesh is there: passed on in clear"},
		},
		{
			name: "a destination outside of the mesh under REGISTRY_ONLY", from: c.client, to: netip.AddrPortFrom(netip.MustParseAddr("172.30.0.2"), 8080),
			arrange: func(m *mesh.Model) {
				x := *m.Workloads[c.client.workload]
				x.Settings.RegistryOnly = true
				m.Workloads[c.client.workload] = &x
			},
			says: "REGISTRY_ONLY", story: []string{"ztunnel one", "asked     172.30.0.2:8080", "REGISTRY_ONLY"},
		},
		{
			name: "a pod that is not captured", from: c.client, to: c.legacy.at(8080), ok: true, can: true, says: "in clear: the destination does not accept HBONE",
			story: []string{"ztunnel one", "endpoint  shop/legacy", "it takes no tunnel: in clear"},
		},
		{
			name: "a headless service", from: c.client, to: web, host: "headless.shop:8080", ok: true, can: true, says: "allowed: no policy restricts it",
			story: []string{"ztunnel one", "ztunnel two", "ruling    allowed"},
		},
		{
			name: "a waypoint that is missing", from: c.client, to: vip(2), host: "lost:80", says: "nowhere.shop.svc.cluster.local",
			story: []string{"ztunnel one", "of service shop/lost.shop.svc.cluster.local", "nowhere.shop.svc.cluster.local", "waited 10s"},
		},
		{
			name: "a node that is out of reach", from: c.client, to: web, can: true, says: "allowed: no policy restricts it",
			arrange: func(*mesh.Model) {
				linuxtest.Run(t, c.nodes[1].ns, "nft", "-f", "-", "table inet firewall { chain f { type filter hook forward priority 0; tcp dport 15008 reject with tcp reset; udp dport 15008 reject; }; }")
			},
			story: []string{"ztunnel one", "attempts  1.", "2.", "flag CONNECT"},
		},
	}
	good := 0
	for _, s := range all {
		if t.Run(s.name, func(t *testing.T) { c.explains(t, &s) }) {
			good++
		}
	}
	t.Logf("%d of %d situations foreseen, as they became, and explained", good, len(all))
}

// explains arranges one situation, and compares what is said before, what
// happens, and what is told afterwards.
func (c *cast) explains(t *testing.T, s *situation) {
	c.mu.Lock()
	before := c.model
	c.mu.Unlock()
	if s.arrange != nil {
		c.change(s.arrange)
		defer c.change(func(m *mesh.Model) { *m = before })
		c.settle()
	}
	f, err := c.may(s)
	if err != nil {
		t.Fatal(err)
	}
	if f.Allowed != s.can || !strings.Contains(f.Says, s.says) {
		t.Errorf("can says %v, %q; want %v, %q", f.Allowed, f.Says, s.can, s.says)
	}
	began := time.Now()
	err = c.happens(s)
	if timeout, ok := errors.AsType[net.Error](err); (err == nil) != s.ok || ok && timeout.Timeout() {
		t.Errorf("it happens that: %v", err)
	}
	eventually(t, func() error {
		text, err := c.told(s, began)
		if err != nil {
			return err
		}
		return inOrder(text, s.story)
	})
}
