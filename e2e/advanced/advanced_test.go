package advanced

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// Ports of the server under test.
const (
	httpPort = -1 - iota
	tlsPort
	grpcPort
	tcpPort
)

// start runs a server and returns the address of each of its ports.
func start(t *testing.T) map[int]string {
	t.Helper()
	crt, key := certificate(t)
	cfg := Config{
		HTTP: []int{httpPort, tlsPort}, TLS: []int{tlsPort}, Certificate: crt, Key: key,
		GRPC: []int{grpcPort}, TCP: []int{tcpPort}, Version: "v7", Grace: 100 * time.Millisecond,
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
	at := map[int]string{}
	select {
	case b := <-bound:
		for port, addr := range b {
			at[port] = net.JoinHostPort("127.0.0.1", portOf(addr))
		}
	case err := <-done:
		t.Fatal(err)
	}
	return at
}

func certificate(t *testing.T) (crt, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	crt, key = filepath.Join(dir, "crt"), filepath.Join(dir, "key")
	for file, block := range map[string]*pem.Block{crt: {Type: "CERTIFICATE", Bytes: der}, key: {Type: "PRIVATE KEY", Bytes: pkcs8}} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return crt, key
}

// printed is what the client prints, without what differs from run to run.
func printed(t *testing.T, r Request) string {
	t.Helper()
	var out bytes.Buffer
	if err := Run(t.Context(), &out, r); err != nil {
		t.Fatalf("%s: %v", r.URL, err)
	}
	name, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	text := strings.ReplaceAll(out.String(), "Hostname="+name, "Hostname=POD")
	text = regexp.MustCompile(`(127\.0\.0\.1:|ServicePort=)\d+`).ReplaceAllString(text, "${1}PORT")
	text = regexp.MustCompile(`ResponseHeader=Date:.*`).ReplaceAllString(text, "ResponseHeader=Date:NOW")
	return regexp.MustCompile(`grpc-go/\S+`).ReplaceAllString(text, "grpc-go/X")
}

// TestWhatTheClientPrints holds the output to the letter: the suite reads it by
// patterns.
func TestWhatTheClientPrints(t *testing.T) {
	at := start(t)
	web := func(proto, header string) string {
		return "[0] StatusCode=200\n[0] ResponseHeader=Content-Length:LEN\n[0] ResponseHeader=Content-Type:text/plain\n[0] ResponseHeader=Date:NOW\n" +
			"[0 body] ServiceVersion=v7\n[0 body] ServicePort=PORT\n[0 body] Host=127.0.0.1:PORT\n[0 body] URL=/a?b=c\n[0 body] Method=GET\n" +
			"[0 body] Proto=" + proto + "\n[0 body] IP=127.0.0.1\n" + header + "[0 body] Hostname=POD\n\n"
	}
	const closes, agent = "[0 body] RequestHeader=Connection:close\n", "[0 body] RequestHeader=User-Agent:Go-http-client/"
	for name, tt := range map[string]struct {
		request Request
		want    string
	}{
		"HTTP/1.1":             {Request{URL: "http://" + at[httpPort] + "/a?b=c", Method: "GET"}, web("HTTP/1.1", closes+agent+"1.1\n")},
		"HTTP/2 without TLS":   {Request{URL: "http://" + at[httpPort] + "/a?b=c", HTTP2: true}, web("HTTP/2.0", agent+"2.0\n")},
		"HTTP/1.1 in TLS":      {Request{URL: "https://" + at[tlsPort] + "/a?b=c"}, web("HTTP/1.1", closes+agent+"1.1\n")},
		"HTTP/2 in TLS":        {Request{URL: "https://" + at[tlsPort] + "/a?b=c", HTTP2: true}, web("HTTP/2.0", agent+"2.0\n")},
		"two values of a name": {Request{URL: "http://" + at[httpPort] + "/a?b=c", Header: []string{"x-a:1", "x-a:2"}}, web("HTTP/1.1", closes+agent+"1.1\n[0 body] RequestHeader=X-A:1\n[0 body] RequestHeader=X-A:2\n")},
		"gRPC": {
			Request{URL: "grpc://" + at[grpcPort], Header: []string{"X-Test:set"}, Message: "hi"},
			"[0] ResponseHeader=content-type:application/grpc\n[0 body] StatusCode=200\n[0 body] ServiceVersion=v7\n[0 body] ServicePort=PORT\n[0 body] IP=127.0.0.1\n" +
				"[0 body] Host=127.0.0.1:PORT\n[0 body] RequestHeader=content-type:application/grpc\n[0 body] RequestHeader=user-agent:grpc-go/X\n" +
				"[0 body] RequestHeader=x-test:set\n[0 body] Echo=hi\n[0 body] Hostname=POD\n\n",
		},
		"TCP": {
			Request{URL: "tcp://" + at[tcpPort]},
			"[0 body] StatusCode=200\n[0 body] ServiceVersion=v7\n[0 body] ServicePort=PORT\n[0 body] IP=127.0.0.1\n[0 body] Hostname=POD\n[0 body] HelloWorld\n\n",
		},
	} {
		got := regexp.MustCompile(`Content-Length:\d+`).ReplaceAllString(printed(t, tt.request), "Content-Length:LEN")
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%s (-want +printed):\n%s", name, diff)
		}
	}
}

func TestTheHostHeaderIsTheAuthority(t *testing.T) {
	at := start(t)
	for _, url := range []string{"http://" + at[httpPort], "grpc://" + at[grpcPort]} {
		if got := printed(t, Request{URL: url, Header: []string{"Host:echo-v1"}}); !strings.Contains(got, "[0 body] Host=echo-v1\n") {
			t.Errorf("%s: printed\n%s", url, got)
		}
	}
}

