package exchange

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/waypoint/backendtest"
)

// rawTwo is a client of HTTP/2 that says what it likes.
type rawTwo struct {
	t    *testing.T
	conn net.Conn
	*http2.Framer
	enc  *hpack.Encoder
	buf  bytes.Buffer
	next uint32
}

func (r *rig) rawTwo(t *testing.T) *rawTwo {
	t.Helper()
	conn, err := net.Dial("tcp", r.at)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	io.WriteString(conn, http2.ClientPreface)
	c := &rawTwo{t: t, conn: conn, Framer: http2.NewFramer(conn, conn), next: 1}
	c.Framer.AllowIllegalWrites = true
	c.enc = hpack.NewEncoder(&c.buf)
	c.WriteSettings()
	c.WriteSettingsAck()
	return c
}

// block encodes "name: value" lines.
func (c *rawTwo) block(lines ...string) []byte {
	c.buf.Reset()
	for _, l := range lines {
		i := strings.Index(l[1:], ":") + 1
		c.enc.WriteField(hpack.HeaderField{Name: l[:i], Value: strings.TrimPrefix(l[i+1:], " ")})
	}
	return bytes.Clone(c.buf.Bytes())
}

// ask sends a request and gives its number.
func (c *rawTwo) ask(end bool, lines ...string) uint32 {
	id := c.next
	c.next += 2
	c.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: c.block(lines...), EndStream: end, EndHeaders: true})
	return id
}

// fate is how a stream ends: its status, "reset" or "goaway".
func (c *rawTwo) fate(id uint32) string {
	dec := hpack.NewDecoder(4096, nil)
	for {
		f, err := c.ReadFrame()
		if err != nil {
			return "closed"
		}
		switch f := f.(type) {
		case *http2.HeadersFrame:
			fields, _ := dec.DecodeFull(f.HeaderBlockFragment())
			if f.StreamID == id && len(fields) > 0 && fields[0].Name == ":status" {
				return fields[0].Value
			}
		case *http2.RSTStreamFrame:
			if f.StreamID == id {
				return "reset"
			}
		case *http2.GoAwayFrame:
			if f.ErrCode != http2.ErrCodeNo {
				return "goaway"
			}
		}
	}
}

var good = []string{":method: GET", ":scheme: http", ":authority: web", ":path: /"}

