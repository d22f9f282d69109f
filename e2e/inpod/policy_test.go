package inpod_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/ambit-mesh/ambit/internal/certs"
	"github.com/ambit-mesh/ambit/internal/certs/certstest"
	"github.com/ambit-mesh/ambit/internal/hbone"
	"github.com/ambit-mesh/ambit/internal/hbone/h2"
	"github.com/ambit-mesh/ambit/internal/linux"
	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/internal/spiffe"
)

func key(name string) mesh.PolicyKey { return mesh.PolicyKey{Namespace: "shop", Name: name} }

// policy makes a policy of one match.
func policy(name string, scope mesh.PolicyScope, action mesh.Action, m mesh.Match) *mesh.Policy {
	return &mesh.Policy{Key: key(name), Scope: scope, Action: action, Rules: []mesh.Rule{{Clauses: []mesh.Clause{{Matches: []mesh.Match{m}}}}}}
}

func principal(p *pod) []mesh.StringMatch {
	return []mesh.StringMatch{{Value: p.identity().Principal()}}
}

// strict is what the control plane makes of PeerAuthentication STRICT.
var strict = policy("istio_converted_static_strict", mesh.ScopeSelector, mesh.ActionDeny,
	mesh.Match{NotPrincipals: []mesh.StringMatch{{Op: mesh.OpPresence}}})

func (w *world) apply(p *mesh.Policy) {
	w.t.Helper()
	w.change(func(m *mesh.Model) { m.Policies[p.Key] = p })
	w.settle()
}

func (w *world) remove(k mesh.PolicyKey) {
	w.t.Helper()
	w.change(func(m *mesh.Model) { delete(m.Policies, k) })
	w.settle()
}

// refused is a call that the mesh does not let through: the application is
// reset, not answered.
func refused(err error) error {
	switch {
	case err == nil:
		return errors.New("it was let through")
	case errors.Is(err, io.EOF):
		return errors.New("it ended orderly, want a reset")
	}
	if ne, ok := errors.AsType[net.Error](err); ok && ne.Timeout() {
		return errors.New("it timed out, want a reset")
	}
	return nil
}

func TestPoliciesDecideWhoMayConnect(t *testing.T) {
	needsRoot(t)
	w := newWorld(t, "one", "two")
	friend := w.newPod(w.nodes[0], "friend").enrolled()
	stranger := w.newPod(w.nodes[0], "stranger").enrolled()
	plain := w.newPod(w.nodes[0], "plain")
	web := w.newPod(w.nodes[1], "web").enrolled()
	web.echo(8080)
	web.echo(9090)
	type attempt struct {
		from *pod
		port uint16
		ok   bool
	}
	for _, c := range []struct {
		name     string
		policies []*mesh.Policy
		attached []mesh.PolicyKey
		attempts []attempt
		reason   string // of every refusal, at both ends
	}{
		{
			name:     "no policy lets everyone in",
			attempts: []attempt{{friend, 8080, true}, {stranger, 8080, true}, {plain, 8080, true}},
		},
		{
			name:     "DENY by principal refuses whom it names",
			policies: []*mesh.Policy{policy("deny", mesh.ScopeNamespace, mesh.ActionDeny, mesh.Match{Principals: principal(stranger)})},
			attempts: []attempt{{friend, 8080, true}, {stranger, 8080, false}, {plain, 8080, true}},
			reason:   "denied by DENY policy shop/deny rule 0",
		},
		{
			name:     "ALLOW by principal admits only whom it names",
			policies: []*mesh.Policy{policy("allow", mesh.ScopeNamespace, mesh.ActionAllow, mesh.Match{Principals: principal(friend)})},
			attempts: []attempt{{friend, 8080, true}, {stranger, 8080, false}, {plain, 8080, false}},
			reason:   "denied: no ALLOW policy matches (shop/allow applies)",
		},
		{
			name:     "DENY by port leaves the other ports alone",
			policies: []*mesh.Policy{policy("port", mesh.ScopeNamespace, mesh.ActionDeny, mesh.Match{DestinationPorts: []uint16{8080}})},
			attempts: []attempt{{friend, 8080, false}, {friend, 9090, true}},
			reason:   "denied by DENY policy shop/port rule 0",
		},
		{
			name:     "DENY by address block sees the client's own address",
			policies: []*mesh.Policy{policy("block", mesh.ScopeNamespace, mesh.ActionDeny, mesh.Match{SourceIPs: []netip.Prefix{netip.PrefixFrom(friend.v4, 32)}})},
			attempts: []attempt{{friend, 8080, false}, {stranger, 8080, true}},
			reason:   "denied by DENY policy shop/block rule 0",
		},
		{
			name:     "STRICT refuses plaintext",
			policies: []*mesh.Policy{strict}, attached: []mesh.PolicyKey{strict.Key},
			attempts: []attempt{{friend, 8080, true}, {plain, 8080, false}},
			reason:   "denied by DENY policy shop/istio_converted_static_strict rule 0",
		},
		{
			name: "a policy that is named and not known refuses everyone", attached: []mesh.PolicyKey{key("lost")},
			attempts: []attempt{{friend, 8080, false}, {plain, 8080, false}},
			reason:   "denied: policy shop/lost is not known here yet",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			w.change(func(m *mesh.Model) {
				m.Policies = map[mesh.PolicyKey]*mesh.Policy{}
				for _, p := range c.policies {
					m.Policies[p.Key] = p
				}
				x := *m.Workloads[web.workload]
				x.Policies = c.attached
				m.Workloads[web.workload] = &x
			})
			w.settle()
			for _, a := range c.attempts {
				_, err := a.from.call(web.at(a.port))
				if a.ok {
					if err != nil {
						t.Errorf("%s to %d: %v", a.from.name, a.port, err)
					}
					continue
				}
				if err := refused(err); err != nil {
					t.Errorf("%s to %d: %v", a.from.name, a.port, err)
				}
				web.node.logged(t, map[string]any{"direction": "inbound", "level": "ERROR", "src.workload": a.from.name, "reason": c.reason})
				if a.from != plain {
					a.from.node.logged(t, map[string]any{"direction": "outbound", "level": "ERROR", "src.workload": a.from.name, "reason": c.reason})
				}
			}
		})
	}
}

