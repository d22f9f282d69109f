package h3

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"testing"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"github.com/ambit-mesh/ambit/internal/certs/certstest"
	"github.com/ambit-mesh/ambit/internal/hbone"
	"github.com/ambit-mesh/ambit/internal/spiffe"
)

const interopBytes = 4 << 20

func noise(seed byte) io.Reader {
	return io.LimitReader(rand.NewChaCha8([32]byte{seed}), interopBytes)
}

func digest(r io.Reader) (string, error) {
	h := sha256.New()
	_, err := io.Copy(h, struct{ io.Reader }{r})
	return string(h.Sum(nil)), err
}

// theirs is quic-go's own HTTP/3 server, with our certificates.
func theirs(t *testing.T, h http.HandlerFunc) hbone.Tunnel {
	t.Helper()
	creds := certstest.New(t).Credentials(t, clientID, serverID)
	cfg, err := creds.Server(t.Context(), serverID)
	if err != nil {
		t.Fatal(err)
	}
	pc, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	srv := &http3.Server{Handler: h, TLSConfig: secured(cfg), EnableDatagrams: true}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(pc) }()
	t.Cleanup(func() { srv.Close(); <-served; pc.Close() })
	tn, err := NewDialer(Config{Credentials: creds, Silence: unhurried}).Dial(t.Context(), hbone.Target{Address: addrPort(pc.LocalAddr()), Self: clientID, Accept: []spiffe.ID{serverID}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tn.Close() })
	return tn
}

func TestOurClientWithTheServerOfQuicGo(t *testing.T) {
	tn := theirs(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodConnect || r.Header.Get("Baggage") != "k=v" {
			t.Errorf("request %s %v", r.Method, r.Header)
		}
		switch r.Host {
		case "deny:1":
			w.Header().Set(hbone.HeaderReason, "because")
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		w.Header().Set(hbone.HeaderBaggage, "a=b")
		w.WriteHeader(http.StatusOK)
		if r.Proto == hbone.ProtocolUDP {
			s, err := w.(http3.HTTPStreamer).HTTPStream()
			if err != nil {
				t.Error(err)
				return
			}
			defer s.Close()
			for {
				p, err := s.ReceiveDatagram(r.Context())
				if err != nil {
					return
				}
				s.SendDatagram(p)
			}
		}
		s, err := w.(http3.HTTPStreamer).HTTPStream()
		if err != nil {
			t.Error(err)
			return
		}
		io.Copy(s, s)
		s.Close()
	})
	header := map[string]string{"baggage": "k=v"}
	for range 3 {
		s, resp, err := tn.Open(t.Context(), hbone.Request{Authority: "a:1", Header: header})
		if err != nil || resp.Header[hbone.HeaderBaggage] != "a=b" {
			t.Fatalf("answer %v, %v", resp, err)
		}
		go func() { s.ReadFrom(noise(1)); s.CloseWrite() }()
		want, _ := digest(noise(1))
		if got, err := digest(s); got != want || err != nil {
			t.Errorf("other bytes came back, %v", err)
		}
		s.Close()
	}
	u, _, err := tn.Open(t.Context(), hbone.Request{Protocol: hbone.ProtocolUDP, Authority: "10.0.0.7:53", Header: header})
	if err != nil {
		t.Fatal(err)
	}
	if got := echoed(t, func(p []byte) error { return u.SendDatagram(t.Context(), p) }, u.ReceiveDatagram, []byte("payload")); string(got) != "payload" {
		t.Errorf("%q came back", got)
	}
	u.Close()
	_, resp, err := tn.Open(t.Context(), hbone.Request{Authority: "deny:1", Header: header})
	if _, ok := errors.AsType[*hbone.StatusError](err); !ok || resp.Status != 401 || resp.Header[hbone.HeaderReason] != "because" {
		t.Errorf("answer %v, %v", resp, err)
	}
}

// client is quic-go's own HTTP/3 client of a server of ours.
func (s *served) client() *http3.ClientConn {
	s.t.Helper()
	c, err := s.dialQUIC(s.clientTLS())
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { c.CloseWithError(0, "") })
	return (&http3.Transport{EnableDatagrams: true}).NewClientConn(c)
}