func TestHTTP2Cases(t *testing.T) {
	r, s := newRig(t), &seeing{}
	r.service("web", mesh.AppHTTP11, r.pod("web", backendtest.HTTP(s.ServeHTTP)))
	and := func(more ...string) []string { return append(good[:len(good):len(good)], more...) }
	for _, c := range []struct {
		name  string
		lines []string
		want  string // alternatives, by "|"
		seen  string
	}{
		{"a request", good, "200", "GET web / "},
		{"te for trailers", and("te: trailers"), "200", "GET web / "},
		{"a host that is its authority", and("host: web"), "200", "GET web / "},
		{"a host beside another authority is not passed on", and("host: other"), "200|400|reset", "GET web / "},
		{"a host in place of an authority", []string{":method: GET", ":scheme: http", ":path: /", "host: web"}, "200", "GET web / "},
		{"a path that is made normal", []string{":method: GET", ":scheme: http", ":authority: web", ":path: //a/../b"}, "200", "GET web /b "},

		{"no method", []string{":scheme: http", ":authority: web", ":path: /"}, "reset", ""},
		{"no scheme", []string{":method: GET", ":authority: web", ":path: /"}, "reset", ""},
		{"no path", []string{":method: GET", ":scheme: http", ":authority: web"}, "reset", ""},
		{"an empty path", []string{":method: GET", ":scheme: http", ":authority: web", ":path: "}, "reset|400", ""},
		{"a path without a slash", []string{":method: GET", ":scheme: http", ":authority: web", ":path: a"}, "reset|400", ""},
		{"a path that is a URL", []string{":method: GET", ":scheme: http", ":authority: web", ":path: http://other/x"}, "reset|400", ""},
		{"a path with a space", []string{":method: GET", ":scheme: http", ":authority: web", ":path: /a b"}, "reset|400", ""},
		{"a path with a line feed", []string{":method: GET", ":scheme: http", ":authority: web", ":path: /a\nb"}, "reset|400", ""},
		{"a path with a second request in it", []string{":method: GET", ":scheme: http", ":authority: web", ":path: / HTTP/1.1\r\nHost: web\r\n\r\nGET /smuggled"}, "reset|400", ""},
		{"two methods", and(":method: POST"), "reset", ""},
		{"two paths", and(":path: /other"), "reset", ""},
		{"an unknown pseudo header", and(":other: x"), "reset", ""},
		{"the status of an answer", and(":status: 200"), "reset", ""},
		{"a pseudo header behind others", []string{":method: GET", ":scheme: http", "x: y", ":authority: web", ":path: /"}, "reset", ""},
		{"a method with a space", []string{":method: GET /x", ":scheme: http", ":authority: web", ":path: /"}, "reset|400", ""},
		{"a method with a line feed", []string{":method: GET\r\nX: y", ":scheme: http", ":authority: web", ":path: /"}, "reset|400", ""},
		{"an authority with a user", []string{":method: GET", ":scheme: http", ":authority: user@web", ":path: /"}, "reset|400", ""},
		{"an authority with a line feed", []string{":method: GET", ":scheme: http", ":authority: web\r\nX: y", ":path: /"}, "reset|400", ""},
		{"an authority with a slash", []string{":method: GET", ":scheme: http", ":authority: web/x", ":path: /"}, "reset|400", ""},
		{"a name in capitals", and("X-Capital: x"), "reset", ""},
		{"a name with a space", and("x y: z"), "reset", ""},
		{"a name with a line feed", and("x\r\ny: z"), "reset", ""},
		{"a value with a line feed", and("x: a\r\nsmuggled: yes"), "reset", ""},
		{"a value with a null", and("x: a\x00b"), "reset", ""},
		{"connection", and("connection: close"), "reset|400", ""},
		{"keep-alive", and("keep-alive: 5"), "reset|400", ""},
		{"proxy-connection", and("proxy-connection: x"), "reset|400", ""},
		{"transfer-encoding", and("transfer-encoding: chunked"), "reset|400", ""},
		{"upgrade", and("upgrade: websocket"), "reset|400", ""},
		{"te for anything else", and("te: gzip"), "reset|400", ""},
		{"a length without a body", and("content-length: 5"), "reset|400", ""},
		{"two lengths", and("content-length: 0", "content-length: 1"), "reset|400", ""},
		{"a length that is no number", and("content-length: x"), "reset|400", ""},
		{"CONNECT", []string{":method: CONNECT", ":authority: web:80"}, "405", ""},
		{"CONNECT for a protocol", []string{":method: CONNECT", ":protocol: websocket", ":scheme: http", ":authority: web", ":path: /"}, "reset|400|405", ""},
		{"a header that is too long", and("x: " + strings.Repeat("a", 70<<10)), "431|reset|goaway", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			conn := r.rawTwo(t)
			got := conn.fate(conn.ask(true, c.lines...))
			if !strings.Contains("|"+c.want+"|", "|"+got+"|") {
				t.Errorf("%s, want %s", got, c.want)
			}
			var want []string
			if c.seen != "" && got == "200" {
				want = []string{c.seen}
			}
			if seen := s.take(); fmt.Sprint(seen) != fmt.Sprint(want) {
				t.Errorf("the backend saw %q, want %q", seen, want)
			}
		})
	}
}

// flood does something many times, until the connection is given up.
func (r *rig) flood(t *testing.T, n int, send func(*rawTwo, int) error) error {
	t.Helper()
	c := r.rawTwo(t)
	c.conn.(*net.TCPConn).SetWriteBuffer(64 << 10)
	ended := make(chan error, 1)
	go func() { // ends with the connection
		for {
			f, err := c.ReadFrame()
			if err != nil {
				ended <- err
				return
			}
			if g, ok := f.(*http2.GoAwayFrame); ok && g.ErrCode != http2.ErrCodeNo {
				ended <- fmt.Errorf("goaway %v", g.ErrCode)
				return
			}
		}
	}()
	for i := range n {
		if send(c, i) != nil {
			break
		}
	}
	select {
	case err := <-ended:
		return err
	case <-time.After(500 * time.Millisecond):
		c.conn.Close()
		return nil
	}
}