func TestOpenConnectionsAreJudgedAgain(t *testing.T) {
	needsRoot(t)
	w := newWorld(t, "one", "two")
	friend := w.newPod(w.nodes[0], "friend").enrolled()
	stranger := w.newPod(w.nodes[0], "stranger").enrolled()
	plain := w.newPod(w.nodes[0], "plain")
	web := w.newPod(w.nodes[1], "web").enrolled()
	web.echo(8080)
	open := func(from *pod) *net.TCPConn {
		t.Helper()
		c, err := from.dial(web.at(8080))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		if _, err := speak(c, "hello"); err != nil {
			t.Fatal(err)
		}
		return c
	}
	cut := func(c *net.TCPConn) error {
		_, err := c.Read(make([]byte, 1))
		return refused(err)
	}
	f, s, p := open(friend), open(stranger), open(plain)
	w.apply(policy("deny", mesh.ScopeNamespace, mesh.ActionDeny, mesh.Match{Principals: principal(stranger)}))
	if err := cut(s); err != nil {
		t.Errorf("denied by a new policy: %v", err)
	}
	web.node.logged(t, map[string]any{"direction": "inbound", "src.workload": "stranger", "policy": "shop/deny", "error": "connection closed due to policy change: denied by DENY policy shop/deny rule 0"})
	// Attaching a policy that exists is a change of the workload only.
	w.change(func(m *mesh.Model) {
		m.Policies[strict.Key] = strict
		x := *m.Workloads[web.workload]
		x.Policies = []mesh.PolicyKey{strict.Key}
		m.Workloads[web.workload] = &x
	})
	w.settle()
	if err := cut(p); err != nil {
		t.Errorf("plaintext under STRICT: %v", err)
	}
	if err := ping(f); err != nil {
		t.Errorf("the connection that is allowed all along: %v", err)
	}
	w.remove(key("deny"))
	if _, err := stranger.call(web.at(8080)); err != nil {
		t.Errorf("after the policy was removed: %v", err)
	}
}

// tunnel opens an HBONE tunnel to a pod by hand, from another pod's network.
func tunnel(t *testing.T, from *pod, to *pod, c hbone.Credentials, self, accept spiffe.ID) (hbone.Tunnel, error) {
	t.Helper()
	d := h2.NewDialer(h2.Config{Credentials: c, Connect: func(ctx context.Context, at netip.AddrPort) (net.Conn, error) {
		return linux.DialTCP(ctx, from.ns, at, linux.DialOptions{})
	}})
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
	defer cancel()
	tun, err := d.Dial(ctx, hbone.Target{Address: to.at(hbone.Port), Self: self, Accept: []spiffe.ID{accept}})
	if err == nil {
		t.Cleanup(func() { tun.Close() })
	}
	return tun, err
}

