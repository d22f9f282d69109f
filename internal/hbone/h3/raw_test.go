package h3

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/quic-go/qpack"
	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
	"github.com/quic-go/quic-go/quicvarint"

	"github.com/ambit-mesh/ambit/internal/certs"
	"github.com/ambit-mesh/ambit/internal/certs/certstest"
	"github.com/ambit-mesh/ambit/internal/hbone"
	"github.com/ambit-mesh/ambit/internal/hbone/door"
	"github.com/ambit-mesh/ambit/internal/spiffe"
)

const patience = 20 * time.Second

var (
	clientID = certstest.ID("shop", "front")
	serverID = certstest.ID("shop", "reviews")
	otherID  = certstest.ID("shop", "cart")
)

// reasons is what a server was told of abuses.
type reasons struct {
	mu    sync.Mutex
	count map[door.Abuse]int
}

func (r *reasons) add(a door.Abuse) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.count == nil {
		r.count = map[door.Abuse]int{}
	}
	r.count[a]++
}

func (r *reasons) of(a door.Abuse) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.count[a]
}

// until polls for what becomes true soon.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not within %v", what, patience)
		}
	}
}

// served is a server of ours.
type served struct {
	t     *testing.T
	addr  netip.AddrPort
	creds *certs.Manager
	srv   *server
	told  reasons
}

func serve(t *testing.T, cfg ServerConfig) *served {
	t.Helper()
	s := &served{t: t, creds: certstest.New(t).Credentials(t, clientID, serverID, otherID)}
	pc, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	cfg.Conn, cfg.Credentials = pc, s.creds
	cfg.Self = func(context.Context) (spiffe.ID, error) { return serverID, nil }
	cfg.Tuning.Abused = s.told.add
	if cfg.Handler == nil {
		cfg.Handler = holding
	}
	s.addr, s.srv = addrPort(pc.LocalAddr()), NewServer(cfg).(*server)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.srv.Serve(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return s
}

// holding serves what the authority asks for: an echo, or a stream that is held
// without an answer, or one that is answered and never read, or a refusal.
func holding(in hbone.Incoming) {
	switch in.Request().Authority {
	case "hold:1":
		<-in.Context().Done()
	case "unread:1":
		in.Accept(nil)
		<-in.Context().Done()
	case "denied:1":
		in.Reject(hbone.StatusUnauthorized, "no")
	default:
		if s, err := in.Accept(nil); err == nil {
			io.Copy(struct{ io.Writer }{s}, struct{ io.Reader }{s})
			s.CloseWrite()
		}
	}
}

// dial makes a tunnel of ours from an address.
func (s *served) dial(as spiffe.ID, from netip.Addr) (hbone.Tunnel, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return NewDialer(Config{Credentials: s.creds, Silence: unhurried, Listen: func(context.Context, netip.AddrPort) (net.PacketConn, error) {
		return net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(from, 0)))
	}}).Dial(ctx, hbone.Target{Address: s.addr, Self: as, Accept: []spiffe.ID{serverID}})
}

// rawPeer speaks frames.
type rawPeer struct {
	t    *testing.T
	conn *quic.Conn
}

// dialQUIC makes a connection with a configuration of its own.
func (s *served) dialQUIC(cfg *tls.Config) (*quic.Conn, error) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	pc, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		s.t.Fatal(err)
	}
	tr := &quic.Transport{Conn: pc}
	s.t.Cleanup(func() { tr.Close(); pc.Close() })
	return tr.Dial(ctx, net.UDPAddrFromAddrPort(s.addr), cfg, &quic.Config{EnableDatagrams: true})
}

func (s *served) clientTLS() *tls.Config {
	s.t.Helper()
	cfg, err := s.creds.Client(context.Background(), clientID, []spiffe.ID{serverID})
	if err != nil {
		s.t.Fatal(err)
	}
	return secured(cfg)
}

// dialRaw is a client of frames, its SETTINGS sent.
func (s *served) dialRaw() *rawPeer {
	s.t.Helper()
	c, err := s.dialQUIC(s.clientTLS())
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { c.CloseWithError(0, "") })
	p := &rawPeer{s.t, c}
	p.uni(appendFrame([]byte{uniControl}, frameSettings, nil))
	return p
}

// uni opens a unidirectional stream and writes to it.
func (p *rawPeer) uni(b []byte) *quic.SendStream {
	p.t.Helper()
	u, err := p.conn.OpenUniStream()
	if err != nil {
		p.t.Fatal(err)
	}
	u.Write(b)
	return u
}

// block makes HEADERS of names and values.
func block(headers ...string) []byte {
	var b bytes.Buffer
	e := qpack.NewEncoder(&b)
	for i := 0; i < len(headers); i += 2 {
		e.WriteField(qpack.HeaderField{Name: headers[i], Value: headers[i+1]})
	}
	return appendFrame(nil, frameHeaders, b.Bytes())
}

func connectTo(authority string) []byte { return block(":method", "CONNECT", ":authority", authority) }

// stream opens a stream and writes to it.
func (p *rawPeer) stream(b []byte) *quic.Stream {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	q, err := p.conn.OpenStreamSync(ctx)
	if err != nil {
		p.t.Fatal(err)
	}
	q.SetDeadline(time.Now().Add(patience))
	q.Write(b)
	return q
}

// status is the answer on a stream.
func status(t *testing.T, q *quic.Stream) string {
	t.Helper()
	r := quicvarint.NewReader(q)
	kind, err := quicvarint.Read(r)
	if err != nil || kind != frameHeaders {
		t.Fatalf("answer: frame %d, %v", kind, err)
	}
	n, err := quicvarint.Read(r)
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(r, b); err != nil {
		t.Fatal(err)
	}
	f, err := qpack.NewDecoder().Decode(b)()
	if err != nil {
		t.Fatal(err)
	}
	return f.Value
}

// wantClosed waits for the server's end of the connection.
func (p *rawPeer) wantClosed(code http3.ErrCode) {
	p.t.Helper()
	select {
	case <-p.conn.Context().Done():
	case <-time.After(patience):
		p.t.Fatal("the connection is not closed")
	}
	err := context.Cause(p.conn.Context())
	if ae, ok := errors.AsType[*quic.ApplicationError](err); !ok || !ae.Remote || http3.ErrCode(ae.ErrorCode) != code {
		p.t.Errorf("closed with %v, want %v", err, code)
	}
}
