package certs_test

import (
	"crypto/tls"
	"errors"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ambit-mesh/ambit/internal/certs"
	"github.com/ambit-mesh/ambit/internal/certs/certstest"
	"github.com/ambit-mesh/ambit/internal/spiffe"
)

// shake makes one handshake and gives what each side says of it.
func shake(client, server *tls.Config) (clientErr, serverErr error) {
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	done := make(chan error, 1)
	go func() {
		c := tls.Server(b, server)
		err := c.Handshake()
		if err == nil {
			_, err = c.Write([]byte{1}) // a client's certificate is refused after its handshake
		}
		if err != nil {
			b.Close()
		}
		done <- err
	}()
	c := tls.Client(a, client)
	if clientErr = c.Handshake(); clientErr == nil {
		_, clientErr = c.Read(make([]byte, 1))
	}
	if clientErr != nil {
		a.Close()
	}
	return clientErr, <-done
}

// TestAPeerThatWasMetBeforeIsJudgedAnew: that its signatures are remembered opens
// nothing to it.
func TestAPeerThatWasMetBeforeIsJudgedAnew(t *testing.T) {
	for _, tt := range []struct {
		name string
		// untold is a control plane that tells nothing of roots.
		untold bool
		then   func(t *testing.T, g *guided, ca, fresh *certstest.CA, peer *certs.Certificate)
		want   string
	}{
		{"nothing has changed", false, func(*testing.T, *guided, *certstest.CA, *certstest.CA, *certs.Certificate) {}, ""},
		{"its certificate has ended", false, func(*testing.T, *guided, *certstest.CA, *certstest.CA, *certs.Certificate) {
			time.Sleep(3*time.Hour + time.Second)
		}, "expired"},
		{"its root is forgotten", false, func(_ *testing.T, g *guided, _, fresh *certstest.CA, _ *certs.Certificate) {
			g.bundles <- certs.Trust{Epoch: 3, Roots: roots(fresh)}
		}, "not ours"},
		{"a newer certificate of ours has brought another root", true, func(_ *testing.T, g *guided, _, fresh *certstest.CA, _ *certs.Certificate) {
			g.sign(fresh)
			time.Sleep(time.Hour)
		}, "not ours"},
		{"it is revoked", false, func(t *testing.T, g *guided, ca, _ *certstest.CA, peer *certs.Certificate) {
			ders, err := certs.ParseRevocations(revoke(t, ca, time.Now().Add(time.Hour), peer.Leaf()))
			if err != nil {
				t.Fatal(err)
			}
			g.bundles <- certs.Trust{Epoch: 3, Roots: roots(ca), Revocations: ders}
		}, certs.ErrRevoked.Error()},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ca, fresh := certstest.New(t), certstest.New(t)
				g := newGuided(ca)
				if tt.untold {
					g.err = certs.ErrUnguided
				}
				m := certstest.Run(t, certs.Config{CA: g, TTL: time.Hour}, front)
				peer := get(t, certstest.Run(t, certs.Config{CA: ca, TTL: 3 * time.Hour}, back), back)
				if !tt.untold {
					g.bundles <- certs.Trust{Epoch: 2, Roots: roots(ca)}
				}
				synctest.Wait()
				for range 2 {
					if err := meets(t, m, peer); err != nil {
						t.Fatal(err)
					}
				}
				tt.then(t, g, ca, fresh, peer)
				synctest.Wait()
				err := meets(t, m, peer)
				if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
					t.Errorf("it is met with %v, want %q", err, tt.want)
				}
				impostor := get(t, certstest.Run(t, certs.Config{CA: certstest.New(t)}, back), back)
				if err := meets(t, m, impostor); err == nil || errors.Is(err, certs.ErrRevoked) {
					t.Errorf("somebody else's certificate of its name is met with %v", err)
				}
			})
		})
	}
}

// BenchmarkHandshake is of both ends together, whose certificates are of one
// root, as the mesh's own are.
func BenchmarkHandshake(b *testing.B) {
	m := certs.NewManager(certs.Config{CA: certstest.New(b)})
	go m.Run(b.Context())
	one, err := m.Certificate(b.Context(), front)
	if err != nil {
		b.Fatal(err)
	}
	other, err := m.Certificate(b.Context(), back)
	if err != nil {
		b.Fatal(err)
	}
	again, err := m.Client(b.Context(), front, []spiffe.ID{back})
	if err != nil {
		b.Fatal(err)
	}
	accept, err := m.Server(b.Context(), back)
	if err != nil {
		b.Fatal(err)
	}
	for _, of := range []struct {
		name           string
		client, server *tls.Config
	}{
		{"first met", one.ClientTLS([]spiffe.ID{back}), other.ServerTLS()},
		{"met before", again, accept},
	} {
		b.Run(of.name, func(b *testing.B) {
			for b.Loop() {
				if c, s := shake(of.client, of.server); c != nil || s != nil {
					b.Fatal(c, s)
				}
			}
		})
	}
}
