package h2

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/ambit-mesh/ambit/internal/certs"
	"github.com/ambit-mesh/ambit/internal/certs/certstest"
	"github.com/ambit-mesh/ambit/internal/hbone"
	"github.com/ambit-mesh/ambit/internal/spiffe"
)

const patience = 20 * time.Second

var (
	clientID = certstest.ID("shop", "front")
	serverID = certstest.ID("shop", "reviews")
	otherID  = certstest.ID("shop", "cart")
)

// served is a server of ours.
type served struct {
	t     *testing.T
	addr  netip.AddrPort
	creds *certs.Manager
	srv   *server
}

func serve(t *testing.T, cfg ServerConfig) *served {
	t.Helper()
	creds := certstest.New(t).Credentials(t, clientID, serverID, otherID)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	cfg.Listener, cfg.Credentials = l, creds
	cfg.Self = func(context.Context) (spiffe.ID, error) { return serverID, nil }
	s := &served{t: t, addr: addrPort(l.Addr()), creds: creds, srv: NewServer(cfg).(*server)}
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

// rawPeer speaks frames.
type rawPeer struct {
	*http2.Framer
	t    *testing.T
	conn *tls.Conn
	hbuf bytes.Buffer
	enc  *hpack.Encoder
}

func newRawPeer(t *testing.T, c *tls.Conn) *rawPeer {
	p := &rawPeer{Framer: http2.NewFramer(patient{c}, patient{c}), t: t, conn: c}
	p.enc = hpack.NewEncoder(&p.hbuf)
	p.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	p.AllowIllegalWrites = true
	c.SetDeadline(time.Now().Add(patience))
	t.Cleanup(func() { c.NetConn().Close() })
	return p
}

// patient gives up when nothing moves, however long all of it takes.
type patient struct{ *tls.Conn }

func (c patient) Read(b []byte) (int, error) {
	c.SetReadDeadline(time.Now().Add(patience))
	return c.Conn.Read(b)
}

func (c patient) Write(b []byte) (int, error) {
	c.SetWriteDeadline(time.Now().Add(patience))
	return c.Conn.Write(b)
}

// dialRaw is a client of frames, its SETTINGS exchanged.
func (s *served) dialRaw() *rawPeer { return s.dialRawAs(clientID) }

func (s *served) dialRawAs(self spiffe.ID) *rawPeer {
	s.t.Helper()
	cfg, err := s.creds.Client(context.Background(), self, []spiffe.ID{serverID})
	if err != nil {
		s.t.Fatal(err)
	}
	c, err := tls.Dial("tcp", s.addr.String(), cfg)
	if err != nil {
		s.t.Fatal(err)
	}
	p := newRawPeer(s.t, c)
	io.WriteString(c, http2.ClientPreface)
	p.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 20})
	return p
}

// block encodes headers given as name, value, ...
func (p *rawPeer) block(headers ...string) []byte {
	p.hbuf.Reset()
	for i := 0; i < len(headers); i += 2 {
		p.enc.WriteField(hpack.HeaderField{Name: headers[i], Value: headers[i+1]})
	}
	return bytes.Clone(p.hbuf.Bytes())
}

func (p *rawPeer) headers(id uint32, end bool, headers ...string) {
	p.WriteHeaders(http2.HeadersFrameParam{StreamID: id, EndHeaders: true, EndStream: end, BlockFragment: p.block(headers...)})
}

func (p *rawPeer) connect(id uint32) { p.headers(id, false, ":method", "CONNECT", ":authority", "a:1") }

// next is the next frame that match takes, its error otherwise.
func (p *rawPeer) next(match func(http2.Frame) bool) (http2.Frame, error) {
	for {
		f, err := p.ReadFrame()
		if err != nil {
			return nil, err
		}
		if match(f) {
			return f, nil
		}
	}
}

// want is the next frame of a type.
func want[F http2.Frame](p *rawPeer) F {
	p.t.Helper()
	f, err := p.next(func(f http2.Frame) bool { _, ok := f.(F); return ok })
	if err != nil {
		var zero F
		p.t.Fatalf("waiting for %T: %v", zero, err)
	}
	return f.(F)
}

// wantGoAway reads until the connection ends and checks why.
func (p *rawPeer) wantGoAway(code http2.ErrCode) {
	p.t.Helper()
	f, err := p.next(func(f http2.Frame) bool { _, ok := f.(*http2.GoAwayFrame); return ok })
	if err != nil {
		p.t.Fatalf("waiting for GOAWAY: %v", err)
	}
	if got := f.(*http2.GoAwayFrame).ErrCode; got != code {
		p.t.Errorf("GOAWAY with %v, want %v", got, code)
	}
	if _, err := p.next(func(http2.Frame) bool { return false }); err == nil {
		p.t.Error("the connection goes on")
	}
}

