package hbonetest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ambit-mesh/ambit/internal/hbone"
)

func echo(in hbone.Incoming, s hbone.Stream) {
	if _, err := io.Copy(struct{ io.Writer }{s}, struct{ io.Reader }{s}); err == nil {
		s.CloseWrite()
	}
}

var openTests = []test{
	{"a request, its answer and their headers arrive", func(t *testing.T, tr Transport) {
		got := make(chan hbone.Request, 1)
		r := newRig(t, tr, func(in hbone.Incoming) {
			got <- in.Request()
			s, err := in.Accept(map[string]string{hbone.HeaderBaggage: "k8s.pod.name=reviews"})
			if err == nil {
				echo(in, s)
			}
		})
		want := hbone.Request{Authority: "[fd00::7]:8080", Header: map[string]string{
			hbone.HeaderBaggage: "k8s.pod.name=front", hbone.HeaderForwarded: `for="10.0.0.1:4711"`, hbone.HeaderTraceparent: "00-1-2-00",
		}}
		s, resp, err := r.tunnel.Open(within(t), want)
		if err != nil {
			t.Fatal(err)
		}
		if resp.Status != 200 || resp.Header[hbone.HeaderBaggage] != "k8s.pod.name=reviews" {
			t.Errorf("answer %+v", resp)
		}
		if req := <-got; req.Authority != want.Authority || fmt.Sprint(req.Header) != fmt.Sprint(want.Header) {
			t.Errorf("request %+v, want %+v", req, want)
		}
		pingPong(t, s, "hello")
		s.CloseWrite()
		if _, err := s.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("after the echo's end: %v, want EOF", err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}},
	{"a refusal arrives with status and reason, and the tunnel goes on", func(t *testing.T, tr Transport) {
		r := newRig(t, tr, func(in hbone.Incoming) {
			if strings.HasPrefix(in.Request().Authority, "deny") {
				in.Reject(hbone.StatusUnauthorized, "policy shop/no-front\r\nx: y")
				return
			}
			accept(echo)(in)
		})
		for range 3 {
			_, resp, err := r.tunnel.Open(within(t), hbone.Request{Authority: "deny:80"})
			e := isStatus(err)
			if e == nil || resp.Status != 401 || e.Response.Status != 401 || !strings.HasPrefix(e.Response.Header[hbone.HeaderReason], "policy shop/no-front") {
				t.Fatalf("answer %+v, error %v", resp, err)
			}
		}
		pingPong(t, r.open(), "still there")
		until(t, "refused streams are gone", func() bool { return r.tunnel.Streams() == 1 })
	}},
	{"a handler that answers nothing is a 503", func(t *testing.T, tr Transport) {
		r := newRig(t, tr, func(hbone.Incoming) {})
		_, _, err := r.tunnel.Open(within(t), hbone.Request{Authority: "x:1"})
		if e := isStatus(err); e == nil || e.Response.Status != hbone.StatusUnavailable {
			t.Errorf("error %v", err)
		}
	}},
	{"a second answer is an error", func(t *testing.T, tr Transport) {
		second := make(chan error, 2)
		r := newRig(t, tr, accept(func(in hbone.Incoming, s hbone.Stream) {
			_, err := in.Accept(nil)
			second <- err
			second <- in.Reject(503, "")
			echo(in, s)
		}))
		s := r.open()
		if <-second == nil || <-second == nil {
			t.Error("second answer accepted")
		}
		pingPong(t, s, "unharmed")
	}},
	{"a request whose context ends is withdrawn at the server", func(t *testing.T, tr Transport) {
		begun, ended := make(chan bool, 1), make(chan bool, 1)
		r := newRig(t, tr, func(in hbone.Incoming) {
			begun <- true
			<-in.Context().Done()
			ended <- true
		})
		ctx, cancel := context.WithCancel(context.Background())
		go func() { <-begun; cancel() }()
		if _, _, err := r.tunnel.Open(ctx, hbone.Request{Authority: "x:1"}); !errors.Is(err, context.Canceled) {
			t.Errorf("Open: %v, want context.Canceled", err)
		}
		select {
		case <-ended:
		case <-time.After(Patience):
			t.Error("the handler's context does not end")
		}
		if n := r.tunnel.Streams(); n != 0 {
			t.Errorf("%d streams left", n)
		}
	}},
	{"what cannot be a header is refused before it is sent", func(t *testing.T, tr Transport) {
		r := newRig(t, tr, accept(echo))
		for name, req := range map[string]hbone.Request{
			"no authority": {}, "line break": {Authority: "a:1", Header: map[string]string{"baggage": "a\nb"}},
			"upper case": {Authority: "a:1", Header: map[string]string{"Baggage": "a"}},
			"too long":   {Authority: "a:1", Header: map[string]string{"baggage": strings.Repeat("x", 1<<20)}},
		} {
			if _, _, err := r.tunnel.Open(within(t), req); err == nil {
				t.Errorf("%s: accepted", name)
			}
		}
		pingPong(t, r.open(), "unharmed")
	}},
	{"many streams at once, and many one after the other", func(t *testing.T, tr Transport) {
		r := newRig(t, tr, accept(echo))
		var all sync.WaitGroup
		for i := range min(50, r.tunnel.Capacity()) {
			all.Go(func() {
				for j := range 10 {
					s, _, err := r.tunnel.Open(within(t), hbone.Request{Authority: "a:1"})
					if err != nil {
						t.Error(err)
						return
					}
					pingPong(t, s, strings.Repeat(fmt.Sprintf("%d/%d ", i, j), 1000))
					s.CloseWrite()
					if n, err := s.Read(make([]byte, 1)); err != io.EOF {
						t.Errorf("read %d, %v, want EOF", n, err)
					}
					s.Close()
				}
			})
		}
		do(t, "all streams", all.Wait)
		if n := r.tunnel.Streams(); n != 0 {
			t.Errorf("%d streams left", n)
		}
	}},
	{"no more streams than the capacity", func(t *testing.T, tr Transport) {
		h, next := handing(t)
		r := newRig(t, tr, h)
		n := r.tunnel.Capacity()
		if n <= 0 {
			t.Fatalf("capacity %d", n)
		}
		for range n {
			r.open()
			next()
		}
		if got := r.tunnel.Streams(); got != n {
			t.Errorf("%d streams, want %d", got, n)
		}
		if _, _, err := r.tunnel.Open(within(t), hbone.Request{Authority: "a:1"}); !errors.Is(err, hbone.ErrDraining) {
			t.Errorf("one more: %v, want ErrDraining", err)
		}
		select {
		case <-r.tunnel.Done():
			t.Error("a full tunnel is not done")
		default:
		}
	}},
	{"a TCP stream has no datagrams", func(t *testing.T, tr Transport) {
		r := newRig(t, tr, accept(echo))
		s := r.open()
		if err := s.SendDatagram(within(t), []byte("x")); !errors.Is(err, hbone.ErrNoDatagrams) {
			t.Errorf("SendDatagram: %v", err)
		}
		if _, err := s.ReceiveDatagram(within(t)); !errors.Is(err, hbone.ErrNoDatagrams) {
			t.Errorf("ReceiveDatagram: %v", err)
		}
	}},
}

// pingPong sends text and reads it back.
func pingPong(t *testing.T, s hbone.Stream, text string) {
	t.Helper()
	sent := make(chan error, 1)
	go func() { _, err := io.WriteString(s, text); sent <- err }()
	got := make([]byte, len(text))
	if _, err := io.ReadFull(s, got); err != nil || string(got) != text {
		t.Errorf("read back %d bytes, %v", len(got), err)
	}
	if err := <-sent; err != nil {
		t.Errorf("write: %v", err)
	}
}
