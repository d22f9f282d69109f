package h3

import (
	"context"
	"errors"
	"io"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
	"github.com/quic-go/quic-go/quicvarint"

	"github.com/ambit-mesh/ambit/internal/hbone"
	"github.com/ambit-mesh/ambit/internal/hbone/door"
)

// besides runs abuse while another pod's client, at another address, makes one
// request after the other, and has a stream open all the time. None may fail,
// and afterwards the server must hold nothing of it all.
func (s *served) besides(abuse func()) {
	t := s.t
	t.Helper()
	good, err := s.dial(otherID, netip.MustParseAddr("127.0.0.2"))
	if err != nil {
		t.Fatal(err)
	}
	long, _, err := good.Open(t.Context(), hbone.Request{Authority: "long:1"})
	if err != nil {
		t.Fatal(err)
	}
	over := make(chan struct{})
	var client sync.WaitGroup
	client.Go(func() {
		for n := 0; ; n++ {
			if err := ask(t.Context(), good, long); err != nil {
				t.Errorf("the good client's request %d: %v", n, err)
				return
			}
			select {
			case <-over:
				if n > 20 {
					return
				}
			default:
			}
		}
	})
	abuse()
	close(over)
	client.Wait()
	long.Close()
	good.Close()
	until(t, "the server lets go of everything", func() bool {
		s.srv.mu.Lock()
		trying := s.srv.trying
		s.srv.mu.Unlock()
		return len(s.srv.all()) == 0 && s.srv.door.Waiting() == 0 && trying == 0
	})
}

// ask makes a request of its own and uses the long stream.
func ask(ctx context.Context, tn hbone.Tunnel, long hbone.Stream) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	s, _, err := tn.Open(ctx, hbone.Request{Authority: "a:1"})
	if err != nil {
		return err
	}
	defer s.Close()
	for _, s := range []hbone.Stream{s, long} {
		if _, err := s.Write([]byte("hello")); err != nil {
			return err
		}
		var b [5]byte
		if _, err := io.ReadFull(s, b[:]); err != nil {
			return err
		}
	}
	return nil
}

// flood repeats what costs the server something until it has had enough.
func (p *rawPeer) flood(step func(i int) error) {
	for i := range 100_000 {
		if step(i) != nil || p.conn.Context().Err() != nil {
			return
		}
	}
}

func TestAbuseEndsTheConnection(t *testing.T) {
	for _, tt := range []struct {
		name  string
		do    func(p *rawPeer)
		code  http3.ErrCode
		abuse door.Abuse
	}{
		{"requests withdrawn at once", func(p *rawPeer) {
			p.flood(func(int) error {
				q, err := p.conn.OpenStreamSync(p.conn.Context())
				if err != nil {
					return err
				}
				q.Write(connectTo("hold:1"))
				q.SetReliableBoundary()
				q.CancelRead(quic.StreamErrorCode(http3.ErrCodeRequestCanceled))
				q.CancelWrite(quic.StreamErrorCode(http3.ErrCodeRequestCanceled))
				return nil
			})
		}, http3.ErrCodeExcessiveLoad, ""},
		{"requests that are refused without end", func(p *rawPeer) {
			p.flood(func(int) error {
				q, err := p.conn.OpenStreamSync(p.conn.Context())
				if err != nil {
					return err
				}
				q.Write(block(":method", "GET", ":authority", "a:1", ":scheme", "https", ":path", "/"))
				q.Close()
				io.Copy(io.Discard, q)
				return nil
			})
		}, http3.ErrCodeExcessiveLoad, door.Streams},
		{"empty DATA without end", func(p *rawPeer) {
			q := p.stream(connectTo("a:1"))
			p.flood(func(int) error { _, err := q.Write(make([]byte, 200)); return err })
		}, http3.ErrCodeExcessiveLoad, door.EmptyFrames},
		{"unknown frames on the control stream without end", func(p *rawPeer) {
			u, _ := p.conn.OpenUniStream()
			u.Write([]byte{0x21})
			p.flood(func(int) error {
				u, err := p.conn.OpenUniStreamSync(p.conn.Context())
				if err == nil {
					_, err = u.Write([]byte{0x21})
					u.CancelWrite(0)
				}
				return err
			})
		}, http3.ErrCodeExcessiveLoad, door.Streams},
		{"a second control stream", func(p *rawPeer) { p.uni([]byte{uniControl}) }, http3.ErrCodeStreamCreationError, door.Protocol},
		{"a push", func(p *rawPeer) { p.uni([]byte{uniPush}) }, http3.ErrCodeIDError, door.Protocol},
		{"DATA before the request", func(p *rawPeer) { p.stream([]byte{frameData, 1, 'x'}) }, http3.ErrCodeFrameUnexpected, door.Protocol},
		{"SETTINGS on a request's stream", func(p *rawPeer) {
			p.stream(append(connectTo("a:1"), frameSettings, 0))
		}, http3.ErrCodeFrameUnexpected, door.Protocol},
		{"a header block that cannot be decoded", func(p *rawPeer) {
			p.stream(appendFrame(nil, frameHeaders, []byte{0xff, 0xff, 0xff}))
		}, http3.ErrCodeQPACKDecompressionFailed, door.Protocol},
		{"too much before the headers", func(p *rawPeer) {
			p.stream(quicvarint.Append(quicvarint.Append(nil, 0x21), 1<<20))
		}, http3.ErrCodeExcessiveLoad, door.Protocol},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := serve(t, ServerConfig{})
			s.besides(func() {
				p := s.dialRaw()
				tt.do(p)
				p.wantClosed(tt.code)
			})
			if tt.abuse != "" && s.told.of(tt.abuse) != 1 {
				t.Errorf("told of %v, want %q once", s.told.count, tt.abuse)
			}
		})
	}
}

