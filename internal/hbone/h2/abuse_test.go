package h2

import (
	"bytes"
	"context"
	"io"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"github.com/ambit-mesh/ambit/internal/hbone"
)

// reasons is what a server was told of abuses.
type reasons struct {
	mu    sync.Mutex
	count map[Abuse]int
}

func (r *reasons) add(a Abuse) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.count == nil {
		r.count = map[Abuse]int{}
	}
	r.count[a]++
}

func (r *reasons) of(a Abuse) int {
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
		in.Reject(hbone.StatusUnauthorized, strings.Repeat("no ", 300))
	default:
		echoHandler(in)
	}
}

// descriptors is how many this process has open.
func descriptors(t *testing.T) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip(err)
	}
	return len(list)
}

// besides runs abuse while another pod's client, at another address, makes one
// request after the other, and has a stream open all the time. None may fail,
// and afterwards the server must hold nothing of it all.
func (s *served) besides(abuse func()) {
	t := s.t
	t.Helper()
	before := descriptors(t)
	good, err := s.dialGood(t.Context())
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
				if n > 50 {
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
		return len(s.srv.all()) == 0 && s.srv.door.Waiting() == 0 && len(s.srv.slots) == 1 && len(s.srv.trying) == 0 && s.srv.cfg.Unread.Held() == 0
	})
	until(t, "descriptors return to the level before", func() bool { return descriptors(t) <= before })
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

