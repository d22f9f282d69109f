package command

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"testing"
	"time"

	"golang.org/x/tools/txtar"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"

	"github.com/ambit-mesh/ambit/ambit/ask"
	"github.com/ambit-mesh/ambit/ambit/reach"
)

func TestTheAuthorityForPeople(t *testing.T) {
	now := time.Date(2026, 11, 26, 5, 0, 0, 0, time.UTC)
	old, fresh := "aaaaaaaaaaaaaaaaaaaa", "bbbbbbbbbbbbbbbbbbbb"
	a := ask.Part{ID: "1", Name: "istio-system/ztunnel-a", Node: "n1", Kind: "ztunnel"}
	b := ask.Part{ID: "2", Name: "shop/waypoint-5f-z", Node: "n2", Kind: "waypoint"}
	var out bytes.Buffer
	err := writeAuthority(&out, &ask.Authority{
		Phase: "reissue", Epoch: 1795669200, Since: now.Add(-90 * time.Second), Root: fresh,
		Roots: []ask.AuthorityRoot{{Fingerprint: old, Subject: "O=cluster.local", NotAfter: now.Add(24 * time.Hour)}, {Fingerprint: fresh, Subject: "O=cluster.local", NotAfter: now.Add(240 * time.Hour), Signs: true}},
		Proxies: []ask.Truster{
			{Part: b, Epoch: 1795669200, Trusts: []string{old, fresh}, Holds: []ask.Holding{{Root: old, Count: 1}}},
			{Part: a, Trusts: []string{old, fresh}, Holds: []ask.Holding{{Root: old, Count: 2}, {Root: fresh, Count: 11}}, Says: "is at epoch 1 of 2"},
		},
		Waiting: []ask.Waited{{Part: b, Lacks: "has certificates of the old root"}, {Part: ask.Part{ID: "3", Name: "istiod-x", Node: "n1", Kind: "istiod"}, Lacks: "has not taken epoch 1795669200"}},
	}, now)
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "testdata/ca.txtar", &txtar.Archive{
		Comment: []byte("What the certificate authority looks like. Rewrite with: go test ./ambit/command -update\n"),
		Files:   []txtar.File{{Name: "status", Data: out.Bytes()}},
	})
}

func TestRevokingAddsToTheListAndClearsIt(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	root := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{Organization: []string{"x"}}, NotBefore: time.Now(), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, root, root, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	if root, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	client := fake.NewClientset(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "istio-system", Name: ownRootSecret}, Data: map[string][]byte{
		"ca-cert.pem": pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		"ca-key.pem":  pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}),
	}})
	cluster := &reach.Cluster{Client: client}
	list := func() []byte {
		s, err := client.CoreV1().Secrets("istio-system").Get(context.Background(), ownRootSecret, metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return s.Data[revocationsKey]
	}
	for i, serial := range []string{"31", "0x20"} {
		if n, err := revoke(t.Context(), cluster, []string{serial}); err != nil || n != i+1 {
			t.Fatalf("%s: %d revoked, %v", serial, n, err)
		}
	}
	block, _ := pem.Decode(list())
	crl, err := x509.ParseRevocationList(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	if err := root.CheckSignature(crl.SignatureAlgorithm, crl.RawTBSRevocationList, crl.Signature); err != nil {
		t.Error(err)
	}
	if e := crl.RevokedCertificateEntries; len(e) != 2 || e[0].SerialNumber.Int64() != 31 || e[1].SerialNumber.Int64() != 32 {
		t.Errorf("revoked %v", e)
	}
	if _, err := revoke(t.Context(), cluster, []string{"none"}); err == nil {
		t.Error("what is no number is taken")
	}
	if n, err := revoke(t.Context(), cluster, nil); err != nil || n != 0 || len(list()) != 0 {
		t.Errorf("cleared to %d, %v", n, err)
	}
}
