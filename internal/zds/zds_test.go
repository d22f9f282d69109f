package zds

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var pod = Pod{UID: "u-1", Name: "web-0", Namespace: "shop", ServiceAccount: "web"}

// pair gives both ends of a greeted connection.
func pair(t *testing.T) (*Conn, *Client) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "z", "z.sock")
	l, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	client, err := Dial(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	conn, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if v, err := conn.Hello(t.Context()); err != nil || v != 1 {
		t.Fatalf("hello: version %d, %v", v, err)
	}
	return conn, client
}

func TestRequestsArriveAndAreAnswered(t *testing.T) {
	conn, client := pair(t)
	file, err := os.Open("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	cases := []struct {
		name string
		ask  func() error
		want Request
		nack error
	}{
		{"add carries the pod and its namespace", func() error { return conn.Add(t.Context(), pod, file) }, Request{Kind: Add, Pod: pod}, nil},
		{"keep carries the uid", func() error { return conn.Keep(t.Context(), "u-2") }, Request{Kind: Keep, Pod: Pod{UID: "u-2"}}, nil},
		{"snapshot sent carries nothing", func() error { return conn.SnapshotSent(t.Context()) }, Request{Kind: SnapshotSent}, nil},
		{"del carries the uid, and a nack its reason", func() error { return conn.Del(t.Context(), "u-1") }, Request{Kind: Del, Pod: Pod{UID: "u-1"}}, errors.New("no such luck")},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			answer := make(chan error, 1)
			go func() { answer <- c.ask() }()
			r, err := client.Receive(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if (r.NetNS != nil) != (c.want.Kind == Add) {
				t.Errorf("descriptor %v with %s", r.NetNS, r.Kind)
			}
			if r.NetNS != nil {
				sent, _ := file.Stat()
				got, _ := r.NetNS.Stat()
				if !os.SameFile(sent, got) {
					t.Error("another file arrived than was sent")
				}
				r.NetNS.Close()
				r.NetNS = nil
			}
			if d := cmp.Diff(c.want, r); d != "" {
				t.Errorf("request (-want +got):\n%s", d)
			}
			if err := client.Ack(c.nack); err != nil {
				t.Fatal(err)
			}
			err = <-answer
			var nack *NackError
			if c.nack == nil && err != nil || c.nack != nil && (!errors.As(err, &nack) || nack.Reason != c.nack.Error()) {
				t.Errorf("asker got %v, want %v", err, c.nack)
			}
		})
	}
	if conn.Err() != nil {
		t.Errorf("connection ended: %v", conn.Err())
	}
}

func TestTheWireIsUpstreams(t *testing.T) {
	hello, _ := marshalHello()
	sent, _ := marshalRequest(Request{Kind: SnapshotSent})
	ack, _ := marshalAck("")
	del, _ := marshalRequest(Request{Kind: Del, Pod: Pod{UID: "x"}})
	got := []string{string(hello), string(sent), string(ack), string(del)}
	want := []string{"\x08\x01", "\x1a\x00", "\x0a\x00", "\x12\x03\x12\x01x"}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("bytes (-want +got):\n%s", d)
	}
}

func TestALongReasonIsCut(t *testing.T) {
	b, err := marshalAck(strings.Repeat("é", 2000))
	if err != nil || len(b) > maxMessage {
		t.Fatalf("%d bytes, %v", len(b), err)
	}
	if reason, err := unmarshalAck(b); err != nil || !strings.HasSuffix(reason, "é…") {
		t.Errorf("reason ends %q, %v", reason[len(reason)-8:], err)
	}
}

func TestAnOversizedPodIsRefusedAndTheConnectionLives(t *testing.T) {
	conn, client := pair(t)
	err := conn.Keep(t.Context(), strings.Repeat("u", maxMessage))
	if v := (*ProtocolError)(nil); !errors.As(err, &v) {
		t.Fatalf("got %v, want a protocol error", err)
	}
	go func() {
		if _, err := client.Receive(context.Background()); err == nil {
			client.Ack(nil)
		}
	}()
	if err := conn.Keep(t.Context(), "u"); err != nil {
		t.Errorf("after a refused message: %v", err)
	}
}