func TestAbuseEndsTheConnection(t *testing.T) {
	const many = 100_000
	for _, tt := range []struct {
		name  string
		do    func(p *rawPeer)
		code  http2.ErrCode
		abuse Abuse
	}{
		{"pings without end", func(p *rawPeer) {
			p.flood(many, func(i int) error { return p.WritePing(false, [8]byte{byte(i)}) })
		}, http2.ErrCodeEnhanceYourCalm, AbuseEmptyFrames},
		{"settings without end", func(p *rawPeer) {
			p.flood(many, func(int) error { return p.WriteSettings() })
		}, http2.ErrCodeEnhanceYourCalm, AbuseEmptyFrames},
		{"empty DATA without end", func(p *rawPeer) {
			p.connect(1)
			p.flood(many, func(int) error { return p.WriteData(1, false, nil) })
		}, http2.ErrCodeEnhanceYourCalm, AbuseEmptyFrames},
		{"priorities without end", func(p *rawPeer) {
			p.flood(many, func(int) error { return p.WritePriority(1, http2.PriorityParam{StreamDep: 3}) })
		}, http2.ErrCodeEnhanceYourCalm, AbuseEmptyFrames},
		{"frames of an unknown type without end", func(p *rawPeer) {
			p.flood(many, func(int) error { return p.WriteRawFrame(0xbe, 0, 0, []byte("x")) })
		}, http2.ErrCodeEnhanceYourCalm, AbuseEmptyFrames},
		{"requests withdrawn at once", func(p *rawPeer) {
			p.flood(many, func(i int) error {
				p.headers(uint32(2*i+1), false, ":method", "CONNECT", ":authority", "hold:1")
				return p.WriteRSTStream(uint32(2*i+1), http2.ErrCodeCancel)
			})
		}, http2.ErrCodeEnhanceYourCalm, AbuseRapidReset},
		{"more streams than allowed", func(p *rawPeer) {
			p.flood(many, func(i int) error {
				p.headers(uint32(2*i+1), false, ":method", "CONNECT", ":authority", "hold:1")
				return nil
			})
		}, http2.ErrCodeEnhanceYourCalm, AbuseStreams},
		{"requests that are refused without end", func(p *rawPeer) {
			p.flood(many, func(i int) error {
				p.headers(uint32(2*i+1), true, ":method", "GET", ":authority", "a:1", ":scheme", "https", ":path", "/")
				return nil
			})
		}, http2.ErrCodeEnhanceYourCalm, AbuseStreams},
		{"CONTINUATION without end", func(p *rawPeer) {
			p.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: p.block(":method", "CONNECT")})
			p.flood(many, func(int) error { return p.WriteContinuation(1, false, nil) })
		}, http2.ErrCodeEnhanceYourCalm, AbuseHeaders},
		{"a header block of megabytes", func(p *rawPeer) {
			p.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: p.block(":method", "CONNECT")})
			big := make([]byte, 16<<10)
			p.flood(1000, func(int) error { return p.WriteContinuation(1, false, big) })
		}, http2.ErrCodeEnhanceYourCalm, AbuseHeaders},
		{"a header list that is small only compressed", func(p *rawPeer) {
			name, value := "x-bomb", string(bytes.Repeat([]byte("x"), 3000))
			all := []string{":method", "CONNECT", ":authority", "a:1"}
			for range 1000 {
				all = append(all, name, value)
			}
			p.headers(1, false, all...)
			f := want[*http2.MetaHeadersFrame](p)
			if f.PseudoValue("status") != "431" {
				p.t.Errorf("status %q", f.PseudoValue("status"))
			}
			p.WritePushPromise(http2.PushPromiseParam{StreamID: 1, PromiseID: 2, EndHeaders: true})
		}, http2.ErrCodeProtocol, AbuseProtocol},
		{"a frame for a stream that never was", func(p *rawPeer) { p.WriteData(7, false, []byte("x")) }, http2.ErrCodeProtocol, AbuseProtocol},
		{"a request on an even stream", func(p *rawPeer) { p.connect(2) }, http2.ErrCodeProtocol, AbuseProtocol},
		{"DATA after END_STREAM", func(p *rawPeer) {
			p.headers(1, false, ":method", "CONNECT", ":authority", "hold:1")
			p.WriteData(1, true, []byte("x"))
			p.WriteData(1, false, []byte("y"))
		}, http2.ErrCodeStreamClosed, AbuseProtocol},
		{"a frame longer than advertised", func(p *rawPeer) {
			p.connect(1)
			p.WriteRawFrame(http2.FrameData, 0, 1, make([]byte, frameLen+1))
		}, http2.ErrCodeFrameSize, AbuseProtocol},
		{"more than the tunnel's window", func(p *rawPeer) {
			p.headers(1, false, ":method", "CONNECT", ":authority", "hold:1")
			p.WriteRSTStream(1, http2.ErrCodeCancel)
			b := make([]byte, frameLen)
			// A stalled reader gives nothing back; here the server does, so only a
			// window that it did not give can be overrun.
			p.WriteWindowUpdate(0, 1<<31-1)
			p.flood(many, func(int) error { return p.WriteData(3, false, b) })
		}, http2.ErrCodeFlowControl, AbuseProtocol},
		{"a padding longer than its frame", func(p *rawPeer) {
			p.connect(1)
			p.WriteRawFrame(http2.FrameData, http2.FlagDataPadded, 1, []byte{200, 1, 2})
		}, http2.ErrCodeProtocol, AbuseProtocol},
		{"CONTINUATION without HEADERS", func(p *rawPeer) { p.WriteContinuation(1, true, nil) }, http2.ErrCodeProtocol, AbuseProtocol},
		{"settings that are not allowed", func(p *rawPeer) {
			p.WriteSettings(http2.Setting{ID: http2.SettingMaxFrameSize, Val: 1})
		}, http2.ErrCodeProtocol, AbuseProtocol},
		{"window updates that nothing calls for", func(p *rawPeer) {
			p.connect(1)
			p.flood(many, func(i int) error { return p.WriteWindowUpdate(uint32(i%2), 1) })
		}, http2.ErrCodeEnhanceYourCalm, AbuseWindow},
		{"answers to pings that nobody sent", func(p *rawPeer) {
			p.flood(many, func(int) error { return p.WritePing(true, [8]byte{}) })
		}, http2.ErrCodeEnhanceYourCalm, AbuseEmptyFrames},
		{"answers to settings that nobody sent", func(p *rawPeer) {
			p.flood(many, func(int) error { return p.WriteSettingsAck() })
		}, http2.ErrCodeEnhanceYourCalm, AbuseEmptyFrames},
		{"DATA of nothing but padding", func(p *rawPeer) {
			p.connect(1)
			p.flood(many, func(int) error { return p.WriteDataPadded(1, false, nil, make([]byte, 9)) })
		}, http2.ErrCodeEnhanceYourCalm, AbuseEmptyFrames},
		{"resets of a stream that has ended", func(p *rawPeer) {
			p.headers(1, true, ":method", "CONNECT", ":authority", "denied:1")
			p.flood(many, func(int) error { return p.WriteRSTStream(1, http2.ErrCodeCancel) })
		}, http2.ErrCodeEnhanceYourCalm, AbuseEmptyFrames},
		{"streams that the server has to reset", func(p *rawPeer) {
			p.flood(many, func(i int) error {
				p.headers(uint32(2*i+1), false, ":method", "CONNECT", ":authority", "a:1")
				return p.WriteWindowUpdate(uint32(2*i+1), 0)
			})
		}, http2.ErrCodeEnhanceYourCalm, AbuseFaults},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var told reasons
			s := serve(t, ServerConfig{Handler: holding, Tuning: Tuning{Abused: told.add}})
			s.besides(func() {
				p := s.dialRaw()
				var writing sync.WaitGroup
				writing.Go(func() { tt.do(p) })
				if tt.name == "a header list that is small only compressed" {
					writing.Wait() // it reads, too
				}
				p.wantGoAway(tt.code)
				p.conn.NetConn().Close()
				writing.Wait()
			})
			if told.of(tt.abuse) != 1 {
				t.Errorf("told of %v, want %q once", told.count, tt.abuse)
			}
		})
	}
}

