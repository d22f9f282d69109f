package exchange

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/waypoint/backendtest"
)

// framingCase is bytes on a connection: the statuses they are answered with,
// what the backend sees of them as "METHOD host path?query body", and whether
// the connection is closed then. Where it is not, a last request shows that
// nothing was left behind.
type framingCase struct {
	name, raw string
	statuses  []int
	seen      []string
	closes    bool
}

// refused is a case that is answered 400 and closed, and seen by nobody.
func refused(name, raw string) framingCase { return framingCase{name, raw, []int{400}, nil, true} }

// passed is a case that is seen as one request.
func passed(name, raw string, seen ...string) framingCase {
	statuses := make([]int, len(seen))
	for i := range statuses {
		statuses[i] = 200
	}
	return framingCase{name, raw, statuses, seen, false}
}

const smuggled = "GET /smuggled HTTP/1.1\r\nHost: web\r\n\r\n"

// with is a POST with header lines and a body.
func with(header, body string) string {
	return "POST / HTTP/1.1\r\nHost: web\r\n" + header + "\r\n\r\n" + body
}

func framingCases() []framingCase {
	long := strings.Repeat("a", 70<<10)
	return []framingCase{
		// What is well-formed.
		passed("a request without a body", "GET / HTTP/1.1\r\nHost: web\r\n\r\n", "GET web / "),
		passed("a body with a length", with("Content-Length: 4", "body"), "POST web / body"),
		passed("a body of length 0", with("Content-Length: 0", ""), "POST web / "),
		passed("a body in chunks", with("Transfer-Encoding: chunked", "3\r\nbod\r\n1\r\ny\r\n0\r\n\r\n"), "POST web / body"),
		passed("chunks in capitals", with("Transfer-Encoding: CHUNKED", "A\r\n0123456789\r\n0\r\n\r\n"), "POST web / 0123456789"),
		passed("a chunk with an extension", with("Transfer-Encoding: chunked", "4;a=b\r\nbody\r\n0;x\r\n\r\n"), "POST web / body"),
		passed("a chunk with a trailer", with("Transfer-Encoding: chunked\r\nTrailer: X-T", "4\r\nbody\r\n0\r\nX-T: t\r\n\r\n"), "POST web / body"),
		passed("two requests in one breath", "GET /1 HTTP/1.1\r\nHost: web\r\n\r\nGET /2 HTTP/1.1\r\nHost: web\r\n\r\n", "GET web /1 ", "GET web /2 "),
		passed("a body that looks like a request", with(fmt.Sprintf("Content-Length: %d", len(smuggled)), smuggled), "POST web / "+smuggled),
		passed("chunks that look like a request", with("Transfer-Encoding: chunked", fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", len(smuggled), smuggled)), "POST web / "+smuggled),
		passed("a GET with a body", "GET / HTTP/1.1\r\nHost: web\r\nContent-Length: 4\r\n\r\nbody", "GET web / body"),
		passed("a tab and spaces around a value", "GET / HTTP/1.1\r\nHost: \t web \t\r\n\r\n", "GET web / "),
		passed("an empty value", "GET / HTTP/1.1\r\nHost: web\r\nX-Empty:\r\n\r\n", "GET web / "),
		passed("bytes beyond ASCII in a value", "GET / HTTP/1.1\r\nHost: web\r\nX: \xc3\xa4\r\n\r\n", "GET web / "),
		passed("the target in absolute form wins over Host", "GET http://other/p HTTP/1.1\r\nHost: web\r\n\r\n", "GET other /p "),
		passed("a target with a user in it", "GET http://user@other/p HTTP/1.1\r\nHost: other\r\n\r\n", "GET other /p "),
		passed("OPTIONS for the whole server", "OPTIONS * HTTP/1.1\r\nHost: web\r\n\r\n", "OPTIONS web * "),
		passed("a query with anything in it", "GET /?a=/../%2e&b=%22 HTTP/1.1\r\nHost: web\r\n\r\n", "GET web /?a=/../%2e&b=%22 "),
		passed("a path that is made normal", "GET //a/./b/../%63 HTTP/1.1\r\nHost: web\r\n\r\n", "GET web /a/c "),
		passed("a path that climbs above the root", "GET /../../etc HTTP/1.1\r\nHost: web\r\n\r\n", "GET web /etc "),
		passed("an escaped slash stays data", "GET /a%2fb HTTP/1.1\r\nHost: web\r\n\r\n", "GET web /a%2Fb "),
		passed("a method of one's own", "PROPFIND / HTTP/1.1\r\nHost: web\r\n\r\n", "PROPFIND web / "),
		{"HTTP/1.0", "GET / HTTP/1.0\r\nHost: web\r\n\r\n", []int{200}, []string{"GET web / "}, true},
		{"HTTP/1.0 without a host gets the service's", "GET / HTTP/1.0\r\n\r\n", []int{200}, []string{"GET web.shop.svc.cluster.local / "}, true},
		{"a client that closes", "GET / HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n" + smuggled, []int{200}, []string{"GET web / "}, true},

		// Two lengths.
		refused("two lengths that differ", with("Content-Length: 4\r\nContent-Length: 5", "body"+smuggled)),
		refused("two lengths that are equal", with("Content-Length: 4\r\nContent-Length: 4", "body")),
		refused("a list of lengths", with("Content-Length: 4, 4", "body")),
		refused("a length beside chunks", with("Content-Length: 4\r\nTransfer-Encoding: chunked", "0\r\n\r\n"+smuggled)),
		refused("chunks beside a length", with("Transfer-Encoding: chunked\r\nContent-Length: 44", "0\r\n\r\n"+smuggled)),
		refused("a length of 0 beside chunks", with("Content-Length: 0\r\nTransfer-Encoding: chunked", "0\r\n\r\n")),
		refused("a negative length", with("Content-Length: -1", "")),
		refused("a length with a sign", with("Content-Length: +4", "body")),
		refused("a length in hexadecimal", with("Content-Length: 0x4", "body")),
		refused("a length with a space within", with("Content-Length: 4 4", "body")),
		refused("a length beyond any number", with("Content-Length: 99999999999999999999", "")),
		refused("an empty length", with("Content-Length: ", "body")),
		refused("a length with a comma", with("Content-Length: 4,", "body")),
		refused("a length with a fraction", with("Content-Length: 4.0", "body")),

		// Codings.
		refused("chunked twice", with("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", "0\r\n\r\n")),
		refused("chunked in a list", with("Transfer-Encoding: gzip, chunked", "0\r\n\r\n")),
		refused("chunked not at the end", with("Transfer-Encoding: chunked, identity", "0\r\n\r\n"+smuggled)),
		refused("an unknown coding", with("Transfer-Encoding: xchunked", "0\r\n\r\n")),
		refused("identity", with("Transfer-Encoding: identity\r\nContent-Length: 4", "body")),
		refused("a coding with a quote", with("Transfer-Encoding: \"chunked\"", "0\r\n\r\n")),
		refused("an empty coding", with("Transfer-Encoding: ", "0\r\n\r\n")),
		refused("a coding with a control character", with("Transfer-Encoding: \x0bchunked", "0\r\n\r\n"+smuggled)),
		refused("chunks in HTTP/1.0", "POST / HTTP/1.0\r\nHost: web\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),

		// Names and lines.
		refused("a space before the colon", with("Content-Length : 4", "body"+smuggled)),
		refused("a tab before the colon", with("Transfer-Encoding\t: chunked", "0\r\n\r\n"+smuggled)),
		refused("a folded line", "GET / HTTP/1.1\r\nHost: web\r\nX: a\r\n b\r\n\r\n"),
		refused("a folded line with a tab", "GET / HTTP/1.1\r\nHost: web\r\nX: a\r\n\tb\r\n\r\n"),
		refused("a folded coding", with("Transfer-Encoding:\r\n chunked", "0\r\n\r\n"+smuggled)),
		refused("a first header with a space before it", "GET / HTTP/1.1\r\n Host: web\r\n\r\n"),
		refused("a header without a colon", "GET / HTTP/1.1\r\nHost: web\r\nnonsense\r\n\r\n"),
		refused("a header without a name", "GET / HTTP/1.1\r\nHost: web\r\n: x\r\n\r\n"),
		refused("a name with a bracket", "GET / HTTP/1.1\r\nHost: web\r\nX[]: x\r\n\r\n"),
		refused("a name beyond ASCII", "GET / HTTP/1.1\r\nHost: web\r\nX\xc3\xa4: x\r\n\r\n"),
		refused("a bare line feed after a header", "GET / HTTP/1.1\r\nHost: web\nX: x\r\n\r\n"),
		refused("a bare line feed after the request line", "GET / HTTP/1.1\nHost: web\r\n\r\n"),
		refused("a head that ends with a bare line feed", "GET / HTTP/1.1\r\nHost: web\r\n\n"),
		refused("a bare carriage return in a value", "GET / HTTP/1.1\r\nHost: web\r\nX: a\rb\r\n\r\n"),
		refused("a bare carriage return in the target", "GET /a\rb HTTP/1.1\r\nHost: web\r\n\r\n"),
		refused("a null in a value", "GET / HTTP/1.1\r\nHost: web\r\nX: a\x00b\r\n\r\n"),
		refused("a null in a name", "GET / HTTP/1.1\r\nHost: web\r\nX\x00: b\r\n\r\n"),
		refused("a delete character in a value", "GET / HTTP/1.1\r\nHost: web\r\nX: \x7f\r\n\r\n"),

		// Request lines.
		refused("an empty line first", "\r\nGET / HTTP/1.1\r\nHost: web\r\n\r\n"),
		refused("two spaces before the target", "GET  / HTTP/1.1\r\nHost: web\r\n\r\n"),
		refused("two spaces behind the target", "GET /  HTTP/1.1\r\nHost: web\r\n\r\n"),
		refused("a tab behind the method", "GET\t/ HTTP/1.1\r\nHost: web\r\n\r\n"),
		refused("a space in the target", "GET /a b HTTP/1.1\r\nHost: web\r\n\r\n"),
		refused("a space before the method", " GET / HTTP/1.1\r\nHost: web\r\n\r\n"),
		refused("a space at the end", "GET / HTTP/1.1 \r\nHost: web\r\n\r\n"),
		refused("no version", "GET /\r\nHost: web\r\n\r\n"),
		refused("a method that is no token", "GE(T / HTTP/1.1\r\nHost: web\r\n\r\n"),
		refused("no method", "/ HTTP/1.1\r\nHost: web\r\n\r\n"),
		refused("a version that is none", "GET / HTTP/x.y\r\nHost: web\r\n\r\n"),
		refused("a version in small letters", "GET / http/1.1\r\nHost: web\r\n\r\n"),
		{"HTTP/3.0", "GET / HTTP/3.0\r\nHost: web\r\n\r\n", []int{505}, nil, true},
		refused("a preface of HTTP/2 that is none", "PRI  * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
		refused("a target without a slash", "GET a HTTP/1.1\r\nHost: web\r\n\r\n"),
		refused("a target with a broken escape", "GET /%zz HTTP/1.1\r\nHost: web\r\n\r\n"),
		refused("a target with half an escape", "GET /%4 HTTP/1.1\r\nHost: web\r\n\r\n"),
		{"CONNECT", "CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n", []int{405}, nil, true},

		// Hosts.
		refused("no host", "GET / HTTP/1.1\r\n\r\n"),
		refused("two hosts", "GET / HTTP/1.1\r\nHost: web\r\nHost: other\r\n\r\n"),
		refused("two equal hosts", "GET / HTTP/1.1\r\nHost: web\r\nHost: web\r\n\r\n"),
		refused("a host with a slash", "GET / HTTP/1.1\r\nHost: web/x\r\n\r\n"),
		refused("a host with a space", "GET / HTTP/1.1\r\nHost: we b\r\n\r\n"),
		refused("a host with a user", "GET / HTTP/1.1\r\nHost: user@web\r\n\r\n"),

		// Chunks. The backend may see the beginning of what then breaks.
		{"a chunk longer than it says", with("Transfer-Encoding: chunked", "3\r\nbody\r\n0\r\n\r\n"), []int{400}, nil, true},
		{"a chunk shorter than it says", with("Transfer-Encoding: chunked", "5\r\nbody\r\n0\r\n\r\n"), []int{400}, nil, true},
		{"a size that is no number", with("Transfer-Encoding: chunked", "x\r\nbody\r\n0\r\n\r\n"), []int{400}, nil, true},
		{"a size with a prefix", with("Transfer-Encoding: chunked", "0x4\r\nbody\r\n0\r\n\r\n"), []int{400}, nil, true},
		{"a size with a sign", with("Transfer-Encoding: chunked", "+4\r\nbody\r\n0\r\n\r\n"), []int{400}, nil, true},
		{"a negative size", with("Transfer-Encoding: chunked", "-4\r\nbody\r\n0\r\n\r\n"), []int{400}, nil, true},
		{"a size beyond any number", with("Transfer-Encoding: chunked", "ffffffffffffffffff\r\nbody\r\n0\r\n\r\n"), []int{400}, nil, true},
		{"a size with a space before it", with("Transfer-Encoding: chunked", " 4\r\nbody\r\n0\r\n\r\n"), []int{400}, nil, true},
		{"a size with an underscore", with("Transfer-Encoding: chunked", "1_0\r\nbody\r\n0\r\n\r\n"), []int{400}, nil, true},
		{"an empty size", with("Transfer-Encoding: chunked", "\r\nbody\r\n0\r\n\r\n"), []int{400}, nil, true},
		{"a size that ends with a bare line feed", with("Transfer-Encoding: chunked", "4\nbody\r\n0\r\n\r\n"), []int{400}, nil, true},
		{"a chunk that ends with a bare line feed", with("Transfer-Encoding: chunked", "4\r\nbody\n0\r\n\r\n"), []int{400}, nil, true},
		{"an extension with a bare line feed", with("Transfer-Encoding: chunked", "4;a\nb\r\nbody\r\n0\r\n\r\n"), []int{400}, nil, true},
		{"an extension without end", with("Transfer-Encoding: chunked", "4;"+long+"\r\nbody\r\n0\r\n\r\n"), []int{400}, nil, true},
		{"a trailer that is a length", with("Transfer-Encoding: chunked", "4\r\nbody\r\n0\r\nContent-Length: 9\r\n\r\n"), []int{400}, nil, true},
		{"a trailer that is a host", with("Transfer-Encoding: chunked", "4\r\nbody\r\n0\r\nHost: x\r\n\r\n"), []int{400}, nil, true},
		{"a trailer that is folded", with("Transfer-Encoding: chunked", "4\r\nbody\r\n0\r\nX: x\r\n y\r\n\r\n"), []int{400}, nil, true},

		// Sizes.
		{"a target that is too long", "GET /" + long + " HTTP/1.1\r\nHost: web\r\n\r\n", []int{431}, nil, true},
		{"a header that is too long", "GET / HTTP/1.1\r\nHost: web\r\nX: " + long + "\r\n\r\n", []int{431}, nil, true},
		{"too many headers", "GET / HTTP/1.1\r\nHost: web\r\n" + strings.Repeat("X: x\r\n", 20_000) + "\r\n", []int{431}, nil, true},

		// The second request of a connection is looked at like the first.
		{"a bad request behind a good one", "GET /1 HTTP/1.1\r\nHost: web\r\n\r\nGET /2 HTTP/1.1\r\nHost : web\r\n\r\n", []int{200, 400}, []string{"GET web /1 "}, true},
		{"a bad request behind a body", with("Content-Length: 4", "body") + with("Content-Length: 1\r\nContent-Length: 2", "xx"), []int{200, 400}, []string{"POST web / body"}, true},
		{"HTTP/2's preface behind a request", "GET /1 HTTP/1.1\r\nHost: web\r\n\r\nPRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", []int{200, 400}, []string{"GET web /1 "}, true},
		// A change of protocol that nobody makes ends the connection.
		{"a request behind a change to HTTP/2 is a request", "GET /1 HTTP/1.1\r\nHost: web\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAA\r\n\r\nGET /2 HTTP/1.1\r\nHost: web\r\n\r\n", []int{200, 200}, []string{"GET web /1 ", "GET web /2 "}, false},
		{"bytes behind a change that is not made", "GET /1 HTTP/1.1\r\nHost: web\r\nConnection: Upgrade\r\nUpgrade: chat\r\n\r\nGET /2 HTTP/1.1\r\nHost : web\r\n\r\n", []int{200}, []string{"GET web /1 "}, true},
	}
}

// seeing is a backend that notes what it is asked.
type seeing struct {
	mu   sync.Mutex
	seen []string
}

func (s *seeing) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	b, err := io.ReadAll(q.Body)
	if err != nil {
		return // the request was not whole
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seen = append(s.seen, fmt.Sprintf("%s %s %s %s", q.Method, q.Host, q.RequestURI, b))
}

func (s *seeing) take() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	seen := s.seen
	s.seen = nil
	return seen
}

func TestFramingCases(t *testing.T) {
	r, s := newRig(t), &seeing{}
	r.service("web", mesh.AppHTTP11, r.pod("web", backendtest.HTTP(s.ServeHTTP)))
	cases := framingCases()
	if len(cases) < 60 {
		t.Fatalf("only %d cases", len(cases))
	}
	t.Logf("%d cases", len(cases))
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			for _, slow := range []bool{false, true} { // at once, and byte by byte
				if slow && len(c.raw) > 1000 {
					continue
				}
				statuses, closed := r.statuses(t, c, slow)
				want := c.seen
				if !c.closes {
					want = append(want[:len(want):len(want)], "GET web /end ")
				}
				if d := cmp.Diff(c.statuses, statuses); d != "" || closed != c.closes {
					t.Errorf("slow %v: closed %v, statuses (-want +got):\n%s", slow, closed, d)
				}
				if d := cmp.Diff(want, s.take()); d != "" {
					t.Errorf("slow %v: the backend saw (-want +got):\n%s", slow, d)
				}
			}
		})
	}
}

// statuses sends a case and reads its answers.
func (r *rig) statuses(t *testing.T, c framingCase, slow bool) (statuses []int, closed bool) {
	t.Helper()
	conn, err := net.Dial("tcp", r.at)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	go func() {
		if !slow {
			io.WriteString(conn, c.raw)
			return
		}
		for i := range len(c.raw) {
			if _, err := conn.Write([]byte{c.raw[i]}); err != nil {
				return
			}
		}
	}()
	answers := bufio.NewReader(conn)
	for range len(c.statuses) {
		a, err := http.ReadResponse(answers, nil)
		if err != nil {
			return statuses, true
		}
		io.Copy(io.Discard, a.Body)
		statuses = append(statuses, a.StatusCode)
	}
	if !c.closes {
		io.WriteString(conn, "GET /end HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n")
		if a, err := http.ReadResponse(answers, nil); err != nil || a.StatusCode != 200 {
			t.Errorf("the last request: %v", err)
			return statuses, true
		}
	}
	rest, _ := io.ReadAll(answers)
	if len(rest) > 0 {
		t.Errorf("more came: %.200q", rest)
	}
	return statuses, c.closes
}
