package main

import (
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	istiodlite "github.com/ambit-mesh/ambit/istiod-lite"
	"github.com/ambit-mesh/ambit/istiod-lite/ca"
)

func env(m map[string]string) func(string) string { return func(k string) string { return m[k] } }

func TestSettings(t *testing.T) {
	s, err := readSettings(nil, env(nil))
	if err != nil {
		t.Fatal(err)
	}
	if s.namespace != "istio-system" || s.audiences != "istio-ca" || s.mesh.TrustDomain != "cluster.local" || s.mesh.RootNamespace != "istio-system" || s.level != slog.LevelInfo {
		t.Errorf("with nothing set: %+v", s)
	}
	s, err = readSettings([]string{"discovery"}, env(map[string]string{
		"POD_NAMESPACE": "mesh", "CLUSTER_ID": "c1", "TRUST_DOMAIN": "example.org", "LOG_LEVEL": "debug", "CA_TRUSTED_NODE_ACCOUNTS": "mesh/ztunnel, other/z",
	}))
	if err != nil {
		t.Fatal(err)
	}
	if s.namespace != "mesh" || s.mesh.RootNamespace != "mesh" || s.mesh.ClusterID != "c1" || s.mesh.TrustDomain != "example.org" || s.level != slog.LevelDebug {
		t.Errorf("from the environment: %+v", s)
	}
	s, err = readSettings([]string{"-namespace", "flag", "-trust-domain", "flag.org"}, env(map[string]string{"POD_NAMESPACE": "mesh", "TRUST_DOMAIN": "example.org"}))
	if err != nil || s.namespace != "flag" || s.mesh.TrustDomain != "flag.org" {
		t.Errorf("flags do not win: %+v, %v", s, err)
	}
	for _, args := range [][]string{{"-nonsense"}, {"serve"}, {"-keys", "x"}, {"-directory", "x"}, {"-log-level", "loud"}} {
		if _, err := readSettings(args, env(nil)); err == nil {
			t.Errorf("%q is accepted", args)
		}
	}
}

func TestWhereKeysAreNotFetched(t *testing.T) {
	base := []string{"-directory", t.TempDir(), "-keys", t.TempDir(), "-grpc-address", "", "-http-address", "", "-metrics-address", ""}
	read := func(e map[string]string) (istiodlite.Config, error) {
		s, err := readSettings(base, env(e))
		if err != nil {
			t.Fatal(err)
		}
		return s.config(slog.New(slog.DiscardHandler))
	}
	cfg, err := read(map[string]string{"BLOCKED_CIDRS_IN_JWKS_URIS": "10.0.0.1/8, fd00::/8", "ALLOW_LOCAL_ISSUERS": "true"})
	if want := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8")}; err != nil || !slices.Equal(cfg.BlockedIssuers, want) || !cfg.AllowLocalIssuers {
		t.Errorf("got %v and %v, %v; want %v", cfg.BlockedIssuers, cfg.AllowLocalIssuers, err, want)
	}
	if cfg, err := read(nil); err != nil || len(cfg.BlockedIssuers) > 0 || cfg.AllowLocalIssuers {
		t.Errorf("by default %v and %v, %v", cfg.BlockedIssuers, cfg.AllowLocalIssuers, err)
	}
	if _, err := read(map[string]string{"BLOCKED_CIDRS_IN_JWKS_URIS": "everywhere"}); err == nil {
		t.Error("a block that is none is taken")
	}
}

func TestConfigFromADirectory(t *testing.T) {
	dir := t.TempDir()
	tokens := filepath.Join(dir, "tokens.yaml")
	write := func(text string) {
		if err := os.WriteFile(tokens, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	read := func(extra ...string) (map[string]ca.Caller, []ca.Account, error) {
		args := append([]string{"-directory", dir, "-keys", dir, "-tokens", tokens, "-grpc-address", "127.0.0.1:0", "-http-address", "", "-metrics-address", "127.0.0.1:0"}, extra...)
		s, err := readSettings(args, env(nil))
		if err != nil {
			t.Fatal(err)
		}
		cfg, err := s.config(slog.New(slog.DiscardHandler))
		if err != nil {
			return nil, nil, err
		}
		cfg.GRPC.Close()
		cfg.Metrics.Close()
		if cfg.HTTP != nil {
			t.Error("an empty address is listened on")
		}
		return cfg.Directory.Tokens, cfg.Trusted, nil
	}
	write("- {token: a, namespace: istio-system, serviceAccount: ztunnel, pod: z, uid: u, node: n1}\n")
	got, trusted, err := read("-trusted-node-accounts", "istio-system/ztunnel,mesh/z")
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]ca.Caller{"a": {Account: ca.Account{Namespace: "istio-system", Name: "ztunnel"}, PodName: "z", PodUID: "u", Node: "n1"}}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff([]ca.Account{{Namespace: "istio-system", Name: "ztunnel"}, {Namespace: "mesh", Name: "z"}}, trusted); d != "" {
		t.Error(d)
	}
	if _, _, err := read("-trusted-node-accounts", "ztunnel"); err == nil {
		t.Error("an account without a namespace is accepted")
	}
	for _, bad := range []string{"- {token: a}", "- {tokn: a}", "{"} {
		write(bad)
		if _, _, err := read(); err == nil {
			t.Errorf("tokens %q are accepted", bad)
		}
	}
}