// TestPeersThatReadNothingAreCut: their answers are bounded, and a peer whose
// socket takes nothing is found out even if it talks all the time.
func TestPeersThatReadNothingAreCut(t *testing.T) {
	for _, tt := range []struct {
		name string
		do   func(p *rawPeer, cut func() bool)
	}{
		{"and ask on", func(p *rawPeer, cut func() bool) {
			pace := time.Tick(time.Millisecond)
			for i := 0; !cut(); i++ {
				p.headers(uint32(2*i+1), true, ":method", "CONNECT", ":authority", "denied:1")
				if i%20 == 0 {
					<-pace
				}
			}
		}},
		{"and talk on", func(p *rawPeer, cut func() bool) {
			p.WriteWindowUpdate(0, 1<<30)
			p.headers(1, false, ":method", "CONNECT", ":authority", "flood:1")
			p.WriteWindowUpdate(1, 1<<30)
			for talk := time.Tick(10 * time.Millisecond); !cut(); <-talk {
				p.WriteData(1, false, []byte("x"))
			}
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var told reasons
			s := serve(t, ServerConfig{
				Handler: func(in hbone.Incoming) {
					if in.Request().Authority != "flood:1" {
						holding(in)
					} else if s, err := in.Accept(nil); err == nil {
						io.Copy(struct{ io.Writer }{s}, endless{})
					}
				},
				Tuning: Tuning{PingInterval: 100 * time.Millisecond, PingTimeout: 3 * time.Second, MaxStreams: 10_000, Abused: told.add},
			})
			s.besides(func() {
				p := s.dialRaw()
				defer p.conn.NetConn().Close()
				end := time.Now().Add(patience)
				tt.do(p, func() bool { return told.of(AbuseDeaf) > 0 || time.Now().After(end) })
			})
			if told.of(AbuseDeaf) != 1 {
				t.Errorf("told of %v", told.count)
			}
		})
	}
}

// endless gives zeros.
type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

