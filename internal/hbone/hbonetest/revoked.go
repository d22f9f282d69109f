package hbonetest

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/ambit-mesh/ambit/internal/certs"
	"github.com/ambit-mesh/ambit/internal/certs/certstest"
	"github.com/ambit-mesh/ambit/internal/hbone"
	"github.com/ambit-mesh/ambit/internal/spiffe"
)

var revokedTests = []test{
	{"a client that is revoked is cut by its server, and refused", func(t *testing.T, tr Transport) {
		revoked(t, tr, clientID)
	}},
	{"a server that is revoked is cut by its client, and refused", func(t *testing.T, tr Transport) {
		revoked(t, tr, serverID)
	}},
}

// revoked makes a tunnel between two who are served by managers of their own,
// and revokes one of them at the other.
func revoked(t *testing.T, tr Transport, who spiffe.ID) {
	ca, file := certstest.New(t), filepath.Join(t.TempDir(), "ca-crl.pem")
	client := certstest.Run(t, certs.Config{CA: ca, RevocationsFile: map[bool]string{true: file}[who == serverID]}, clientID)
	server := certstest.Run(t, certs.Config{CA: ca, RevocationsFile: map[bool]string{true: file}[who == clientID]}, serverID)
	handler, there := handing(t)
	r := newRigOf(t, tr, handler, client, server)
	here := r.open()
	far := there()
	pingPongWith(t, here, far)

	holder := map[spiffe.ID]*certs.Manager{clientID: client, serverID: server}[who]
	c, err := holder.Certificate(within(t), who)
	if err != nil {
		t.Fatal(err)
	}
	list, err := ca.Revoke(time.Now().Add(time.Hour), c.Leaf())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, list, 0o600); err != nil {
		t.Fatal(err)
	}
	done(t, r.tunnel)
	wantReset(t, here)
	wantReset(t, far)
	if tunnel, err := r.dialer.Dial(within(t), r.target()); err == nil {
		tunnel.Close()
		t.Error("a new tunnel is accepted")
	}
}

// pingPongWith sends a word from one end to the other.
func pingPongWith(t *testing.T, here, there hbone.Stream) {
	t.Helper()
	write(t, here, "word")
	b := make([]byte, 4)
	if n, err := there.Read(b); err != nil || string(b[:n]) != "word" {
		t.Fatalf("read %q, %v", b[:n], err)
	}
}
