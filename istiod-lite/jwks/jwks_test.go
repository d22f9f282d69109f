package jwks

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/types/known/durationpb"
	api "istio.io/api/security/v1beta1"
	security "istio.io/client-go/pkg/apis/security/v1"

	"github.com/ambit-mesh/ambit/istiod-lite/objects"
)

const keys = `{"keys":[{"kty":"EC"}]}`

// got is one Put.
type got struct {
	place, keys, problem string
	gone                 bool
}

// run starts a Fetcher that is quick, and ends it with the test.
func run(t *testing.T, change ...func(*Config)) (*Fetcher, <-chan got) {
	t.Helper()
	puts := make(chan got, 100)
	cfg := Config{
		Refresh: time.Millisecond, Retry: time.Millisecond, MaxRetry: 2 * time.Millisecond, AllowLocal: true, Logger: slog.New(slog.DiscardHandler),
		Put: func(ref objects.Ref, o any) {
			g := got{place: ref.Key.Name, gone: o == nil}
			if s, ok := o.(*objects.KeySet); ok {
				g.keys, g.problem = s.Keys, s.Problem
			}
			puts <- g
		},
	}
	for _, f := range change {
		f(&cfg)
	}
	f := New(cfg)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); f.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	return f, puts
}

func next(t *testing.T, puts <-chan got) got {
	t.Helper()
	select {
	case g := <-puts:
		return g
	case <-time.After(10 * time.Second):
		t.Fatal("nothing came within 10 s")
		return got{}
	}
}

func TestKeysSurviveAnOutage(t *testing.T) {
	var out atomic.Bool
	var text atomic.Value
	text.Store(keys)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if out.Load() {
			http.Error(w, "out of order", http.StatusBadGateway)
			return
		}
		w.Write([]byte(text.Load().(string)))
	}))
	t.Cleanup(s.Close)
	f, puts := run(t)
	f.Want(map[string]time.Duration{s.URL: 0})
	if g := next(t, puts); g.keys != keys || g.problem != "" {
		t.Fatalf("first %+v, want the keys", g)
	}
	out.Store(true)
	if g := next(t, puts); g.keys != keys || !strings.Contains(g.problem, "could not be fetched: ") || !strings.Contains(g.problem, "502") {
		t.Fatalf("in the outage %+v, want the keys with a problem", g)
	}
	rotated := `{"keys":[{"kty":"RSA"}]}`
	text.Store(rotated)
	out.Store(false)
	if g := next(t, puts); g.keys != rotated || g.problem != "" {
		t.Fatalf("after the outage %+v, want the new keys", g)
	}
	text.Store("<html>maintenance</html>")
	if g := next(t, puts); g.keys != rotated || !strings.Contains(g.problem, "not a JWKS") {
		t.Fatalf("instead of a page that is no JWKS %+v, want the keys", g)
	}
	f.Want(nil)
	for g := next(t, puts); !g.gone; g = next(t, puts) {
	}
}

func TestKeysThatWereNeverHad(t *testing.T) {
	f, puts := run(t)
	for _, tt := range []struct{ place, problem string }{
		{"http://127.0.0.1:1/", "refused"},
		{"ftp://issuer/keys", "is not a place to fetch from"},
		{"keys", "is not a place to fetch from"},
		{"%", "invalid URL"},
	} {
		f.Want(map[string]time.Duration{tt.place: time.Second})
		g := next(t, puts)
		for g.gone {
			g = next(t, puts)
		}
		if g.place != tt.place || g.keys != "" || !strings.Contains(g.problem, tt.problem) {
			t.Errorf("%s: %+v, want a problem with %q", tt.place, g, tt.problem)
		}
	}
}

func TestDiscovery(t *testing.T) {
	var issuer atomic.Value
	issuer.Store("")
	mux := http.NewServeMux()
	s := httptest.NewServer(mux)
	t.Cleanup(s.Close)
	mux.HandleFunc("/i/.well-known/openid-configuration", func(w http.ResponseWriter, r *http.Request) {
		w.Write([]byte(`{"issuer":"` + s.URL + issuer.Load().(string) + `","jwks_uri":"` + s.URL + `/keys"}`))
	})
	mux.HandleFunc("/keys", func(w http.ResponseWriter, r *http.Request) { w.Write([]byte(keys)) })
	f, puts := run(t)
	issuer.Store("/other")
	f.Want(map[string]time.Duration{s.URL + "/i/.well-known/openid-configuration": 0})
	if g := next(t, puts); g.keys != "" || !strings.Contains(g.problem, "that of issuer") {
		t.Errorf("a description of another issuer gave %+v", g)
	}
	issuer.Store("/i/")
	if g := next(t, puts); g.keys != keys {
		t.Errorf("discovery gave %+v, want the keys", g)
	}
}

func TestWhatOnlyTheControlPlaneReachesIsNotFetched(t *testing.T) {
	for address, want := range map[string]bool{
		"127.0.0.1": true, "::1": true, "169.254.169.254": true, "fe80::1": true, "fd00:ec2::254": true, "100.100.100.200": true,
		"0.0.0.0": true, "224.0.0.1": true, "10.0.0.1": false, "203.0.113.1": false, "192.0.2.1": true,
	} {
		cfg := Config{Blocked: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}}
		if got := blocked(cfg, netip.MustParseAddr(address)); got != want {
			t.Errorf("%s is blocked: %v, want %v", address, got, want)
		}
		cfg.AllowLocal = true
		if got, want := blocked(cfg, netip.MustParseAddr(address)), address == "192.0.2.1"; got != want {
			t.Errorf("%s is blocked where local ones are allowed: %v, want %v", address, got, want)
		}
	}
	s := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("the control plane was reached") }))
	t.Cleanup(s.Close)
	f, puts := run(t, func(c *Config) { c.AllowLocal = false })
	f.Want(map[string]time.Duration{s.URL: 0})
	if g := next(t, puts); g.keys != "" || !strings.Contains(g.problem, "is not one to fetch keys from") {
		t.Errorf("%+v, want a refusal", g)
	}
}

func TestRedirectsStayInTLS(t *testing.T) {
	c := newClient(Config{})
	request := func(url string) *http.Request { return httptest.NewRequest(http.MethodGet, url, nil) }
	if c.CheckRedirect(request("http://a"), []*http.Request{request("https://a")}) == nil {
		t.Error("a redirect from https to http is followed")
	}
	if err := c.CheckRedirect(request("https://b"), []*http.Request{request("https://a")}); err != nil {
		t.Errorf("a redirect within https is refused: %v", err)
	}
	if c.CheckRedirect(request("https://b"), make([]*http.Request, 5)) == nil {
		t.Error("redirects go on for ever")
	}
}

func TestWanted(t *testing.T) {
	ra := &security.RequestAuthentication{}
	ra.Spec.JwtRules = []*api.JWTRule{
		{Issuer: "a", Jwks: keys}, {Issuer: "b", JwksUri: "https://b/keys"}, {Issuer: "b2", JwksUri: "https://b/keys", Timeout: durationpb.New(time.Minute)},
		{Issuer: "https://c/"}, {JwksUri: "https://nobody/keys"},
	}
	var s objects.Set
	if _, err := s.Put(ra); err != nil {
		t.Fatal(err)
	}
	want := map[string]time.Duration{"https://b/keys": time.Minute, "https://c/.well-known/openid-configuration": 0}
	if d := cmp.Diff(want, Wanted(&s)); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}
