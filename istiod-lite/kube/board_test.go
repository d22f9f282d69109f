package kube

import (
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"math/big"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ambit-mesh/ambit/internal/certs"
	"github.com/ambit-mesh/ambit/istiod-lite/ca"
	"github.com/ambit-mesh/ambit/istiod-lite/rotation"
)

// board is a running one over an API server in memory.
func board(t *testing.T, c *apiServer) *Board {
	t.Helper()
	b := NewBoard(&Keys{Client: c.Kube, Namespace: "istio-system", Organization: "x", Logger: quiet})
	if _, err := b.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	running(t, b.Run)
	c.watching(t, 3, "secrets")
	c.watching(t, 1, "configmaps")
	eventually(t, "the board is read", func() bool {
		b.mu.Lock()
		defer b.mu.Unlock()
		return b.synced
	})
	return b
}

// putSecret writes a Secret over the one that is there.
func putSecret(t *testing.T, c *apiServer, name string, data map[string][]byte, annotations map[string]string) {
	t.Helper()
	s := secret(name, data)
	s.Annotations = annotations
	api := c.Kube.CoreV1().Secrets("istio-system")
	if _, err := api.Update(t.Context(), s, metav1.UpdateOptions{}); err != nil {
		if _, err := api.Create(t.Context(), s, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
}

func wants(b *Board, m *ca.Material) func() bool {
	return func() bool {
		to := b.Read().Target
		return m == nil && to == nil || m != nil && to != nil && to.Cert.Equal(m.Cert)
	}
}

func TestWhichAuthorityIsWanted(t *testing.T) {
	first, firstData := data(t, "first")
	second, secondData := data(t, "second")
	c := fakes(secret(pluggedSecret, firstData), secret("other", secondData))
	b := board(t, c)
	eventually(t, "the plugged-in one is wanted", wants(b, first))
	putSecret(t, c, pluggedSecret, map[string][]byte{"ca-cert.pem": []byte("broken")}, nil)
	eventually(t, "a broken one wants nothing", wants(b, nil))
	putSecret(t, c, pluggedSecret, secondData, nil)
	eventually(t, "another one is wanted", wants(b, second))
	if signs := b.Read().Course.Material; !signs.Cert.Equal(first.Cert) {
		t.Error("another one signs already")
	}
	if err := c.Kube.CoreV1().Secrets("istio-system").Delete(t.Context(), pluggedSecret, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "one that is gone is not replaced by itself", wants(b, nil))
	_, strange := data(t, "strange")
	putSecret(t, c, ownSecret, strange, nil)
	eventually(t, "our own Secret is read", func() bool { b.mu.Lock(); defer b.mu.Unlock(); return b.own != nil })
	if !wants(b, nil)() {
		t.Error("what somebody put in the place of our own is wanted")
	}
	putSecret(t, c, ownSecret, strange, map[string]string{askedFor: "now"})
	eventually(t, "another root is asked for", func() bool { return b.Read().Asked })
	if err := b.Renew(t.Context(), b.Read()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the new one is wanted", func() bool {
		r := b.Read()
		return !r.Asked && r.Target != nil && r.Target.Cert.Subject.Organization[0] == "x"
	})
}

func TestWhatIsOnTheBoardSurvivesEverybody(t *testing.T) {
	plugged, pluggedData := data(t, "plugged")
	c := fakes(secret(pluggedSecret, pluggedData))
	b := board(t, c)
	_, nextData := data(t, "next")
	putSecret(t, c, pluggedSecret, nextData, nil)

	// A replica that starts finds what signs there, not what is to sign.
	late := board(t, c)
	r := late.Read()
	if !r.Course.Material.Cert.Equal(plugged.Cert) || r.Course.State.Phase != rotation.Steady {
		t.Errorf("it signs with %v in phase %s", r.Course.Material.Cert.Subject, r.Course.State.Phase)
	}
	next := *r.Course
	next.State.Epoch++
	next.State.Longest = 48 * time.Hour
	if err := late.Write(t.Context(), r, &next); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the other one has it", func() bool { return b.Read().Course.State.Longest == 48*time.Hour })
	stale := r
	stale.Version = "before"
	if err := late.Write(t.Context(), stale, &next); !errors.Is(err, ca.ErrOvertaken) {
		t.Errorf("over what was not read: %v", err)
	}

	if err := c.Kube.CoreV1().Secrets("istio-system").Delete(t.Context(), stateSecret, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the state is written again", func() bool {
		s, err := c.Kube.CoreV1().Secrets("istio-system").Get(t.Context(), stateSecret, metav1.GetOptions{})
		if err != nil {
			return false
		}
		course, err := ca.ParseCourse(s.Data)
		return err == nil && course.State.Longest == 48*time.Hour && course.Material.Cert.Equal(plugged.Cert)
	})
}

func TestReplicasReadEachOthersRecords(t *testing.T) {
	c := fakes()
	a, b := board(t, c), board(t, c)
	for _, replica := range []string{"istiod-1", "istiod-2", "istiod-1"} {
		if err := a.Note(t.Context(), rotation.Record{Replica: replica, Epoch: 7, Proxies: map[string]rotation.Word{"u": {}}}); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "both records are there", func() bool { return len(b.Read().Records) == 2 && b.Read().Records[0].Epoch == 7 })
}

// listOf is a list of revoked certificates.
func listOf(m *ca.Material, serial int64) ([]byte, error) {
	issuer := *m.Cert
	issuer.KeyUsage |= x509.KeyUsageCRLSign
	der, err := x509.CreateRevocationList(rand.Reader, &x509.RevocationList{
		Number: big.NewInt(1), RevokedCertificateEntries: []x509.RevocationListEntry{{SerialNumber: big.NewInt(serial), RevocationTime: time.Now()}},
	}, &issuer, m.Key)
	return pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: der}), err
}

func TestRevocationsBesideTheKey(t *testing.T) {
	m, pluggedData := data(t, "plugged")
	list, err := listOf(m, 31)
	if err != nil {
		t.Fatal(err)
	}
	c := fakes(secret(pluggedSecret, pluggedData))
	b := board(t, c)
	with := func(text []byte) {
		t.Helper()
		d := map[string][]byte{revocationKey: text}
		for k, v := range pluggedData {
			d[k] = v
		}
		putSecret(t, c, pluggedSecret, d, nil)
	}
	with(list)
	eventually(t, "it is read", func() bool { return len(b.Read().Revocations) == 1 })
	with([]byte("no list"))
	eventually(t, "what cannot be read was seen", func() bool {
		b.Read()
		b.mu.Lock()
		defer b.mu.Unlock()
		return b.said[revocationKey] != ""
	})
	if n := len(b.Read().Revocations); n != 1 {
		t.Errorf("what cannot be read leaves %d lists, want the last one", n)
	}
	with(nil)
	eventually(t, "it is cleared", func() bool { return len(b.Read().Revocations) == 0 })
	if _, err := certs.ParseRevocations(list); err != nil {
		t.Error(err)
	}
}
