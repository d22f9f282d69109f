package ca

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"log/slog"
	"math/big"
	"net"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/types/known/structpb"
	api "istio.io/api/security/v1alpha1"

	"github.com/ambit-mesh/ambit/internal/spiffe"
)

var epoch = time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func newKey() crypto.Signer { return must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)) }

// request makes a PEM certificate request that asks for the identity.
func request(key crypto.Signer, id string) []byte {
	der := must(x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{URIs: []*url.URL{must(url.Parse(id))}}, key))
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})
}

// plugged makes material below a root of its own: root, intermediate, issuing.
func plugged(now time.Time, until time.Time) *Material {
	root := must(NewRoot("corp", now))
	sign := func(cn string, parent *x509.Certificate, parentKey crypto.Signer) (*x509.Certificate, crypto.Signer) {
		key := newKey()
		tmpl := &x509.Certificate{SerialNumber: big.NewInt(7), Subject: pkix.Name{CommonName: cn}, NotBefore: now.Add(-time.Hour), NotAfter: until,
			IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
		der := must(x509.CreateCertificate(rand.Reader, tmpl, parent, key.Public(), parentKey))
		return must(x509.ParseCertificate(der)), key
	}
	middle, middleKey := sign("middle", root.Cert, root.Key)
	issuing, key := sign("issuing", middle, middleKey)
	return &Material{Cert: issuing, Key: key, Intermediates: []*x509.Certificate{issuing, middle}, Roots: root.Roots}
}

func at(now time.Time) AuthorityConfig {
	return AuthorityConfig{Now: func() time.Time { return now }}
}

// verify checks a delivered chain as a client does and returns the leaf.
func verify(t *testing.T, chain []string, now time.Time, use x509.ExtKeyUsage) *x509.Certificate {
	t.Helper()
	if len(chain) < 2 {
		t.Fatalf("%d elements, want the leaf and the roots at least", len(chain))
	}
	leaf := must(parseCerts([]byte(chain[0])))
	if len(leaf) != 1 {
		t.Fatalf("the first element holds %d certificates", len(leaf))
	}
	opts := x509.VerifyOptions{Roots: x509.NewCertPool(), Intermediates: x509.NewCertPool(), CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{use}}
	for _, c := range chain[1 : len(chain)-1] {
		opts.Intermediates.AppendCertsFromPEM([]byte(c))
	}
	opts.Roots.AppendCertsFromPEM([]byte(chain[len(chain)-1]))
	// go's verifier knows nothing of URI names; they are checked apart.
	leaf[0].UnhandledCriticalExtensions = nil
	if _, err := leaf[0].Verify(opts); err != nil {
		t.Fatalf("the chain does not verify: %v", err)
	}
	return leaf[0]
}

func TestIssuedChainsVerify(t *testing.T) {
	for name, m := range map[string]*Material{
		"self-signed":         must(NewRoot("cluster.local", epoch)),
		"plugged in":          plugged(epoch, epoch.Add(RootLifetime)),
		"through a Secret":    must(ParseMaterial(must(plugged(epoch, epoch.Add(RootLifetime)).Data()))),
		"two roots, rotating": {},
	} {
		t.Run(name, func(t *testing.T) {
			if m.Cert == nil {
				m = must(NewRoot("new", epoch))
				m.Roots = append(m.Roots, must(NewRoot("old", epoch)).Cert)
			}
			a := must(NewAuthority(m, at(epoch)))
			key := newKey()
			id := spiffe.ID{TrustDomain: "cluster.local", Namespace: "shop", ServiceAccount: "front"}
			chain, err := a.Sign(request(key, "spiffe://cluster.local/ns/other/sa/thief"), id, 0)
			if err != nil {
				t.Fatal(err)
			}
			for _, use := range []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth} {
				leaf := verify(t, chain, epoch, use)
				if len(leaf.URIs) != 1 || leaf.URIs[0].String() != id.String() {
					t.Errorf("the leaf names %v, want %s and never what the request says", leaf.URIs, id)
				}
				if leaf.IsCA || len(leaf.DNSNames)+len(leaf.IPAddresses)+len(leaf.EmailAddresses) > 0 {
					t.Errorf("the leaf may more than it should: %+v", leaf)
				}
				if !leaf.PublicKey.(*ecdsa.PublicKey).Equal(key.Public()) {
					t.Error("the leaf is for another key")
				}
			}
			if got, want := chain[len(chain)-1], string(a.Roots()); got != want {
				t.Errorf("the last element is not the root bundle")
			}
		})
	}
}