// flood repeats f until the peer ends the connection or n times.
func (p *rawPeer) flood(n int, f func(i int) error) {
	for i := range n {
		if f(i) != nil {
			return
		}
	}
}

func echoHandler(in hbone.Incoming) {
	s, err := in.Accept(nil)
	if err != nil {
		return
	}
	if _, err := io.Copy(struct{ io.Writer }{s}, struct{ io.Reader }{s}); err == nil {
		s.CloseWrite()
	}
}

func TestAStreamsWindowIsKept(t *testing.T) {
	s := serve(t, ServerConfig{Handler: func(in hbone.Incoming) {
		in.Accept(nil)
		<-in.Context().Done()
	}})
	p := s.dialRaw()
	p.connect(1)
	b := make([]byte, 16<<10)
	for range 256<<10/len(b) + 1 { // one more than the window
		p.WriteData(1, false, b)
	}
	if f := want[*http2.RSTStreamFrame](p); f.StreamID != 1 || f.ErrCode != http2.ErrCodeFlowControl {
		t.Errorf("got %v", f)
	}
}

func TestWhatIsNotAConnectIsAnswered(t *testing.T) {
	s := serve(t, ServerConfig{Handler: echoHandler})
	for _, tt := range []struct {
		name    string
		headers []string
		status  string // "" is a reset
	}{
		{"GET", []string{":method", "GET", ":scheme", "https", ":authority", "a:1", ":path", "/"}, "400"},
		{"CONNECT without authority", []string{":method", "CONNECT"}, "400"},
		{"extended CONNECT", []string{":method", "CONNECT", ":protocol", "connect-udp", ":scheme", "https", ":authority", "a:1", ":path", "/"}, "400"},
		{"datagrams where nobody serves them", []string{":method", "CONNECT", ":protocol", "connect-udp", ":scheme", "https", ":authority", "a:1", ":path", "/.well-known/masque/udp/10.0.0.7/53/"}, "400"},
		{"CONNECT with a path", []string{":method", "CONNECT", ":authority", "a:1", ":scheme", "https", ":path", "/"}, ""},
		{"no method", []string{":authority", "a:1"}, ""},
		{"upper case in a name", []string{":method", "CONNECT", ":authority", "a:1", "Baggage", "x"}, ""},
		{"pseudo header last", []string{":method", "CONNECT", "baggage", "x", ":authority", "a:1"}, ""},
		{"pseudo header twice", []string{":method", "CONNECT", ":authority", "a:1", ":authority", "b:1"}, ""},
		{"line break in a value", []string{":method", "CONNECT", ":authority", "a:1", "baggage", "x\r\ny"}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := s.dialRaw()
			p.t = t
			p.headers(1, false, tt.headers...)
			if tt.status == "" {
				if f := want[*http2.RSTStreamFrame](p); f.ErrCode != http2.ErrCodeProtocol {
					t.Errorf("reset with %v", f.ErrCode)
				}
				return
			}
			f := want[*http2.MetaHeadersFrame](p)
			if f.PseudoValue("status") != tt.status || !f.StreamEnded() {
				t.Errorf("answer %v, ended %v", f.Fields, f.StreamEnded())
			}
		})
	}
}

func TestPaddingAndContinuationsAreUnderstood(t *testing.T) {
	s := serve(t, ServerConfig{Handler: echoHandler})
	p := s.dialRaw()
	b := p.block(":method", "CONNECT", ":authority", "a:1", "baggage", "k=v")
	p.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: b[:3], PadLength: 7})
	p.WriteContinuation(1, false, b[3:5])
	p.WriteContinuation(1, true, b[5:])
	for range 2000 { // more than a window, with its padding
		p.WriteDataPadded(1, false, []byte("hello"), make([]byte, 250))
		for got := 0; got < 5; {
			got += len(want[*http2.DataFrame](p).Data())
		}
	}
	p.headers(1, true, "trailer-field", "ignored") // trailers end the stream
	if f := want[*http2.DataFrame](p); !f.StreamEnded() {
		t.Errorf("got %v, want the echo's end", f)
	}
}

func TestAServerThatIsAskedNothingHangsUp(t *testing.T) {
	s := serve(t, ServerConfig{Handler: echoHandler, FirstStreamTimeout: 50 * time.Millisecond})
	s.dialRaw().wantGoAway(http2.ErrCodeNo)
}

