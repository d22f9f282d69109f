package certs_test

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ambit-mesh/ambit/internal/certs"
	"github.com/ambit-mesh/ambit/internal/certs/certstest"
	"github.com/ambit-mesh/ambit/internal/hbone"
	"github.com/ambit-mesh/ambit/internal/spiffe"
)

// meets says what front's holder thinks of a peer that presents back's
// certificate, as a client and as a server.
func meets(t *testing.T, m *certs.Manager, back *certs.Certificate) error {
	t.Helper()
	state := tls.ConnectionState{PeerCertificates: back.Chain}
	client, err := m.Client(t.Context(), front, []spiffe.ID{back.ID})
	if err != nil {
		t.Fatal(err)
	}
	server, err := m.Server(t.Context(), front)
	if err != nil {
		t.Fatal(err)
	}
	asClient, asServer := client.VerifyConnection(state), server.VerifyConnection(state)
	if (asClient == nil) != (asServer == nil) {
		t.Errorf("as a client %v, as a server %v", asClient, asServer)
	}
	return asClient
}

// revoke makes a list that must be made.
func revoke(t *testing.T, ca *certstest.CA, next time.Time, list ...*x509.Certificate) []byte {
	t.Helper()
	text, err := ca.Revoke(next, list...)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func TestRevokedCertificates(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "ca-crl.pem")
	managed(t, certs.Config{RevocationsFile: file}, func(t *testing.T, ca *certstest.CA, m *certs.Manager) {
		peer, other, stranger := get(t, m, back), get(t, m, certstest.ID("shop", "other")), certstest.New(t)
		get(t, m, front)
		soon := time.Now().Add(time.Hour)
		named := revoke(t, ca, soon, peer.Leaf())
		block, _ := pem.Decode(named)
		forged := revoke(t, stranger, soon, peer.Leaf())
		for _, tt := range []struct {
			name    string
			text    []byte
			revoked bool
		}{
			{"no list", nil, false},
			{"a list that names another", revoke(t, ca, soon, other.Leaf()), false},
			{"a list that names it", named, true},
			{"what is no list keeps the last one", []byte("no list"), true},
			{"so does a list with something after it", append(bytes.Clone(named), "more"...), true},
			{"an empty file clears it", []byte("\n"), false},
			{"a list in DER", block.Bytes, true},
			{"a list of names without the name", revoke(t, ca, soon), false},
			{"the second of several lists", append(revoke(t, ca, soon, other.Leaf()), named...), true},
			{"a list by another CA says nothing", forged, false},
			{"a list that should have been renewed is still one", revoke(t, ca, time.Now().Add(-time.Minute), peer.Leaf()), true},
		} {
			if err := certstest.Mount(dir, "ca-crl.pem", tt.text); err != nil {
				t.Fatal(err)
			}
			time.Sleep(4 * time.Second)
			synctest.Wait()
			if err := meets(t, m, peer); errors.Is(err, certs.ErrRevoked) != tt.revoked || (err != nil) != tt.revoked {
				t.Errorf("%s: %v, want revoked: %v", tt.name, err, tt.revoked)
			}
		}
		if err := os.Remove(file); err != nil {
			t.Fatal(err)
		}
		time.Sleep(4 * time.Second)
		if err := meets(t, m, peer); err != nil {
			t.Errorf("without the file: %v", err)
		}
	})
}

func TestATunnelToWhoIsRevokedIsEndedAndNoOther(t *testing.T) {
	dir := t.TempDir()
	managed(t, certs.Config{RevocationsFile: filepath.Join(dir, "ca-crl.pem")}, func(t *testing.T, ca *certstest.CA, m *certs.Manager) {
		get(t, m, front)
		peer, other := get(t, m, back), get(t, m, certstest.ID("shop", "other"))
		ends := map[string]error{}
		over := make(chan struct{})
		close(over)
		watch := func(name string, c *certs.Certificate, ended <-chan struct{}) {
			m.Watch(front, hbone.Peer{ID: c.ID, Chain: c.Chain}, ended, func(err error) { ends[name] = err })
		}
		for range 100 { // so that those that have ended are let go of
			watch("over", peer, over)
		}
		watch("peer", peer, nil)
		watch("other", other, nil)
		if err := certstest.Mount(dir, "ca-crl.pem", revoke(t, ca, time.Now().Add(time.Hour), peer.Leaf())); err != nil {
			t.Fatal(err)
		}
		time.Sleep(4 * time.Second)
		synctest.Wait()
		watch("late", peer, nil) // its handshake was before, its tunnel is after
		for name, revoked := range map[string]bool{"peer": true, "late": true, "other": false, "over": false} {
			if got := errors.Is(ends[name], certs.ErrRevoked); got != revoked {
				t.Errorf("%s: ended by revocation %v, want %v", name, got, revoked)
			}
		}
	})
}

func TestOneWhoseOwnCertificateIsRevokedAsksForAnother(t *testing.T) {
	dir := t.TempDir()
	managed(t, certs.Config{RevocationsFile: filepath.Join(dir, "ca-crl.pem")}, func(t *testing.T, ca *certstest.CA, m *certs.Manager) {
		old := get(t, m, front)
		if err := certstest.Mount(dir, "ca-crl.pem", revoke(t, ca, time.Now().Add(time.Hour), old.Leaf())); err != nil {
			t.Fatal(err)
		}
		time.Sleep(4 * time.Second)
		synctest.Wait()
		if get(t, m, front) == old {
			t.Error("the revoked certificate is still presented")
		}
	})
}