func TestLifetimes(t *testing.T) {
	short := plugged(epoch, epoch.Add(3*time.Hour))
	for _, tt := range []struct {
		name       string
		m          *Material
		ttl        time.Duration
		from, life time.Duration
		refused    bool
	}{
		{name: "none asked for is a day", life: 24 * time.Hour, from: -clocksDiffer},
		{name: "a negative one is a day too", ttl: -time.Hour, life: 24 * time.Hour, from: -clocksDiffer},
		{name: "a short one starts a tenth in the past", ttl: 100 * time.Second, life: 100 * time.Second, from: -10 * time.Second},
		{name: "the longest", ttl: 90 * 24 * time.Hour, life: 90 * 24 * time.Hour, from: -clocksDiffer},
		{name: "longer is refused, not cut", ttl: 90*24*time.Hour + time.Second, refused: true},
		{name: "none outlives the signer", m: short, ttl: 10 * time.Hour, life: 3 * time.Hour, from: -clocksDiffer},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.m == nil {
				tt.m = must(NewRoot("x", epoch))
			}
			a := must(NewAuthority(tt.m, at(epoch)))
			chain, err := a.Sign(request(newKey(), "spiffe://a/ns/b/sa/c"), spiffe.ID{TrustDomain: "a", Namespace: "b", ServiceAccount: "c"}, tt.ttl)
			if tt.refused {
				if !errors.Is(err, ErrRequest) {
					t.Fatalf("got %v, want a refusal", err)
				}
				return
			}
			leaf := verify(t, chain, epoch, x509.ExtKeyUsageServerAuth)
			if from, life := leaf.NotBefore.Sub(epoch), leaf.NotAfter.Sub(epoch); from != tt.from || life != tt.life {
				t.Errorf("valid from %v to %v, want %v to %v", from, life, tt.from, tt.life)
			}
		})
	}
	t.Run("an expired signer signs nothing", func(t *testing.T) {
		now := epoch
		a := must(NewAuthority(short, AuthorityConfig{Now: func() time.Time { return now }}))
		now = epoch.Add(4 * time.Hour)
		if _, err := a.Sign(request(newKey(), "spiffe://a/ns/b/sa/c"), spiffe.ID{TrustDomain: "a", Namespace: "b", ServiceAccount: "c"}, 0); err == nil {
			t.Error("it does")
		}
	})
}

func TestRequestsThatAreRefused(t *testing.T) {
	a := must(NewAuthority(must(NewRoot("x", epoch)), at(epoch)))
	id := spiffe.ID{TrustDomain: "a", Namespace: "b", ServiceAccount: "c"}
	good := request(newKey(), id.String())
	forged := []byte(strings.Clone(string(good)))
	block, _ := pem.Decode(forged)
	block.Bytes[len(block.Bytes)-5] ^= 1
	for name, csr := range map[string][]byte{
		"nothing":            nil,
		"not PEM":            []byte("hello"),
		"a certificate":      a.Roots(),
		"a broken signature": pem.EncodeToMemory(block),
		"a weak RSA key":     weak(t),
		"a weak curve":       request(must(ecdsa.GenerateKey(elliptic.P224(), rand.Reader)), id.String()),
	} {
		if _, err := a.Sign(csr, id, 0); !errors.Is(err, ErrRequest) {
			t.Errorf("%s: got %v, want a refusal", name, err)
		}
	}
	if _, err := a.Sign(good, spiffe.ID{TrustDomain: "a", Namespace: "b/x", ServiceAccount: "c d"}, 0); err == nil {
		t.Error("an identity that is no SPIFFE id is signed")
	}
	if _, err := a.Sign(request(must(rsa.GenerateKey(rand.Reader, 2048)), id.String()), id, 0); err != nil {
		t.Errorf("an RSA key of 2048 bits: %v", err)
	}
}

