package echo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
)

// Ports of the server under test: negative ones stand for any free port.
const (
	httpPort = -1 - iota
	tcpPort
	udpPort
	grpcPort
	firstPort
	bulkPort
)

// start runs a server and returns the address of each of its ports.
func start(t *testing.T, change func(*Config)) map[int]string {
	t.Helper()
	cfg := Config{
		HTTP: []int{httpPort}, TCP: []int{tcpPort}, UDP: udpPort, GRPC: grpcPort, First: firstPort, Bulk: bulkPort,
		Version: "v7", Marker: "the-marker", Grace: 100 * time.Millisecond, Log: slog.New(slog.DiscardHandler),
	}
	if change != nil {
		change(&cfg)
	}
	ctx, stop := context.WithCancel(context.Background())
	bound := make(chan map[int]net.Addr, 1)
	done := make(chan error, 1)
	go func() { done <- Serve(ctx, cfg, func(b map[int]net.Addr) { bound <- b }) }()
	t.Cleanup(func() {
		stop()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("the server ended with %v", err)
			}
		case <-time.After(20 * time.Second):
			t.Error("the server does not end")
		}
	})
	out := map[int]string{}
	select {
	case b := <-bound:
		for port, addr := range b {
			_, p, err := net.SplitHostPort(addr.String())
			if err != nil {
				t.Fatal(err)
			}
			out[port] = net.JoinHostPort("127.0.0.1", p)
		}
	case err := <-done:
		t.Fatal(err)
	}
	return out
}

func good(t *testing.T, what string, s *Summary, attempts int) {
	t.Helper()
	if s.OK != attempts || s.Failed != 0 || s.Attempts != attempts {
		t.Errorf("%s: %d of %d attempts succeeded: %v", what, s.OK, s.Attempts, s.Failures)
	}
}

func TestEveryClientGetsAlongWithItsPort(t *testing.T) {
	at, ctx := start(t, nil), context.Background()
	good(t, "tcp", TCP(ctx, at[tcpPort], Plan{Count: 3}, "some bytes", false), 3)
	good(t, "first", TCP(ctx, at[firstPort], Plan{}, "some bytes", true), 1)
	good(t, "udp", UDP(ctx, at[udpPort], Plan{Count: 2}, "a datagram"), 2)
	good(t, "up", Up(ctx, at[bulkPort], 5_000_001, time.Minute), 1)
	good(t, "down", Down(ctx, at[bulkPort], 5_000_001, time.Minute), 1)
	good(t, "half-closes", HalfClose(ctx, at[bulkPort], 10*time.Second), 2)
	for name, o := range map[string]HTTPOptions{
		"new connections": {}, "kept connections": {KeepAlive: true}, "HTTP/2": {HTTP2: true},
		"a status that is wanted": {Status: 418}, "a body": {Body: "x"},
	} {
		url := "http://" + at[httpPort] + "/path"
		if o.Status != 0 {
			url += fmt.Sprintf("?status=%d", o.Status)
		}
		s, err := Get(ctx, url, Plan{Count: 2}, o)
		if err != nil {
			t.Fatal(err)
		}
		good(t, name, s, 2)
	}
}