func TestFloodsAreSurvived(t *testing.T) {
	r := newRig(t)
	var mu sync.Mutex
	atOnce, most := 0, 0
	r.service("web", mesh.AppHTTP11, r.pod("web", backendtest.HTTP(func(w http.ResponseWriter, q *http.Request) {
		mu.Lock()
		atOnce++
		most = max(most, atOnce)
		mu.Unlock()
		defer func() { mu.Lock(); atOnce--; mu.Unlock() }()
		if q.URL.Path == "/slow" {
			select {
			case <-q.Context().Done():
			case <-time.After(time.Second):
			}
		}
	})))
	slow := []string{":method: GET", ":scheme: http", ":authority: web", ":path: /slow"}
	for _, c := range []struct {
		name  string
		n     int
		ended bool
		send  func(*rawTwo, int) error
	}{
		{"requests that are reset at once", 5000, false, func(c *rawTwo, _ int) error {
			return c.WriteRSTStream(c.ask(true, slow...), http2.ErrCodeCancel)
		}},
		{"continuations without end", 5000, true, func(c *rawTwo, i int) error {
			if i == 0 {
				return c.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: c.block(good...)})
			}
			return c.WriteContinuation(1, false, c.block("x: "+strings.Repeat("a", 1000)))
		}},
		{"more streams than are allowed", 2000, false, func(c *rawTwo, _ int) error { c.ask(true, slow...); return nil }},
		{"pings", 20_000, false, func(c *rawTwo, _ int) error { return c.WritePing(false, [8]byte{}) }},
		{"settings", 20_000, false, func(c *rawTwo, _ int) error {
			return c.WriteSettings(http2.Setting{ID: http2.SettingMaxFrameSize, Val: 1 << 15})
		}},
		{"empty DATA", 20_000, false, func(c *rawTwo, i int) error {
			if i == 0 {
				c.ask(false, ":method: POST", ":scheme: http", ":authority: web", ":path: /")
			}
			return c.WriteData(1, false, nil)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if err := r.flood(t, c.n, c.send); c.ended && err == nil {
				t.Error("the connection goes on")
			}
			if resp, _ := r.do(true, "GET /", ""); resp.StatusCode != 200 {
				t.Errorf("afterwards another client is answered %s", resp.Status)
			}
		})
	}
	mu.Lock()
	defer mu.Unlock()
	t.Logf("at most %d requests reached the backend at once", most)
	if most > 300 {
		t.Errorf("%d requests of one connection reached the backend at once", most)
	}
}

func TestSlowClientsAreEnded(t *testing.T) {
	r := newRig(t, EngineConfig{HeaderTimeout: 100 * time.Millisecond})
	r.service("web", mesh.AppHTTP11, r.pod("web", backendtest.Named("web")))
	for name, c := range map[string]struct{ first, then string }{
		"a head that does not come":        {"", ""},
		"a head that comes slowly":         {"GET / HTTP/1.1\r\nHo", "s"},
		"a second head that comes slowly":  {"GET / HTTP/1.1\r\nHost: web\r\n\r\nGET ", "/"},
		"a request line that comes slowly": {"G", "E"},
	} {
		conn, err := net.Dial("tcp", r.at)
		if err != nil {
			t.Fatal(err)
		}
		conn.SetDeadline(time.Now().Add(10 * time.Second))
		go func() { // ends with the connection
			for _, err := io.WriteString(conn, c.first); err == nil; _, err = io.WriteString(conn, c.then) {
				time.Sleep(20 * time.Millisecond)
			}
		}()
		start := time.Now()
		io.Copy(io.Discard, conn)
		if took := time.Since(start); took > 5*time.Second {
			t.Errorf("%s: ended after %v", name, took)
		}
		conn.Close()
	}
}