func TestAnOversizedRequestIsRefusedByZtunnel(t *testing.T) {
	conn, client := pair(t)
	if err := writePacket(conn.c, make([]byte, maxMessage+1), nil); err != nil {
		t.Fatal(err)
	}
	_, err := client.Receive(t.Context())
	if v := (*ProtocolError)(nil); !errors.As(err, &v) || !strings.Contains(err.Error(), "larger than 1024 bytes") {
		t.Errorf("got %v, want a protocol error that tells the size", err)
	}
}

func TestAViolationEndsTheAgentsConnection(t *testing.T) {
	for name, bytes := range map[string][]byte{
		"an ack that nobody asked for": []byte("\x0a\x00"),
		"a message too large":          make([]byte, maxMessage+1),
	} {
		t.Run(name, func(t *testing.T) {
			conn, client := pair(t)
			if err := client.send(bytes); err != nil {
				t.Fatal(err)
			}
			select {
			case <-conn.Done():
			case <-time.After(10 * time.Second):
				t.Fatal("the connection lives on")
			}
			if v := (*ProtocolError)(nil); !errors.As(conn.Err(), &v) {
				t.Errorf("ended by %v, want a protocol error", conn.Err())
			}
			if _, err := client.Receive(t.Context()); !errors.Is(err, io.EOF) {
				t.Errorf("client sees %v, want EOF", err)
			}
		})
	}
}

func TestAViolationEndsTheClientsReceive(t *testing.T) {
	file, err := os.Open("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	add, _ := marshalRequest(Request{Kind: Add, Pod: pod})
	nameless, _ := marshalRequest(Request{Kind: Add, Pod: Pod{UID: "u"}})
	del, _ := marshalRequest(Request{Kind: Del, Pod: pod})
	for name, c := range map[string]struct {
		bytes []byte
		file  *os.File
	}{
		"add without a namespace": {add, nil},
		"add without a name":      {nameless, file},
		"del with a descriptor":   {del, file},
		"a message too large":     {make([]byte, maxMessage+1), nil},
		"an unknown request":      {[]byte("\x4a\x00"), nil},
		"no protobuf at all":      {[]byte("hello"), nil},
	} {
		t.Run(name, func(t *testing.T) {
			conn, client := pair(t)
			if err := writePacket(conn.c, c.bytes, c.file); err != nil {
				t.Fatal(err)
			}
			r, err := client.Receive(t.Context())
			if v := (*ProtocolError)(nil); !errors.As(err, &v) {
				t.Errorf("got %v, %v; want a protocol error", r, err)
			}
		})
	}
}

func TestACallerThatGivesUpEndsTheConnection(t *testing.T) {
	conn, client := pair(t)
	ctx, cancel := context.WithCancel(t.Context())
	answer := make(chan error, 1)
	go func() { answer <- conn.SnapshotSent(ctx) }()
	if _, err := client.Receive(t.Context()); err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := <-answer; !errors.Is(err, context.Canceled) {
		t.Errorf("asker got %v", err)
	}
	<-conn.Done()
	if err := conn.Keep(t.Context(), "u"); err == nil {
		t.Error("a connection with an ack outstanding was used again")
	}
}

func TestTheAgentNoticesThatZtunnelHasGone(t *testing.T) {
	conn, client := pair(t)
	client.Close()
	select {
	case <-conn.Done():
	case <-time.After(10 * time.Second):
		t.Fatal("not noticed")
	}
	if !errors.Is(conn.Err(), io.EOF) {
		t.Errorf("ended by %v, want EOF", conn.Err())
	}
}

func TestReceiveEndsWithItsContext(t *testing.T) {
	_, client := pair(t)
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(time.Millisecond, cancel)
	if _, err := client.Receive(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestListenReplacesASocketLeftBehind(t *testing.T) {
	path := filepath.Join(t.TempDir(), "z.sock")
	old, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: path, Net: "unixpacket"})
	if err != nil {
		t.Fatal(err)
	}
	old.SetUnlinkOnClose(false)
	old.Close()
	l, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if i, err := os.Stat(path); err != nil || i.Mode().Perm() != 0o600 {
		t.Errorf("socket mode %v, %v", i.Mode(), err)
	}
}