func TestAnswersTellWhatTheServerSaw(t *testing.T) {
	at := start(t, nil)
	s, err := Get(t.Context(), "http://"+at[httpPort]+"/a/b?x=y", Plan{}, HTTPOptions{
		Body: "12345", Header: http.Header{"X-Test": {"one", "two"}, "Host": {"other.example"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	data, err := json.Marshal(s.Last)
	if err != nil {
		t.Fatal(err)
	}
	var a Answer
	if err := json.Unmarshal(data, &a); err != nil {
		t.Fatal(err)
	}
	if a.Path != "/a/b" || a.Method != "POST" || a.BodyBytes != 5 || a.Host != "other.example" || a.Version != "v7" {
		t.Errorf("got %+v", a)
	}
	if strings.Join(a.Headers["X-Test"], ",") != "one,two" || !strings.HasPrefix(a.Remote, "127.0.0.1:") {
		t.Errorf("got headers %v from %s", a.Headers, a.Remote)
	}
	if s.Answered[a.Hostname] != 1 || a.Hostname == "" {
		t.Errorf("answers are counted as %v", s.Answered)
	}
}

func TestACallIsPassedOnToEveryUpstream(t *testing.T) {
	back := start(t, nil)
	front := start(t, func(c *Config) {
		c.Upstreams = []string{"http://" + back[httpPort] + "/inner", "tcp://" + back[tcpPort]}
	})
	s, err := Get(t.Context(), "http://"+front[httpPort]+"/call", Plan{}, HTTPOptions{})
	if err != nil {
		t.Fatal(err)
	}
	good(t, "call", s, 1)
	data, _ := json.Marshal(s.Last)
	for _, want := range []string{`"path":"/inner"`, `"bodyBytes":10`, `"echo":"the-marker"`} {
		if !strings.Contains(string(data), want) {
			t.Errorf("%s is not in %s", want, data)
		}
	}
}

func TestACallWhoseUpstreamFailsFails(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed := l.Addr().String()
	l.Close()
	at := start(t, func(c *Config) { c.Upstreams = []string{"http://" + closed + "/"} })
	s, err := Get(t.Context(), "http://"+at[httpPort]+"/call", Plan{}, HTTPOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if s.Failures["status 502 Bad Gateway"] != 1 {
		t.Errorf("got %+v", s)
	}
}

func TestTheHealthServiceIsHealthy(t *testing.T) {
	at := start(t, nil)
	conn, err := grpc.NewClient(at[grpcPort], grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	resp, err := healthpb.NewHealthClient(conn).Check(t.Context(), &healthpb.HealthCheckRequest{})
	if err != nil || resp.Status != healthpb.HealthCheckResponse_SERVING {
		t.Errorf("got %v, %v", resp, err)
	}
}

func TestAHeldConnectionIsHeldUntilItBreaks(t *testing.T) {
	ctx, stop := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer stop()
	at := start(t, nil)
	if s := Hold(ctx, at[tcpPort], 10*time.Millisecond, 5*time.Second); s.Failed != 0 || s.OK < 2 {
		t.Errorf("held: %+v", s)
	}
	// A server that hangs up after the third ping.
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		_, _ = io.CopyN(conn, conn, int64(len("ping 0\n")*3))
	}()
	if s := Hold(t.Context(), l.Addr().String(), time.Millisecond, 5*time.Second); s.OK != 3 || s.Failed != 1 {
		t.Errorf("broken: %+v", s)
	}
}

// relay passes bytes on and spoils them as told; it knows nothing of half-closes
// when deaf is set.
func relay(t *testing.T, to string, spoil func([]byte), deaf bool) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	pass := func(dst, src net.Conn) {
		buf := make([]byte, 4096)
		for {
			n, err := src.Read(buf)
			spoil(buf[:n])
			if _, werr := dst.Write(buf[:n]); werr != nil {
				return
			}
			if err != nil {
				break
			}
		}
		if deaf {
			src.Close()
			dst.Close()
			return
		}
		_ = closeWrite(dst)
	}
	go func() {
		for {
			a, err := l.Accept()
			if err != nil {
				return
			}
			b, err := net.Dial("tcp", to)
			if err != nil {
				a.Close()
				return
			}
			go pass(a, b)
			go pass(b, a)
		}
	}()
	return l.Addr().String()
}

func TestATransferNoticesEveryHarm(t *testing.T) {
	at := start(t, nil)
	flip := func(b []byte) {
		if len(b) > 1000 {
			b[500] ^= 1
		}
	}
	for name, c := range map[string]struct {
		spoil func([]byte)
		deaf  bool
		want  int // attempts that succeed, of: up, down
	}{
		"an honest relay":              {func([]byte) {}, false, 2},
		"one bit flips":                {flip, false, 0},
		"a half-close ends everything": {func([]byte) {}, true, 0},
	} {
		t.Run(name, func(t *testing.T) {
			addr := relay(t, at[bulkPort], c.spoil, c.deaf)
			up := Up(t.Context(), addr, 100_000, 3*time.Second)
			down := Down(t.Context(), addr, 100_000, 3*time.Second)
			if up.OK+down.OK != c.want {
				t.Errorf("up: %+v, down: %+v", up, down)
			}
		})
	}
}

func TestFailuresAreCountedByReason(t *testing.T) {
	for want, err := range map[string]error{
		"connection refused":             &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED},
		"connection reset":               fmt.Errorf("ping 3: %w", syscall.ECONNRESET),
		"unreachable":                    &net.OpError{Op: "dial", Err: syscall.EHOSTUNREACH},
		"timeout":                        context.DeadlineExceeded,
		"closed without an answer":       io.ErrUnexpectedEOF,
		"dns: no such host":              &net.DNSError{Err: "no such host", Name: "x"},
		"status 503 Service Unavailable": statusError("503 Service Unavailable"),
		"other bytes came back":          errors.New("127.0.0.1:99: other bytes came back"),
	} {
		if got := Reason(err); got != want {
			t.Errorf("%v is %q, want %q", err, got, want)
		}
	}
}

func TestATimeoutNamesItsStage(t *testing.T) {
	// The kernel accepts; nobody answers.
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	s, err := Get(t.Context(), "http://"+l.Addr().String(), Plan{Timeout: 50 * time.Millisecond}, HTTPOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if s.Failures["timeout while waiting for the answer"] != 1 || s.FirstFailure == "" {
		t.Errorf("got %+v", s)
	}
}

func TestAPlanKeepsItsPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := func(context.Context) (string, any, error) {
			time.Sleep(300 * time.Millisecond)
			return "", nil, nil
		}
		began := time.Now()
		s := run(t.Context(), "x", Plan{Rate: 100, Duration: 2*time.Second - time.Millisecond}, slow)
		if s.Attempts != 200 || s.OK != 200 {
			t.Errorf("%d attempts in 2 s at 100/s, %d good", s.Attempts, s.OK)
		}
		if took := time.Since(began); took > 2400*time.Millisecond {
			t.Errorf("slow answers held up the pace: it took %s", took)
		}
	})
}

func TestAttemptsThatFindNoRoomHaveFailed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		never := func(ctx context.Context) (string, any, error) { <-ctx.Done(); return "", nil, ctx.Err() }
		s := run(t.Context(), "x", Plan{Rate: 100, Count: 50, InFlight: 10, Timeout: time.Second}, never)
		if s.Failures["too many open attempts"] != 40 || s.Failures["timeout"] != 10 {
			t.Errorf("got %+v", s.Failures)
		}
	})
}

