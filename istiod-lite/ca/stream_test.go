package ca

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/ambit-mesh/ambit/internal/certs"
	"github.com/ambit-mesh/ambit/internal/spiffe"
	"github.com/ambit-mesh/ambit/istiod-lite/rotation"
)

// TestAProxyIsGuidedOverTheWire: the client of proxies against the service, with
// TLS, tokens and a file of roots.
func TestAProxyIsGuidedOverTheWire(t *testing.T) {
	first, second := must(NewRoot("mesh", time.Now())), must(NewRoot("mesh", time.Now()))
	authority, guides := must(NewAuthority(first, AuthorityConfig{})), NewGuides()
	callers := tokens{
		"z": {Account: Account{"istio-system", "ztunnel"}, PodName: "z1", PodUID: "u1"},
		"p": {Account: Account{"shop", "front"}, PodName: "p1", PodUID: "u2"},
	}
	serving := NewServing(authority, []string{"127.0.0.1"})
	g := grpc.NewServer(grpc.Creds(credentials.NewTLS(&tls.Config{MinVersion: tls.VersionTLS13, GetCertificate: serving.GetCertificate})))
	guides.Serve(g, callers, func(c Caller) (rotation.Member, error) {
		if c.PodUID != "u1" {
			return rotation.Member{}, errors.New("no proxy")
		}
		return rotation.Member{ID: c.PodUID, Name: c.PodName, Kind: rotation.KindZtunnel}, nil
	})
	NewService(ServiceConfig{
		Authority: authority, Authenticator: callers, Trusted: []Account{{"istio-system", "ztunnel"}},
		Pods:        world{pods: map[string]Pod{"istio-system/z1": {UID: "u1", ServiceAccount: "ztunnel", Node: "n1"}}, runs: map[string]bool{"n1 shop/front": true}},
		TrustDomain: func() string { return "cluster.local" }, Logger: quiet,
	}).Register(g)
	l := must(net.Listen("tcp", "127.0.0.1:0"))
	var all sync.WaitGroup
	all.Go(func() { g.Serve(l) })
	defer all.Wait()
	defer g.Stop()
	defer guides.Close()
	var stops []func()
	defer func() {
		for _, stop := range stops {
			stop()
		}
	}()

	dir := t.TempDir()
	file := func(name string, text []byte) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	proxy := func(token string) *certs.Manager {
		c := certs.NewCAClient(certs.CAConfig{Address: l.Addr().String(), RootFile: file("roots", authority.Roots()), TokenFile: file(token, []byte(token))})
		m := certs.NewManager(certs.Config{CA: c})
		ctx, cancel := context.WithCancel(context.Background())
		all.Go(func() { m.Run(ctx) })
		stops = append(stops, func() { cancel(); c.Close() })
		return m
	}
	m := proxy("z")
	proxy("p") // is refused, and its word does not count
	id := spiffe.ID{TrustDomain: "cluster.local", Namespace: "shop", ServiceAccount: "front"}
	if _, err := m.Certificate(within(t), id); err != nil {
		t.Fatal(err)
	}
	tell := func(epoch uint64, active *Material, roots ...*Material) {
		trust := certs.Trust{Epoch: epoch, Active: certs.Fingerprint(active.Cert)}
		for _, r := range roots {
			trust.Roots = append(trust.Roots, r.Cert)
		}
		guides.Tell(trust)
	}
	said := func(what string, ok func(Standing) bool) {
		t.Helper()
		for {
			all := guides.Standings()
			if len(all) == 1 && all["u1"].Standing != nil && ok(all["u1"]) {
				return
			}
			select {
			case <-guides.Heard():
			case <-within(t).Done():
				t.Fatalf("%s: %+v", what, all)
			}
		}
	}
	holds := func(s Standing, root *Material) bool {
		return len(s.Holds) == 1 && s.Holds[0].Root == certs.Fingerprint(root.Cert)
	}
	tell(1, first, first, second)
	said("trusts both", func(s Standing) bool {
		return s.Epoch == 1 && len(s.Trusts) == 2 && len(s.File) == 1 && holds(s, first)
	})
	both := *first
	both.Roots = append(both.Roots[:1:1], second.Cert)
	file("roots", append(encode(first.Cert), encode(second.Cert)...))
	said("its file has both", func(s Standing) bool { return len(s.File) == 2 })
	switched := *second
	switched.Roots = both.Roots
	if err := authority.Use(&switched); err != nil {
		t.Fatal(err)
	}
	tell(2, second, first, second)
	said("has a new certificate", func(s Standing) bool { return s.Epoch == 2 && holds(s, second) })
	tell(3, second, second)
	said("has forgotten the old root", func(s Standing) bool { return s.Epoch == 3 && len(s.Trusts) == 1 })
}

// within bounds what happens at once.
func within(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}
