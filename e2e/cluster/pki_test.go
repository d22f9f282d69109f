package cluster

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"testing"

	"sigs.k8s.io/yaml"
)

func newCA(t *testing.T) *pki {
	t.Helper()
	ca, err := openPKI(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

func TestCertificatesAreSignedForTheirNames(t *testing.T) {
	ca := newCA(t)
	certPEM, keyPEM, err := ca.issue(subject{name: "system:node:node1", group: "system:nodes", hosts: []string{"node1", "10.231.0.11", "fd7a:ab17::b"}})
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca.bundle())
	for host, good := range map[string]bool{"node1": true, "10.231.0.11": true, "fd7a:ab17::b": true, "node2": false, "10.231.0.12": false} {
		_, err := pair.Leaf.Verify(x509.VerifyOptions{Roots: roots, DNSName: host, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})
		if (err == nil) != good {
			t.Errorf("as %s: %v", host, err)
		}
	}
	if got := pair.Leaf.Subject; got.CommonName != "system:node:node1" || got.Organization[0] != "system:nodes" {
		t.Errorf("Kubernetes would see user %s of %v", got.CommonName, got.Organization)
	}
}

func TestAnAuthorityIsTheSameWhenItIsOpenedAgain(t *testing.T) {
	dir := t.TempDir()
	first, err := openPKI(dir)
	if err != nil {
		t.Fatal(err)
	}
	key1, err := first.signingKey()
	if err != nil {
		t.Fatal(err)
	}
	second, err := openPKI(dir)
	if err != nil {
		t.Fatal(err)
	}
	key2, err := second.signingKey()
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(first.bundle(), second.bundle()) || !bytes.Equal(key1, key2) {
		t.Error("a new authority or signing key was made: every token and certificate would become invalid")
	}
}

func TestKubeconfigLeadsToTheServer(t *testing.T) {
	ca := newCA(t)
	content, err := kubeconfig(plan{"x", 2, IPv6}, ca, subject{name: "admin", group: "system:masters"})
	if err != nil {
		t.Fatal(err)
	}
	var conf struct {
		CurrentContext string `json:"current-context"`
		Clusters       []struct {
			Cluster struct {
				Server string
				CA     string `json:"certificate-authority-data"`
			}
		}
	}
	if err := yaml.Unmarshal([]byte(content), &conf); err != nil {
		t.Fatal(err)
	}
	if got, want := conf.Clusters[0].Cluster.Server, "https://[fd7a:ab17:2:1::2]:6443"; got != want {
		t.Errorf("server is %s, want %s", got, want)
	}
	if bundle, _ := base64.StdEncoding.DecodeString(conf.Clusters[0].Cluster.CA); !bytes.Equal(bundle, ca.bundle()) {
		t.Error("the authority is another one")
	}
	if conf.CurrentContext != "ambit-x" {
		t.Errorf("current context is %q", conf.CurrentContext)
	}
}