func TestTheClientOfQuicGoWithOurServer(t *testing.T) {
	s := serve(t, ServerConfig{})
	c := s.client()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for range 3 {
		q, err := c.OpenRequestStream(ctx)
		if err != nil {
			t.Fatal(err)
		}
		req := &http.Request{Method: http.MethodConnect, Host: "a:1", URL: &url.URL{Host: "a:1"}, Header: http.Header{"Baggage": {"k=v"}}}
		if err := q.SendRequestHeader(req); err != nil {
			t.Fatal(err)
		}
		if resp, err := q.ReadResponse(); err != nil || resp.StatusCode != 200 {
			t.Fatalf("answer %v, %v", resp, err)
		}
		go func() { io.Copy(q, noise(2)); q.Close() }()
		want, _ := digest(noise(2))
		if got, err := digest(q); got != want || err != nil {
			t.Errorf("other bytes came back, %v", err)
		}
	}
}

// TestTheClientOfQuicGoSendsDatagramsToOurServer: in packets, as no other way is
// known to it.
func TestTheClientOfQuicGoSendsDatagramsToOurServer(t *testing.T) {
	s := serve(t, ServerConfig{Datagrams: true, Handler: func(in hbone.Incoming) {
		if r := in.Request(); r.Protocol != hbone.ProtocolUDP || r.Authority != "[fd00::7]:53" {
			t.Errorf("request %+v", r)
		}
		s, err := in.Accept(nil)
		for err == nil {
			var p []byte
			if p, err = s.ReceiveDatagram(in.Context()); err == nil {
				err = s.SendDatagram(in.Context(), p)
			}
		}
	}})
	c := s.client()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	<-c.ReceivedSettings()
	if !c.Settings().EnableExtendedConnect || !c.Settings().EnableDatagrams {
		t.Errorf("settings %+v", c.Settings())
	}
	q, err := c.OpenRequestStream(ctx)
	if err != nil {
		t.Fatal(err)
	}
	req := &http.Request{
		Method: http.MethodConnect, Proto: hbone.ProtocolUDP, Host: s.addr.String(), Header: http.Header{},
		URL: &url.URL{Scheme: "https", Host: s.addr.String(), Path: "/.well-known/masque/udp/fd00::7/53/", RawPath: "/.well-known/masque/udp/fd00%3A%3A7/53/"},
	}
	if err := q.SendRequestHeader(req); err != nil {
		t.Fatal(err)
	}
	resp, err := q.ReadResponse()
	if err != nil || resp.StatusCode != 200 || resp.Header.Get("Capsule-Protocol") != "?1" {
		t.Fatalf("answer %v, %v", resp, err)
	}
	want := append([]byte{0}, "payload"...)
	if got := echoed(t, q.SendDatagram, q.ReceiveDatagram, want); !bytes.Equal(got, want) {
		t.Errorf("%q came back", got)
	}
}

// echoed sends a datagram until one comes back.
func echoed(t *testing.T, send func([]byte) error, receive func(context.Context) ([]byte, error), p []byte) []byte {
	t.Helper()
	for range 10 {
		if err := send(p); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(context.Background(), patience/10)
		got, err := receive(ctx)
		cancel()
		if err == nil {
			return got
		}
	}
	t.Fatal("no datagram came back")
	return nil
}

// TestADrainTellsTheClientOfQuicGo: which then hangs up by itself.
func TestADrainTellsTheClientOfQuicGo(t *testing.T) {
	s := serve(t, ServerConfig{})
	c := s.client()
	until(t, "a tunnel", func() bool { return len(s.srv.all()) == 1 })
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := s.srv.Drain(ctx); err != nil {
		t.Error(err)
	}
	select {
	case <-c.Context().Done():
	case <-ctx.Done():
		t.Error("it goes on")
	}
	if _, ok := errors.AsType[*quic.ApplicationError](context.Cause(c.Context())); !ok {
		t.Errorf("it ended with %v", context.Cause(c.Context()))
	}
}