// TestAHoarderIsCut: streams that no application reads are bounded together, and
// the peer that holds the most pays for it, not the one that comes last.
func TestAHoarderIsCut(t *testing.T) {
	const limit, window = 4 << 20, 256 << 10
	var told reasons
	unread := NewUnread(limit)
	s := serve(t, ServerConfig{Handler: holding, Tuning: Tuning{Unread: unread, Abused: told.add}})
	fill := func(p *rawPeer, id uint32) {
		p.headers(id, false, ":method", "CONNECT", ":authority", "unread:1")
		p.flood(window/(16<<10), func(int) error { return p.WriteData(id, false, make([]byte, 16<<10)) })
	}
	most := int64(0)
	s.besides(func() {
		hoarder, late := s.dialRaw(), s.dialRawAs(otherID)
		defer hoarder.conn.NetConn().Close()
		defer late.conn.NetConn().Close()
		for i := range uint32(limit/window - 1) {
			fill(hoarder, 2*i+1)
		}
		until(t, "the hoarder holds what it may", func() bool { return unread.Held() >= limit-2*window })
		fill(late, 1)
		fill(late, 3)
		until(t, "somebody is cut", func() bool { most = max(most, unread.Held()); return told.of(AbuseHoard) > 0 })
		hoarder.wantGoAway(http2.ErrCodeEnhanceYourCalm)
		late.headers(5, false, ":method", "CONNECT", ":authority", "a:1")
		late.WriteData(5, true, []byte("still here"))
		if f := want[*http2.DataFrame](late); f.StreamID != 5 {
			t.Errorf("got %v", f)
		}
	})
	// Beyond the limit: a frame of each tunnel, in whole buffers.
	if most > limit+3*2*largeChunk {
		t.Errorf("%d bytes were held at once, of %d", most, limit)
	}
}

// TestHonestPeersAreNotPunished: what busy peers do, at full speed
// (ztunnel#2100: GOAWAY under many tiny frames).
func TestHonestPeersAreNotPunished(t *testing.T) {
	const many = 30_000
	for _, tt := range []struct {
		name string
		do   func(p *rawPeer)
	}{
		{"frames of one byte at full speed", func(p *rawPeer) {
			p.WriteWindowUpdate(0, many)
			p.connect(1)
			var writing sync.WaitGroup
			writing.Go(func() { p.flood(many, func(int) error { return p.WriteData(1, false, []byte("x")) }) })
			for got := 0; got < many; {
				got += len(want[*http2.DataFrame](p).Data())
			}
			writing.Wait()
		}},
		{"a window given back twice for each frame, however small", func(p *rawPeer) {
			p.connect(1)
			for range many / 20 {
				p.WriteData(1, false, []byte("x"))
				for range len(want[*http2.DataFrame](p).Data()) {
					p.WriteWindowUpdate(0, 1)
					p.WriteWindowUpdate(1, 1)
				}
			}
		}},
		{"requests withdrawn after a while, all at once", func(p *rawPeer) {
			for round := range uint32(4) {
				for i := range uint32(200) {
					p.headers(2*(200*round+i)+1, false, ":method", "CONNECT", ":authority", "hold:1")
				}
				p.WritePing(false, [8]byte{1}) // all have arrived
				p.next(func(f http2.Frame) bool { a, ok := f.(*http2.PingFrame); return ok && a.IsAck() })
				<-time.After(2 * patienceOfAll)
				for i := range uint32(200) {
					p.WriteRSTStream(2*(200*round+i)+1, http2.ErrCodeCancel)
				}
			}
		}},
		{"requests that a policy refuses, one after the other", func(p *rawPeer) {
			for i := range uint32(5000) {
				p.headers(2*i+1, false, ":method", "CONNECT", ":authority", "denied:1")
				want[*http2.MetaHeadersFrame](p)
				p.WriteRSTStream(2*i+1, http2.ErrCodeCancel) // as a client does that does not know yet
			}
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var told reasons
			s := serve(t, ServerConfig{Handler: holding, Tuning: Tuning{Abused: told.add}})
			p := s.dialRaw()
			tt.do(p)
			p.WritePing(false, [8]byte{9})
			if _, err := p.next(func(f http2.Frame) bool { a, ok := f.(*http2.PingFrame); return ok && a.Data == [8]byte{9} }); err != nil || len(told.count) > 0 {
				t.Errorf("cut off: %v, told of %v", err, told.count)
			}
		})
	}
}