func weak(t *testing.T) []byte {
	t.Setenv("GODEBUG", "rsa1024min=0")
	return request(must(rsa.GenerateKey(rand.Reader, 1024)), "spiffe://a/ns/b/sa/c")
}

func TestMaterialThatCannotSign(t *testing.T) {
	root, other := must(NewRoot("a", epoch)), must(NewRoot("b", epoch))
	leafOnly := *root
	leafOnly.Cert = must(x509.ParseCertificate(must(NewServing(must(NewAuthority(root, at(epoch))), []string{"x"}).GetCertificate(nil)).Certificate[0]))
	for name, m := range map[string]*Material{
		"another's key":               {Cert: root.Cert, Key: other.Key, Roots: root.Roots},
		"a root it does not lead to":  {Cert: root.Cert, Key: root.Key, Roots: other.Roots},
		"a certificate that is no CA": &leafOnly,
	} {
		if err := m.Check(epoch); err == nil {
			t.Errorf("%s is accepted", name)
		}
	}
	if root.Check(epoch.Add(RootLifetime+time.Hour)) == nil {
		t.Error("an expired root is accepted")
	}
	for name, data := range map[string]map[string][]byte{
		"empty":  {},
		"no key": {keyCert: encode(root.Cert)},
		"junk":   {keyCert: []byte("junk"), keyKey: []byte("junk")},
	} {
		if _, err := ParseMaterial(data); err == nil {
			t.Errorf("a Secret with %s is accepted", name)
		}
	}
}

func TestSecretsOfOtherMakersAreRead(t *testing.T) {
	m := plugged(epoch, epoch.Add(RootLifetime))
	data := must(m.Data())
	for name, d := range map[string]map[string][]byte{
		"cert-manager":                {"tls.crt": append(encode(m.Cert), encode(m.Intermediates[1])...), "tls.key": data[keyKey], "ca.crt": data[keyRoot]},
		"chain without the signer":    {keyCert: data[keyCert], keyKey: data[keyKey], keyRoot: data[keyRoot], keyChain: encode(m.Intermediates[1])},
		"chain that repeats the root": {keyCert: data[keyCert], keyKey: data[keyKey], keyRoot: data[keyRoot], keyChain: encode(append(m.Intermediates, m.Roots...)...)},
	} {
		got, err := ParseMaterial(d)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if err := got.Check(epoch); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if len(got.Intermediates) != 2 || len(got.Roots) != 1 {
			t.Errorf("%s: %d intermediates and %d roots, want 2 and 1", name, len(got.Intermediates), len(got.Roots))
		}
	}
}

// world is Pods of a test.
type world struct {
	pods map[string]Pod // by namespace/name
	runs map[string]bool
}

func (w world) Pod(ns, name string) (Pod, bool)  { p, ok := w.pods[ns+"/"+name]; return p, ok }
func (w world) Runs(node string, a Account) bool { return w.runs[node+" "+a.String()] }