func TestPeersThatAreNotWhoTheySayAreRefused(t *testing.T) {
	needsRoot(t)
	w := newWorld(t, "one")
	rogue := w.newPod(w.nodes[0], "rogue")
	web := w.newPod(w.nodes[0], "web").enrolled()
	web.echo(8080)
	other := certstest.New(t)
	self := rogue.identity()
	elsewhere := spiffe.ID{TrustDomain: "example.org", Namespace: "shop", ServiceAccount: "rogue"}
	for _, c := range []struct {
		name         string
		creds        hbone.Credentials
		self, accept spiffe.ID
		authority    string
		status       int    // of the CONNECT; 0 for no tunnel
		serverSays   string // in the server's log
	}{
		{name: "a good certificate is let in", creds: w.ca.Credentials(t, self), self: self, accept: web.identity(), authority: web.at(8080).String(), status: 200},
		{name: "another CA's is not", creds: mixed(t, other, w.ca), self: self, accept: web.identity(), serverSays: "signed by a CA that is not ours"},
		{name: "an expired one is not", creds: w.ca.Expired(), self: self, accept: web.identity(), serverSays: "its certificate expired at"},
		{name: "another trust domain's is not", creds: w.ca.Credentials(t, elsewhere), self: elsewhere, accept: web.identity(), serverSays: "trust domain is example.org"},
		{name: "a server of another identity is not accepted", creds: w.ca.Credentials(t, self), self: self, accept: self},
		{name: "an address that is not the pod's is refused", creds: w.ca.Credentials(t, self), self: self, accept: web.identity(), authority: "10.9.9.9:8080", status: 400},
		{name: "the proxy's own ports are refused", creds: w.ca.Credentials(t, self), self: self, accept: web.identity(), authority: web.at(15001).String(), status: 503},
		{name: "nonsense is refused", creds: w.ca.Credentials(t, self), self: self, accept: web.identity(), authority: "nonsense", status: 400},
	} {
		t.Run(c.name, func(t *testing.T) {
			tun, err := tunnel(t, rogue, web, c.creds, c.self, c.accept)
			if c.status == 0 {
				if err == nil {
					t.Fatal("a tunnel was opened")
				}
				if c.serverSays != "" {
					eventually(t, func() error {
						for _, r := range web.node.ztunnels[0].log.records() {
							if text, _ := r["error"].(string); strings.Contains(text, c.serverSays) {
								return nil
							}
						}
						return errors.New("the server's log does not say " + c.serverSays)
					})
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			s, answer, err := tun.Open(t.Context(), hbone.Request{Authority: c.authority})
			status := answer.Status
			if refusal, ok := errors.AsType[*hbone.StatusError](err); ok {
				status = refusal.Response.Status
			}
			if status != c.status {
				t.Errorf("answer %d, %v; want %d", status, err, c.status)
			}
			if s != nil {
				s.Close()
			}
		})
	}
}

// mixed presents a's certificate and trusts b too, so that only the other
// side can refuse.
func mixed(t *testing.T, a, b *certstest.CA) *certs.Manager {
	t.Helper()
	a.Trust(b)
	return a.Credentials(t)
}

func TestMaliciousCallsToTheProxysPorts(t *testing.T) {
	needsRoot(t)
	w := newWorld(t, "one")
	a := w.newPod(w.nodes[0], "a").enrolled()
	b := w.newPod(w.nodes[0], "b").enrolled()
	outside := w.newPod(w.nodes[0], "outside")
	for _, from := range []*pod{a, outside} {
		for _, to := range []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("::1"), a.v4, a.v6, b.v4} {
			for _, port := range []uint16{15001, 15006, 15008} {
				c, err := from.dial(netip.AddrPortFrom(to, port))
				if err != nil {
					continue // refused at once
				}
				io.WriteString(c, "GET / HTTP/1.1\r\n\r\n")
				b, err := io.ReadAll(c)
				c.Close()
				// TLS answers nonsense with an alert of 7 bytes.
				if len(b) > 7 {
					t.Errorf("%s to %s:%d was answered %q, %v", from.name, to, port, b, err)
				}
				if ne, ok := errors.AsType[net.Error](err); ok && ne.Timeout() {
					t.Errorf("%s to %s:%d hangs", from.name, to, port)
				}
			}
		}
	}
	// No call came back to the proxy: what loops would be seen as many.
	for _, r := range w.nodes[0].ztunnels[0].log.records() {
		if r["msg"] == "connection complete" && r["level"] == "INFO" {
			t.Errorf("a call to the proxy's own port was carried: %v", r)
		}
	}
}
