package h2

import (
	"bytes"
	"io"
	"net"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/ambit-mesh/ambit/internal/hbone"
)

// script is a connection whose peer says what is in it, and then leaves.
type script struct{ *bytes.Reader }

func (script) Write(p []byte) (int, error)      { return len(p), nil }
func (script) CloseWrite() error                { return nil }
func (script) Close() error                     { return nil }
func (script) LocalAddr() net.Addr              { return nil }
func (script) RemoteAddr() net.Addr             { return nil }
func (script) SetDeadline(time.Time) error      { return nil }
func (script) SetReadDeadline(time.Time) error  { return nil }
func (script) SetWriteDeadline(time.Time) error { return nil }

// FuzzServer gives a server whatever frames: it must end the tunnel and leave
// nothing running.
func FuzzServer(f *testing.F) {
	frames := func(write func(fr *http2.Framer, block func(...string) []byte)) {
		var out, hb bytes.Buffer
		enc := hpack.NewEncoder(&hb)
		out.WriteString(http2.ClientPreface)
		fr := http2.NewFramer(&out, nil)
		fr.AllowIllegalWrites = true
		fr.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 100})
		write(fr, func(h ...string) []byte {
			hb.Reset()
			for i := 0; i < len(h); i += 2 {
				enc.WriteField(hpack.HeaderField{Name: h[i], Value: h[i+1]})
			}
			return hb.Bytes()
		})
		f.Add(out.Bytes())
	}
	connect := func(fr *http2.Framer, b []byte) {
		fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: b, EndHeaders: true})
	}
	frames(func(fr *http2.Framer, block func(...string) []byte) {
		connect(fr, block(":method", "CONNECT", ":authority", "a:1", "baggage", "x"))
		fr.WriteData(1, false, []byte("hello"))
		fr.WriteDataPadded(1, true, []byte("hello"), []byte{0, 0})
	})
	frames(func(fr *http2.Framer, block func(...string) []byte) {
		connect(fr, block(":method", "CONNECT", ":authority", "a:1"))
		fr.WriteRSTStream(1, http2.ErrCodeCancel)
		fr.WriteWindowUpdate(0, 5)
		fr.WritePing(false, [8]byte{1})
		fr.WriteGoAway(0, http2.ErrCodeNo, nil)
	})
	frames(func(fr *http2.Framer, block func(...string) []byte) {
		b := block(":method", "GET", ":path", "/", ":scheme", "https")
		fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: b[:1]})
		fr.WriteContinuation(1, true, b[1:])
	})
	f.Fuzz(func(t *testing.T, in []byte) {
		c := script{bytes.NewReader(in)}
		var tuning Tuning
		tuning.fill(10)
		tn := newTunnel(c, newWire(c), tuning, false)
		tn.handler = func(in hbone.Incoming) {
			if s, err := in.Accept(nil); err == nil {
				io.Copy(struct{ io.Writer }{s}, struct{ io.Reader }{s})
			}
		}
		tn.start()
		<-tn.ended_
		tn.work.Wait()
		tn.cancel()
		tn.serving.Wait()
		if n := tn.Streams(); n != 0 {
			t.Errorf("%d streams left", n)
		}
		if n := tuning.Unread.Held(); n != 0 {
			t.Errorf("%d bytes are held", n)
		}
	})
}

// FuzzClient answers a client whatever frames: what it asked must end, and the
// tunnel leave nothing running.
func FuzzClient(f *testing.F) {
	answer := func(write func(fr *http2.Framer, block func(...string) []byte)) {
		var out, hb bytes.Buffer
		enc := hpack.NewEncoder(&hb)
		fr := http2.NewFramer(&out, nil)
		fr.AllowIllegalWrites = true
		fr.WriteSettings(http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 2})
		write(fr, func(h ...string) []byte {
			hb.Reset()
			for i := 0; i < len(h); i += 2 {
				enc.WriteField(hpack.HeaderField{Name: h[i], Value: h[i+1]})
			}
			return hb.Bytes()
		})
		f.Add(out.Bytes())
	}
	answer(func(fr *http2.Framer, block func(...string) []byte) {
		fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block(":status", "100"), EndHeaders: true})
		fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block(":status", "200", "baggage", "a=b"), EndHeaders: true})
		fr.WriteDataPadded(1, false, []byte("hello"), []byte{0, 0})
		fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block("trailer", "x"), EndHeaders: true, EndStream: true})
	})
	answer(func(fr *http2.Framer, block func(...string) []byte) {
		fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block(":status", "401"), EndHeaders: true, EndStream: true})
		fr.WriteGoAway(1, http2.ErrCodeNo, nil)
		fr.WritePing(true, [8]byte{0x80})
	})
	answer(func(fr *http2.Framer, _ func(...string) []byte) {
		fr.WriteRSTStream(1, http2.ErrCodeRefusedStream)
		fr.WriteWindowUpdate(1, 1<<31-1)
		fr.WritePushPromise(http2.PushPromiseParam{StreamID: 1, PromiseID: 2, EndHeaders: true})
	})
	f.Fuzz(func(t *testing.T, in []byte) {
		c := script{bytes.NewReader(in)}
		var tuning Tuning
		tuning.fill(10)
		tn := newTunnel(c, newWire(c), tuning, true)
		s := newStream(tn, 0)
		s.answered = make(chan struct{})
		if err := tn.connect(s, hbone.Request{Authority: "a:1"}); err != nil {
			t.Fatal(err)
		}
		tn.start()
		<-s.answered
		if got, _, err := s.result(); err == nil {
			io.Copy(io.Discard, struct{ io.Reader }{got})
			got.Close()
		}
		<-tn.ended_
		tn.Close()
		if n := tn.Streams(); n != 0 {
			t.Errorf("%d streams left", n)
		}
		if n := tuning.Unread.Held(); n != 0 {
			t.Errorf("%d bytes are held", n)
		}
	})
}