func TestAnswersToWhatIsNoConnect(t *testing.T) {
	s := serve(t, ServerConfig{})
	p := s.dialRaw()
	for _, tt := range []struct {
		name, want string
		head       []byte
	}{
		{"another method", "400", block(":method", "GET", ":authority", "a:1", ":scheme", "https", ":path", "/")},
		{"no authority", "400", block(":method", "CONNECT")},
		{"a megabyte of headers", "431", quicvarint.Append([]byte{frameHeaders}, 1<<20)},
		{"headers that are small only compressed", "431", block(append([]string{":method", "CONNECT", ":authority", "a:1"}, strings.Split(strings.Repeat("accept-encoding\x00gzip, deflate, br\x00", 2000), "\x00")[:4000]...)...)},
		{"datagrams where nobody serves them", "400", block(":method", "CONNECT", ":protocol", "connect-udp", ":scheme", "https", ":authority", "a:1", ":path", "/.well-known/masque/udp/10.0.0.7/53/")},
		{"an unknown frame before it", "200", append([]byte{0x21, 1, 'x'}, connectTo("a:1")...)},
	} {
		q := p.stream(tt.head)
		if got := status(t, q); got != tt.want {
			t.Errorf("%s: status %s, want %s", tt.name, got, tt.want)
		}
		q.CancelRead(0)
		q.CancelWrite(0)
	}
	for name, head := range map[string][]byte{
		"a path":                  block(":method", "CONNECT", ":authority", "a:1", ":scheme", "https", ":path", "/"),
		"a header of upper case":  block(":method", "CONNECT", ":authority", "a:1", "Baggage", "x"),
		"a header of connections": block(":method", "CONNECT", ":authority", "a:1", "upgrade", "x"),
	} {
		_, err := p.stream(head).Read(make([]byte, 1))
		if se, ok := errors.AsType[*quic.StreamError](err); !ok || http3.ErrCode(se.ErrorCode) != http3.ErrCodeMessageError {
			t.Errorf("%s: %v, want a reset", name, err)
		}
	}
}

// TestStreamsThatAreNeverReadHoldTheirWindows: and no more, however much is sent.
func TestStreamsThatAreNeverReadHoldTheirWindows(t *testing.T) {
	const streams, window = 50, 64 << 10
	s := serve(t, ServerConfig{})
	before := inUse()
	s.besides(func() {
		p := s.dialRaw()
		var writing sync.WaitGroup
		chunk := make([]byte, 64<<10)
		for range streams {
			q := p.stream(append(connectTo("unread:1"), putBulk(1<<29)...))
			writing.Go(func() {
				for err := error(nil); err == nil; {
					_, err = q.Write(chunk)
				}
			})
		}
		sent := func() uint64 { return p.conn.ConnectionStats().BytesSent }
		until(t, "windows are full", func() bool { return sent() > streams*window*9/10 })
		if more := inUse() - before; more > 4*streams*window+16<<20 {
			t.Errorf("%d bytes are held", more)
		} else {
			t.Logf("%d bytes are held", more)
		}
		if n := sent(); n > 2*streams*window {
			t.Errorf("%d bytes went into windows of %d", n, streams*window)
		}
		p.conn.CloseWithError(0, "")
		writing.Wait()
	})
}

// putBulk is the header of a DATA frame.
func putBulk(n int) []byte {
	b := make([]byte, dataRoom)
	putData(b, n)
	return b
}

// inUse is heap and stacks after a collection.
func inUse() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapInuse + m.StackInuse)
}