func TestTheServerCanBeSlowAndAnswerAnyStatus(t *testing.T) {
	at := start(t)
	if got := printed(t, Request{URL: "http://" + at[httpPort] + "/?status=503"}); !strings.HasPrefix(got, "[0] StatusCode=503\n") || !strings.Contains(got, "Hostname=POD") {
		t.Errorf("printed\n%s", got)
	}
	err := Run(t.Context(), &bytes.Buffer{}, Request{URL: "http://" + at[httpPort] + "/?delay=1m", Timeout: 50 * time.Millisecond})
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a slow answer gave %v", err)
	}
}

func TestManyRequestsGiveAsManyBlocks(t *testing.T) {
	at := start(t)
	for _, url := range []string{"http://" + at[httpPort], "grpc://" + at[grpcPort], "tcp://" + at[tcpPort]} {
		blocks := strings.Split(strings.TrimSuffix(printed(t, Request{URL: url, Count: 50}), "\n\n"), "\n\n")
		if len(blocks) != 50 {
			t.Fatalf("%s: %d blocks", url, len(blocks))
		}
		for i, block := range blocks {
			if strings.Count(block, "StatusCode=200") != 1 || strings.Count(block, "Hostname=POD") != 1 {
				t.Errorf("%s: block %d is\n%s", url, i, block)
			}
		}
	}
}

// peers counts the connections that requests come by.
func peers(t *testing.T, handler http.Handler) (addr string, connections func() int) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	seen := make(chan struct{}, 1000)
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	srv := &http.Server{Handler: handler, Protocols: protocols, ConnState: func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			seen <- struct{}{}
		}
	}}
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.Serve(l) }()
	t.Cleanup(func() { srv.Close(); <-done })
	return l.Addr().String(), func() int { return len(seen) }
}

func TestEveryHTTPRequestHasItsConnection(t *testing.T) {
	addr, connections := peers(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	if err := Run(t.Context(), &bytes.Buffer{}, Request{URL: "http://" + addr, Count: 10}); err != nil {
		t.Fatal(err)
	}
	if n := connections(); n != 10 {
		t.Errorf("10 requests came by %d connections", n)
	}
}

func TestEveryGRPCCallSharesOneConnection(t *testing.T) {
	addr, connections := peers(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/grpc")
		w.Header().Set(http.TrailerPrefix+"Grpc-Status", "0")
		_, _ = w.Write([]byte{0, 0, 0, 0, 0}) // an empty message
	}))
	if err := Run(t.Context(), &bytes.Buffer{}, Request{URL: "grpc://" + addr, Count: 10}); err != nil {
		t.Fatal(err)
	}
	if n := connections(); n != 1 {
		t.Errorf("10 calls came by %d connections", n)
	}
}

func TestNoStatusIsAnErrorAndNoRedirectIsFollowed(t *testing.T) {
	addr, connections := peers(t, http.RedirectHandler("/elsewhere", http.StatusFound))
	if got := printed(t, Request{URL: "http://" + addr}); !strings.Contains(got, "[0] StatusCode=302\n") || !strings.Contains(got, "[0] ResponseHeader=Location:/elsewhere\n") {
		t.Errorf("printed\n%s", got)
	}
	if n := connections(); n != 1 {
		t.Errorf("%d connections", n)
	}
}

func TestNamesAreSentInTheCaseTheyWereGiven(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	heard := make(chan string, 1)
	go func() {
		conn, err := l.Accept()
		if err != nil {
			heard <- err.Error()
			return
		}
		defer conn.Close()
		buf := make([]byte, 4096)
		n, _ := conn.Read(buf)
		heard <- string(buf[:n])
		_, _ = conn.Write([]byte("HTTP/1.1 204 No Content\r\n\r\n"))
	}()
	if err := Run(t.Context(), &bytes.Buffer{}, Request{URL: "http://" + l.Addr().String(), Header: []string{"x-HEADER-Set:v"}}); err != nil {
		t.Fatal(err)
	}
	if got := <-heard; !strings.Contains(got, "\r\nx-HEADER-Set: v\r\n") {
		t.Errorf("the server heard\n%s", got)
	}
}

func TestWhatGetsNoReplyIsAnErrorAndPrintsNothing(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := l.Addr().String()
	l.Close()
	unavailable, _ := peers(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) }))
	for name, r := range map[string]Request{
		"HTTP to nobody": {URL: "http://" + nobody}, "gRPC to nobody": {URL: "grpc://" + nobody}, "TCP to nobody": {URL: "tcp://" + nobody},
		"a gRPC error": {URL: "grpc://" + unavailable}, "an unknown scheme": {URL: "ftp://" + nobody}, "no host": {URL: "http:///"},
		"a header without a value": {URL: "http://" + nobody, Header: []string{"alone"}},
	} {
		var out bytes.Buffer
		if err := Run(t.Context(), &out, r); err == nil || out.Len() > 0 {
			t.Errorf("%s: error %v, printed %q", name, err, out.String())
		}
	}
}

func TestWithoutFlagsTheServerHasTheUsualPorts(t *testing.T) {
	var cfg Config
	cfg.defaults()
	if diff := cmp.Diff([][]int{{8080}, {7070}, {9090}}, [][]int{cfg.HTTP, cfg.GRPC, cfg.TCP}); diff != "" {
		t.Error(diff)
	}
}
