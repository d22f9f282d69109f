package event

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"strings"
	"testing"
)

// TestOnlyAYesLetsAPodStart: whatever an agent answers that is not 200, whole, is
// a no with a reason.
func TestOnlyAYesLetsAPodStart(t *testing.T) {
	for _, tt := range []struct{ sentence, answer, want string }{
		{"yes", "HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", ""},
		{"yes in another version", "HTTP/1.1 200 OK\r\n\r\n", ""},
		{"not yet, and why", "HTTP/1.0 500 Internal Server Error\r\nX: y\r\n\r\nno ztunnel is connected\n", "ambit cni agent: no ztunnel is connected"},
		{"no request of ours", "HTTP/1.0 400 Bad Request\r\n\r\nnot a request of the plugin\n", "ambit cni agent: not a request of the plugin"},
		{"a yes that is cut off", "HTTP/1.0 200 OK\r\n", "it is none"},
		{"a status that only begins like a yes", "HTTP/1.0 2000 x\r\n\r\n", "ambit cni agent: "},
		{"nothing", "", "it is none"},
		{"something else", "SSH-2.0 200 x\r\n\r\n", "it is none"},
	} {
		err := Client{Socket: answering(t, tt.answer)}.Add(t.Context(), Add{PodName: "p"})
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", tt.sentence, err, tt.want)
		}
	}
}

// answering is the socket of an agent that says one thing to one caller.
func answering(t *testing.T, answer string) (socket string) {
	t.Helper()
	socket = filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		c.Read(make([]byte, 4096))
		c.Write([]byte(answer))
	}()
	t.Cleanup(func() { l.Close(); <-done })
	return socket
}

func TestWaitingForAnAnswerEnds(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("the runtime has given up")
	done := make(chan struct{})
	go func() {
		defer close(done)
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		c.Read(make([]byte, 4096))
		cancel(why)
		c.Read(make([]byte, 1)) // until the plugin hangs up
	}()
	if err := (Client{Socket: socket}).Add(ctx, Add{PodName: "p"}); !errors.Is(err, why) {
		t.Errorf("error %v, want that %v", err, why)
	}
	l.Close()
	<-done
}
