package certs_test

import (
	"crypto/tls"
	"net"
	"testing"

	"github.com/ambit-mesh/ambit/internal/certs/certstest"
	"github.com/ambit-mesh/ambit/internal/spiffe"
)

func TestAServerAcceptsItsTrustDomainByAllItsNamesAndNoOther(t *testing.T) {
	id := func(domain string) spiffe.ID {
		return spiffe.ID{TrustDomain: domain, Namespace: "shop", ServiceAccount: "web"}
	}
	for _, tt := range []struct {
		client  string
		aliases []string
		want    bool
	}{
		{"new.example", nil, true},
		{"old.example", nil, false},
		{"old.example", []string{"older.example", "old.example"}, true},
		{"old.example.org", []string{"old.example"}, false},
		{"cluster.local", []string{"old.example"}, false},
		{"new.example", []string{"old.example"}, true},
	} {
		ca := certstest.New(t)
		creds := ca.Credentials(t)
		server, err := creds.Server(t.Context(), id("new.example"), tt.aliases...)
		if err != nil {
			t.Fatal(err)
		}
		client, err := creds.Client(t.Context(), id(tt.client), []spiffe.ID{id("new.example")})
		if err != nil {
			t.Fatal(err)
		}
		near, far := net.Pipe()
		told := make(chan struct{})
		go func() { // it is told only after its own handshake
			defer close(told)
			c := tls.Client(near, client)
			c.Handshake()
			c.Read(make([]byte, 1))
		}()
		err = tls.Server(far, server).HandshakeContext(t.Context())
		far.Close()
		<-told
		if (err == nil) != tt.want {
			t.Errorf("a client of %s with the aliases %v: %v, want accepted=%v", tt.client, tt.aliases, err, tt.want)
		}
	}
}
