package hbonetest

import (
	"context"
	"crypto/x509"
	"errors"
	"testing"
	"time"

	"github.com/ambit-mesh/ambit/internal/certs/certstest"
	"github.com/ambit-mesh/ambit/internal/hbone"
	"github.com/ambit-mesh/ambit/internal/spiffe"
)

// meeting is one handshake that is or is not refused.
type meeting struct {
	ca             *certstest.CA
	client, server hbone.Credentials
	clientID       spiffe.ID
	serverID       spiffe.ID
	accept         []spiffe.ID
}

// meet gives the errors of the dial and, if the server refused, of the server.
func meet(t *testing.T, tr Transport, m meeting) (dial, refused error) {
	t.Helper()
	refusals := make(chan error, 10)
	server, addr := tr.Server(t, m.serverID, m.server, accept(echo), func(err error) { refusals <- err })
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- server.Serve(ctx) }()
	defer func() { cancel(); <-served }()
	tunnel, err := tr.Dialer(m.client).Dial(within(t), hbone.Target{Address: addr, Self: m.clientID, Accept: m.accept})
	if err == nil {
		defer tunnel.Close()
		if got := tunnel.Peer(); got.ID != m.serverID || got.Remote != addr || len(got.Chain) == 0 {
			t.Errorf("client sees peer %+v", got)
		}
		return nil, nil
	}
	select {
	case refused = <-refusals:
	case <-time.After(Patience):
		t.Error("the server does not tell of the connection that failed")
	}
	return err, refused
}

// wantPeerError checks that err says what was wrong with got.
func wantPeerError(t *testing.T, err error, got spiffe.ID) {
	t.Helper()
	pe, ok := errors.AsType[*hbone.PeerError](err)
	if !ok {
		t.Errorf("error %v, want a PeerError", err)
		return
	}
	if pe.Got != got {
		t.Errorf("PeerError about %q, want %q", pe.Got, got)
	}
	t.Log(err)
}

var identityTests = []test{
	{"both ends know who the other is", func(t *testing.T, tr Transport) {
		seen := make(chan hbone.Peer, 1)
		r := newRig(t, tr, func(in hbone.Incoming) { seen <- in.Peer(); accept(echo)(in) })
		r.open()
		got, there := <-seen, r.tunnel.Peer()
		if got.ID != clientID || there.ID != serverID {
			t.Errorf("server sees %s, client sees %s", got.ID, there.ID)
		}
		if got.Local != r.addr || got.Remote != there.Local || there.Remote != r.addr {
			t.Errorf("addresses: server %s-%s, client %s-%s", got.Local, got.Remote, there.Local, there.Remote)
		}
	}},
	{"one of several identities is accepted", func(t *testing.T, tr Transport) {
		ca := certstest.New(t)
		c := ca.Credentials(t, clientID, serverID)
		dial, _ := meet(t, tr, meeting{client: c, server: c, clientID: clientID, serverID: serverID, accept: []spiffe.ID{certstest.ID("a", "b"), serverID}})
		if dial != nil {
			t.Error(dial)
		}
	}},
	{"a server of another identity is refused", func(t *testing.T, tr Transport) {
		ca := certstest.New(t)
		c := ca.Credentials(t, clientID, serverID)
		dial, refused := meet(t, tr, meeting{client: c, server: c, clientID: clientID, serverID: serverID, accept: []spiffe.ID{certstest.ID("shop", "db")}})
		wantPeerError(t, dial, serverID)
		if refused == nil {
			t.Error("server saw a tunnel")
		}
	}},
	{"no identity to accept accepts nobody", func(t *testing.T, tr Transport) {
		ca := certstest.New(t)
		c := ca.Credentials(t, clientID, serverID)
		dial, _ := meet(t, tr, meeting{client: c, server: c, clientID: clientID, serverID: serverID})
		wantPeerError(t, dial, serverID)
	}},
	{"a server with a foreign CA is refused", func(t *testing.T, tr Transport) {
		ca, foreign := certstest.New(t), certstest.New(t)
		dial, _ := meet(t, tr, meeting{
			client: ca.Credentials(t, clientID), server: foreign.Credentials(t, serverID),
			clientID: clientID, serverID: serverID, accept: []spiffe.ID{serverID},
		})
		wantPeerError(t, dial, serverID)
	}},
	{"a client with a foreign CA is refused", func(t *testing.T, tr Transport) {
		ca, foreign := certstest.New(t), certstest.New(t)
		foreign.Trust(ca)
		dial, refused := meet(t, tr, meeting{
			client: foreign.Credentials(t, clientID), server: ca.Credentials(t, serverID),
			clientID: clientID, serverID: serverID, accept: []spiffe.ID{serverID},
		})
		if dial == nil {
			t.Error("the client has a tunnel")
		}
		t.Log(dial)
		wantPeerError(t, refused, clientID)
	}},
	{"a server with an expired certificate is refused", func(t *testing.T, tr Transport) {
		ca := certstest.New(t)
		dial, _ := meet(t, tr, meeting{
			client: ca.Credentials(t, clientID), server: ca.Expired(),
			clientID: clientID, serverID: serverID, accept: []spiffe.ID{serverID},
		})
		wantPeerError(t, dial, serverID)
	}},
	{"a client with an expired certificate is refused", func(t *testing.T, tr Transport) {
		ca := certstest.New(t)
		dial, refused := meet(t, tr, meeting{
			client: ca.Expired(), server: ca.Credentials(t, serverID),
			clientID: clientID, serverID: serverID, accept: []spiffe.ID{serverID},
		})
		if dial == nil {
			t.Error("the client has a tunnel")
		}
		wantPeerError(t, refused, clientID)
	}},
	{"a client of another trust domain is refused", func(t *testing.T, tr Transport) {
		ca := certstest.New(t)
		other := spiffe.ID{TrustDomain: "other.example", Namespace: "shop", ServiceAccount: "front"}
		c := ca.Credentials(t, other, serverID)
		dial, refused := meet(t, tr, meeting{client: c, server: c, clientID: other, serverID: serverID, accept: []spiffe.ID{serverID}})
		if dial == nil {
			t.Error("the client has a tunnel")
		}
		wantPeerError(t, refused, other)
	}},
	{"a certificate for clients only makes no server", func(t *testing.T, tr Transport) {
		ca := certstest.New(t)
		client := ca.Credentials(t, clientID)
		ca.Usage(x509.ExtKeyUsageClientAuth)
		dial, _ := meet(t, tr, meeting{
			client: client, server: ca.Credentials(t, serverID),
			clientID: clientID, serverID: serverID, accept: []spiffe.ID{serverID},
		})
		wantPeerError(t, dial, serverID)
	}},
	{"roots overlap while a root is rotated", func(t *testing.T, tr Transport) {
		old, young := certstest.New(t), certstest.New(t)
		old.Trust(young)
		young.Trust(old)
		dial, _ := meet(t, tr, meeting{
			client: old.Credentials(t, clientID), server: young.Credentials(t, serverID),
			clientID: clientID, serverID: serverID, accept: []spiffe.ID{serverID},
		})
		if dial != nil {
			t.Error(dial)
		}
	}},
}