func TestAHandshakeThatDoesNotHappenIsCut(t *testing.T) {
	refused := make(chan error, 1)
	s := serve(t, ServerConfig{Handler: echoHandler,
		Refused: func(_ netip.AddrPort, err error) { refused <- err },
		Tuning:  Tuning{HandshakeTimeout: 50 * time.Millisecond},
	})
	c, err := net.Dial("tcp", s.addr.String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetReadDeadline(time.Now().Add(patience))
	if _, err := io.Copy(io.Discard, c); errors.Is(err, context.DeadlineExceeded) {
		t.Error("the connection is kept")
	}
	if err := <-refused; err == nil {
		t.Error("no reason")
	}
}

func TestASilentPeerIsFoundOut(t *testing.T) {
	s := serve(t, ServerConfig{Handler: echoHandler, Tuning: Tuning{PingInterval: 20 * time.Millisecond, PingTimeout: 60 * time.Millisecond}})
	p := s.dialRaw()
	p.connect(1)
	pings := 0
	for {
		f, err := p.ReadFrame()
		if err != nil {
			break
		}
		if ping, ok := f.(*http2.PingFrame); ok && !ping.IsAck() {
			pings++ // and no answer
		}
	}
	if pings < 1 {
		t.Errorf("%d pings before the end", pings)
	}
}

func TestAPeerThatAnswersIsKept(t *testing.T) {
	s := serve(t, ServerConfig{Handler: echoHandler, Tuning: Tuning{PingInterval: 10 * time.Millisecond, PingTimeout: patience}})
	p := s.dialRaw()
	p.connect(1)
	for range 10 {
		ping := want[*http2.PingFrame](p)
		if !ping.IsAck() {
			p.WritePing(true, ping.Data)
		}
	}
	p.WriteData(1, true, []byte("still here"))
	if f := want[*http2.DataFrame](p); string(f.Data()) != "still here" {
		t.Errorf("echo %q", f.Data())
	}
}

func TestTheTwoStepsOfADrain(t *testing.T) {
	s := serve(t, ServerConfig{Handler: echoHandler})
	p := s.dialRaw()
	p.connect(1)
	want[*http2.MetaHeadersFrame](p)
	drained := make(chan error, 1)
	go func() { drained <- s.srv.Drain(context.Background()) }()
	if f := want[*http2.GoAwayFrame](p); f.LastStreamID != maxStreamID || f.ErrCode != http2.ErrCodeNo {
		t.Errorf("first step %v", f)
	}
	ping := want[*http2.PingFrame](p)
	p.connect(3) // was on its way
	p.WritePing(true, ping.Data)
	if f := want[*http2.GoAwayFrame](p); f.LastStreamID != 3 {
		t.Errorf("second step %v", f)
	}
	p.connect(5) // too late: nothing answers it
	p.WriteData(1, true, nil)
	p.WriteData(3, true, nil)
	ended := map[uint32]bool{}
	p.next(func(f http2.Frame) bool {
		if d, ok := f.(*http2.DataFrame); ok && d.StreamEnded() {
			ended[d.StreamID] = true
		}
		if f.Header().StreamID == 5 {
			t.Errorf("stream 5 was answered: %v", f)
		}
		return false
	})
	if !ended[1] || !ended[3] {
		t.Errorf("streams ended: %v", ended)
	}
	if err := <-drained; err != nil {
		t.Error(err)
	}
}

// TestAConnectionInItsHandshakeIsServedByADrainingServer: its peer must not see
// a connection closed that it has just made.
func TestAConnectionInItsHandshakeIsServedByADrainingServer(t *testing.T) {
	s := serve(t, ServerConfig{Handler: func(in hbone.Incoming) { in.Accept(nil) }})
	c, err := net.Dial("tcp", s.addr.String())
	if err != nil {
		t.Fatal(err)
	}
	for len(s.srv.slots) < 2 { // its own and that of the next, which is waited for
		time.Sleep(time.Millisecond)
	}
	drained := make(chan error, 1)
	go func() { drained <- s.srv.Drain(t.Context()) }()
	<-s.srv.leaving
	cfg, err := s.creds.Client(t.Context(), clientID, []spiffe.ID{serverID})
	if err != nil {
		t.Fatal(err)
	}
	p := newRawPeer(t, tls.Client(c, cfg))
	io.WriteString(p.conn, http2.ClientPreface)
	p.WriteSettings()
	p.connect(1)
	for answered, told := false, false; !answered || !told; {
		f, err := p.ReadFrame()
		if err != nil {
			t.Fatalf("answered %v, told to go away %v: %v", answered, told, err)
		}
		switch f := f.(type) {
		case *http2.MetaHeadersFrame:
			answered = f.PseudoValue("status") == "200"
		case *http2.GoAwayFrame:
			told = true
		case *http2.PingFrame:
			if !f.IsAck() {
				p.WritePing(true, f.Data)
			}
		}
	}
	if err := <-drained; err != nil {
		t.Error(err)
	}
}