func TestTheEndOfARunIsNoFailureOfOpenAttempts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithCancel(t.Context())
		s := run(ctx, "x", Plan{Rate: 10, Duration: time.Hour}, func(context.Context) (string, any, error) {
			stop() // asked to stop while this attempt is open
			time.Sleep(time.Second)
			return "me", nil, nil
		})
		if s.Failed != 0 || s.OK == 0 || s.Answered["me"] != s.OK {
			t.Errorf("got %+v", s)
		}
	})
}

func TestThePatternDiffersFromPlaceToPlaceHoweverItIsRead(t *testing.T) {
	whole, err := io.ReadAll(pattern(10_000))
	if err != nil || len(whole) != 10_000 {
		t.Fatal(len(whole), err)
	}
	seen := map[string]int{}
	for i := 0; i+8 <= len(whole); i += 8 {
		if j, ok := seen[string(whole[i:i+8])]; ok {
			t.Fatalf("words at %d and %d are equal", i, j)
		}
		seen[string(whole[i:i+8])] = i
	}
	r, odd := pattern(10_000), []byte{}
	for buf := make([]byte, 7); ; {
		n, err := r.Read(buf)
		odd = append(odd, buf[:n]...)
		if err != nil {
			break
		}
	}
	if string(odd) != string(whole) {
		t.Error("reads of another size give other bytes")
	}
}

func TestOldAcknowledgementsAreForgotten(t *testing.T) {
	var a acks
	for i := range maxAcks + 10 {
		a.put(fmt.Sprint(i), "ok")
	}
	if a.get("0") != "unknown transfer" || a.get(fmt.Sprint(maxAcks+9)) != "ok" || len(a.known) != maxAcks {
		t.Errorf("%d are known", len(a.known))
	}
}

func TestAnAnswerWithAnotherStatusIsAFailure(t *testing.T) {
	srv := httptest.NewServer(http.NotFoundHandler())
	defer srv.Close()
	s, err := Get(t.Context(), srv.URL, Plan{}, HTTPOptions{})
	if err != nil || s.Failures["status 404 Not Found"] != 1 {
		t.Errorf("got %+v, %v", s, err)
	}
	if _, err := Get(t.Context(), "not a url", Plan{}, HTTPOptions{}); err == nil {
		t.Error("nonsense is accepted as URL")
	}
}

func TestAServerThatIsToldToFailIsStillReady(t *testing.T) {
	at := "http://" + start(t, nil)[httpPort]
	ask := func(method, path string, status int) {
		t.Helper()
		s, err := Get(t.Context(), at+path, Plan{}, HTTPOptions{Method: method, Status: status})
		if err != nil {
			t.Fatal(err)
		}
		good(t, method+" "+path, s, 1)
	}
	ask("GET", "/", 200)
	ask("PUT", "/fault?status=never", 400)
	ask("PUT", "/fault?status=503", 204)
	ask("GET", "/", 503)
	ask("GET", "/ready", 200)
	ask("DELETE", "/fault", 204)
	ask("GET", "/", 200)
}