func TestImpersonation(t *testing.T) {
	ztunnel := Account{"istio-system", "ztunnel"}
	good := Caller{Account: ztunnel, PodName: "z1", PodUID: "u1"}
	want := spiffe.ID{TrustDomain: "cluster.local", Namespace: "shop", ServiceAccount: "front"}
	for _, tt := range []struct {
		name   string
		change func(c *Caller, w world, want *spiffe.ID)
		reason string
	}{
		{"a node proxy for a pod of its node", func(*Caller, world, *spiffe.ID) {}, ""},
		{"a token that names the right node", func(c *Caller, _ world, _ *spiffe.ID) { c.Node = "n1" }, ""},
		{"an ordinary pod", func(c *Caller, _ world, _ *spiffe.ID) { c.Account = Account{"shop", "front"} }, "not trusted"},
		{"an account of the same name elsewhere", func(c *Caller, _ world, _ *spiffe.ID) { c.Account.Namespace = "evil" }, "not trusted"},
		{"a token that is not bound to a pod", func(c *Caller, _ world, _ *spiffe.ID) { c.PodUID = "" }, "not bound"},
		{"a pod that is gone", func(c *Caller, _ world, _ *spiffe.ID) { c.PodName = "z9" }, "not known"},
		{"an earlier pod of the same name", func(c *Caller, _ world, _ *spiffe.ID) { c.PodUID = "u0" }, "has UID"},
		{"a pod of another account", func(_ *Caller, w world, _ *spiffe.ID) {
			w.pods["istio-system/z1"] = Pod{UID: "u1", ServiceAccount: "x", Node: "n1"}
		}, "runs as"},
		{"a pod that ended", func(_ *Caller, w world, _ *spiffe.ID) {
			w.pods["istio-system/z1"] = Pod{UID: "u1", ServiceAccount: "ztunnel", Node: "n1", Ended: true}
		}, "has ended"},
		{"a pod on no node", func(_ *Caller, w world, _ *spiffe.ID) {
			w.pods["istio-system/z1"] = Pod{UID: "u1", ServiceAccount: "ztunnel"}
		}, "on no node"},
		{"a token of another node", func(c *Caller, _ world, _ *spiffe.ID) { c.Node = "n2" }, "for node n2"},
		{"an identity of another node", func(_ *Caller, _ world, w *spiffe.ID) { w.ServiceAccount = "db" }, "no pod of shop/db runs on node n1"},
		{"an identity of another namespace", func(_ *Caller, _ world, w *spiffe.ID) { w.Namespace = "bank" }, "no pod"},
		{"another trust domain", func(_ *Caller, _ world, w *spiffe.ID) { w.TrustDomain = "evil.org" }, "trust domain"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := world{
				pods: map[string]Pod{"istio-system/z1": {UID: "u1", ServiceAccount: "ztunnel", Node: "n1"}},
				runs: map[string]bool{"n1 shop/front": true, "n2 shop/db": true},
			}
			c, id := good, want
			tt.change(&c, w, &id)
			err := Authorize(c, []Account{ztunnel}, w, "cluster.local", id)
			switch {
			case tt.reason == "" && err != nil:
				t.Errorf("refused: %v", err)
			case tt.reason != "" && (err == nil || !strings.Contains(err.Error(), tt.reason)):
				t.Errorf("got %v, want it refused because %q", err, tt.reason)
			}
		})
	}
}

// tokens is an Authenticator with one caller per token.
type tokens map[string]Caller

func (m tokens) Authenticate(_ context.Context, token string) (Caller, error) {
	c, ok := m[token]
	if !ok {
		return c, errors.New("unknown token")
	}
	return c, nil
}

func TestService(t *testing.T) {
	var seen []Outcome
	svc := NewService(ServiceConfig{
		Authority: must(NewAuthority(must(NewRoot("x", time.Now())), AuthorityConfig{})),
		Authenticator: tokens{
			"z": {Account: Account{"istio-system", "ztunnel"}, PodName: "z1", PodUID: "u1"},
			"p": {Account: Account{"shop", "front"}},
		},
		Pods: world{
			pods: map[string]Pod{"istio-system/z1": {UID: "u1", ServiceAccount: "ztunnel", Node: "n1"}},
			runs: map[string]bool{"n1 shop/front": true},
		},
		TrustDomain: func() string { return "cluster.local" }, Trusted: []Account{{"istio-system", "ztunnel"}},
		Observe: func(o Outcome) { seen = append(seen, o) }, Logger: slog.New(slog.DiscardHandler),
	})
	l := bufconn.Listen(1 << 16)
	g := grpc.NewServer()
	svc.Register(g)
	done := make(chan struct{})
	go func() { defer close(done); g.Serve(l) }()
	conn := must(grpc.NewClient("passthrough:///ca", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(context.Context, string) (net.Conn, error) { return l.Dial() })))
	defer func() { conn.Close(); g.Stop(); <-done }()
	client := api.NewIstioCertificateServiceClient(conn)
	const front = "spiffe://cluster.local/ns/shop/sa/front"
	for _, tt := range []struct {
		name, header, wanted string
		csr                  []byte
		seconds              int64
		code                 codes.Code
		names                string
		outcome              Outcome
	}{
		{name: "a node proxy gets the pod's certificate", header: "Bearer z", wanted: front, csr: request(newKey(), front), names: front, outcome: Issued},
		{name: "without impersonation it gets its own", header: "Bearer z", csr: request(newKey(), front), names: "spiffe://cluster.local/ns/istio-system/sa/ztunnel", outcome: Issued},
		{name: "a pod gets its own, whatever it asks", header: "bearer p", csr: request(newKey(), "spiffe://cluster.local/ns/bank/sa/teller"), names: front, outcome: Issued},
		{name: "a pod cannot impersonate", header: "Bearer p", wanted: front, csr: request(newKey(), front), code: codes.Unauthenticated, outcome: Unauthorized},
		{name: "nor can a proxy take what is no identity", header: "Bearer z", wanted: "front", csr: request(newKey(), front), code: codes.Unauthenticated, outcome: Unauthorized},
		{name: "an unknown token", header: "Bearer q", csr: request(newKey(), front), code: codes.Unauthenticated, outcome: Unauthentic},
		{name: "no token", header: "Basic z", csr: request(newKey(), front), code: codes.Unauthenticated, outcome: Unauthentic},
		{name: "a bad request", header: "Bearer z", csr: []byte("x"), code: codes.InvalidArgument, outcome: BadRequest},
		{name: "a negative life near overflow", header: "Bearer p", csr: request(newKey(), front), seconds: -1 << 62, names: front, outcome: Issued},
		{name: "a life near overflow", header: "Bearer z", csr: request(newKey(), front), seconds: 1 << 62, code: codes.InvalidArgument, outcome: BadRequest},
	} {
		t.Run(tt.name, func(t *testing.T) {
			seen = nil
			req := &api.IstioCertificateRequest{Csr: string(tt.csr), ValidityDuration: tt.seconds}
			if tt.wanted != "" {
				req.Metadata = must(structpb.NewStruct(map[string]any{"ImpersonatedIdentity": tt.wanted}))
			}
			resp, err := client.CreateCertificate(metadata.AppendToOutgoingContext(t.Context(), "authorization", tt.header), req)
			if status.Code(err) != tt.code {
				t.Fatalf("got %v, want %v", err, tt.code)
			}
			if d := cmp.Diff([]Outcome{tt.outcome}, seen); d != "" {
				t.Error(d)
			}
			if err != nil {
				if strings.Contains(err.Error(), "trusted") {
					t.Errorf("the caller is told why: %v", err)
				}
				return
			}
			if leaf := verify(t, resp.CertChain, time.Now(), x509.ExtKeyUsageClientAuth); leaf.URIs[0].String() != tt.names {
				t.Errorf("names %s, want %s", leaf.URIs[0], tt.names)
			}
		})
	}
}

func TestTheServingCertificateIsRenewedAtHalfLife(t *testing.T) {
	now := epoch
	a := must(NewAuthority(must(NewRoot("x", now)), AuthorityConfig{Now: func() time.Time { return now }}))
	s := NewServing(a, []string{"istiod.istio-system.svc", "127.0.0.1"})
	get := func() *tls.Certificate { return must(s.GetCertificate(nil)) }
	first := get()
	if err := first.Leaf.VerifyHostname("istiod.istio-system.svc"); err != nil {
		t.Error(err)
	}
	if err := first.Leaf.VerifyHostname("127.0.0.1"); err != nil {
		t.Error(err)
	}
	now = epoch.Add(servingTTL/2 - time.Minute)
	if get() != first {
		t.Error("replaced before half of its life")
	}
	now = epoch.Add(servingTTL/2 + time.Minute)
	second := get()
	if second == first {
		t.Error("not replaced after half of its life")
	}
	if err := a.Use(must(NewRoot("y", now))); err != nil {
		t.Fatal(err)
	}
	if get() == second {
		t.Error("not replaced although the signer changed")
	}
}
