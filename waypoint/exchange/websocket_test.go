package exchange

import (
	"bufio"
	"bytes"
	"compress/flate"
	"crypto/sha1"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/waypoint/backendtest"
)

// frame is one frame of RFC 6455, as it is written.
type frame struct {
	fin    bool
	rsv    byte // the three bits
	opcode byte
	data   []byte
}

const (
	opContinue = 0
	opText     = 1
	opBinary   = 2
	opClose    = 8
	opPing     = 9
	opPong     = 10
)

func (f frame) bytes(masked bool) []byte {
	first := f.rsv<<4 | f.opcode
	if f.fin {
		first |= 0x80
	}
	b := []byte{first}
	bit := byte(0)
	if masked {
		bit = 0x80
	}
	switch n := len(f.data); {
	case n < 126:
		b = append(b, bit|byte(n))
	case n < 1<<16:
		b = binary.BigEndian.AppendUint16(append(b, bit|126), uint16(n))
	default:
		b = binary.BigEndian.AppendUint64(append(b, bit|127), uint64(n))
	}
	if !masked {
		return append(b, f.data...)
	}
	mask := [4]byte{0xa5, 0x5a, 0x0f, 0xf0}
	b = append(b, mask[:]...)
	for i, c := range f.data {
		b = append(b, c^mask[i&3])
	}
	return b
}

func readFrame(r *bufio.Reader) (frame, error) {
	var head [2]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return frame{}, err
	}
	f := frame{fin: head[0]&0x80 != 0, rsv: head[0] >> 4 & 7, opcode: head[0] & 15}
	n := uint64(head[1] & 0x7f)
	switch n {
	case 126:
		var b [2]byte
		io.ReadFull(r, b[:])
		n = uint64(binary.BigEndian.Uint16(b[:]))
	case 127:
		var b [8]byte
		io.ReadFull(r, b[:])
		n = binary.BigEndian.Uint64(b[:])
	}
	var mask [4]byte
	if head[1]&0x80 != 0 {
		io.ReadFull(r, mask[:])
	}
	f.data = make([]byte, n)
	_, err := io.ReadFull(r, f.data)
	for i := range f.data {
		f.data[i] ^= mask[i&3]
	}
	return f, err
}

// socketEcho is a WebSocket server that gives frames back as they came, answers
// pings, and the close.
func socketEcho(w http.ResponseWriter, q *http.Request) {
	if !strings.EqualFold(q.Header.Get("Upgrade"), "websocket") || q.Header.Get("Connection") != "Upgrade" {
		http.Error(w, "no WebSocket", 400)
		return
	}
	c, b, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(err)
	}
	defer c.Close()
	sum := sha1.Sum([]byte(q.Header.Get("Sec-Websocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	fmt.Fprintf(c, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n", base64.StdEncoding.EncodeToString(sum[:]))
	for _, h := range []string{"Sec-Websocket-Extensions", "Sec-Websocket-Protocol"} {
		if v := q.Header.Get(h); v != "" {
			fmt.Fprintf(c, "%s: %s\r\n", h, v)
		}
	}
	io.WriteString(c, "\r\n")
	for {
		f, err := readFrame(b.Reader)
		if err != nil {
			return
		}
		if f.opcode == opPing {
			f.opcode = opPong
		}
		if _, err := c.Write(f.bytes(false)); err != nil || f.opcode == opClose {
			return
		}
	}
}

// socketCase is frames that a client sends and gets back, pings as pongs. Chop
// cuts what is written into pieces.
type socketCase struct {
	name string
	send []frame
	chop int

	header []string
}

func text(s string) frame { return frame{fin: true, opcode: opText, data: []byte(s)} }
func blob(n int) frame {
	return frame{fin: true, opcode: opBinary, data: bytes.Repeat([]byte{0xfe}, n)}
}
func ping(s string) frame           { return frame{fin: true, opcode: opPing, data: []byte(s)} }
func begin(op byte, s string) frame { return frame{opcode: op, data: []byte(s)} }
func more(s string) frame           { return frame{opcode: opContinue, data: []byte(s)} }
func last(s string) frame           { return frame{fin: true, opcode: opContinue, data: []byte(s)} }
func hangUp(code uint16, reason string) frame {
	return frame{fin: true, opcode: opClose, data: append(binary.BigEndian.AppendUint16(nil, code), reason...)}
}

func deflated(s string) frame {
	var b bytes.Buffer
	w, _ := flate.NewWriter(&b, 9)
	io.WriteString(w, s)
	w.Flush()
	return frame{fin: true, rsv: 4, opcode: opText, data: bytes.TrimSuffix(b.Bytes(), []byte{0, 0, 0xff, 0xff})}
}

func socketCases() (all []socketCase) {
	add := func(name string, send ...frame) { all = append(all, socketCase{name: name, send: send}) }
	sizes := []int{0, 1, 125, 126, 127, 128, 1000, 4095, 4096, 16383, 16384, 65535, 65536, 65537, 262144, 1 << 20}
	for _, n := range sizes { // 1: framing
		add(fmt.Sprintf("text of %d bytes", n), text(strings.Repeat("*", n)))
		add(fmt.Sprintf("binary of %d bytes", n), blob(n))
	}
	for _, chop := range []int{1, 2, 3, 7, 997, 1460, 4096} { // 1: the same in pieces
		all = append(all,
			socketCase{name: fmt.Sprintf("text in pieces of %d", chop), send: []frame{text(strings.Repeat("*", 5000))}, chop: chop},
			socketCase{name: fmt.Sprintf("many frames in pieces of %d", chop), send: []frame{text("a"), blob(126), ping("p"), text(""), blob(2000)}, chop: chop})
	}
	// 2: pings and pongs.
	add("a ping without payload", ping(""))
	add("a ping with payload", ping("Hello, world!"))
	add("a ping with binary payload", ping("\x00\xff\xfe\xfd\xfc\xfb\x00\xff"))
	add("a ping with 125 bytes", ping(strings.Repeat("\xfe", 125)))
	add("ten pings", ping("0"), ping("1"), ping("2"), ping("3"), ping("4"), ping("5"), ping("6"), ping("7"), ping("8"), ping("9"))
	add("a pong that nobody asked for", frame{fin: true, opcode: opPong, data: []byte("unsolicited")})
	add("a pong, then a ping", frame{fin: true, opcode: opPong, data: []byte("x")}, ping("y"))
	// 3: reserved bits, which extensions use.
	for rsv := byte(1); rsv < 8; rsv++ {
		add(fmt.Sprintf("reserved bits %03b", rsv), frame{fin: true, rsv: rsv, opcode: opText, data: []byte("reserved")})
	}
	// 4: reserved opcodes.
	for _, op := range []byte{3, 4, 5, 6, 7, 11, 12, 13, 14, 15} {
		add(fmt.Sprintf("opcode %d", op), frame{fin: true, opcode: op, data: []byte("reserved opcode")})
	}
	// 5: fragments.
	add("a text in two fragments", begin(opText, "frag"), last("ment"))
	add("a binary in three fragments", begin(opBinary, "a"), more("b"), last("c"))
	add("a ping between fragments", begin(opText, "frag"), ping("between"), last("ment"))
	add("pings between many fragments", begin(opText, "1"), ping("a"), more("2"), ping("b"), more("3"), ping("c"), last("4"))
	add("empty fragments", begin(opText, ""), more(""), last(""))
	add("a fragmented ping", frame{opcode: opPing, data: []byte("half")}, frame{fin: true, opcode: opContinue, data: []byte("other")})
	add("a continuation of nothing", last("nothing"))
	add("a message within fragments", begin(opText, "a"), text("within"), last("b"))
	for _, n := range []int{64, 256, 1024, 4096, 16384} { // 9: large messages in fragments
		var f []frame
		for i := range 64 {
			op := byte(opContinue)
			if i == 0 {
				op = opBinary
			}
			f = append(f, frame{fin: i == 63, opcode: op, data: bytes.Repeat([]byte{byte(i)}, n)})
		}
		add(fmt.Sprintf("64 fragments of %d bytes", n), f...)
	}
	// 6: what is and is not UTF-8 is for the ends.
	for _, s := range []string{"Hello-µ@ßöäüàá-UTF-8!!", "κόσμε", "\xce\xba\xe1\xbd\xb9", "\xf0\x90\x80\x80", "\xed\xa0\x80", "\xc0\xaf", "\xff", "\xf4\x90\x80\x80", "\xef\xbf\xbf"} {
		add(fmt.Sprintf("text %+q", s), text(s))
	}
	add("a character cut by a fragment", begin(opText, "\xce"), last("\xba"))
	// 7: closes.
	add("a close without a code", frame{fin: true, opcode: opClose})
	add("a close with one byte", frame{fin: true, opcode: opClose, data: []byte{3}})
	for _, code := range []uint16{1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999, 0, 999, 1004, 1005, 1006, 1012, 1015, 2999, 5000, 65535} {
		add(fmt.Sprintf("a close with code %d", code), hangUp(code, "reason"))
	}
	add("a close with 123 bytes of reason", hangUp(1000, strings.Repeat("*", 123)))
	add("a close with a reason that is not UTF-8", hangUp(1000, "\xce\xba\xff"))
	add("a text, then a close", text("last"), hangUp(1000, ""))
	add("a close in the middle of fragments", begin(opText, "half"), hangUp(1000, ""))
	// 9: many messages.
	for _, n := range []int{0, 16, 256, 4096} {
		var f []frame
		for range 500 {
			f = append(f, blob(n))
		}
		add(fmt.Sprintf("500 messages of %d bytes", n), f...)
	}
	// 12, 13: compression is the ends' matter.
	for _, offer := range []string{"permessage-deflate", "permessage-deflate; client_max_window_bits", "permessage-deflate; server_no_context_takeover", "x-webkit-deflate-frame, permessage-deflate; server_max_window_bits=9"} {
		all = append(all, socketCase{name: "compressed, " + offer, send: []frame{deflated(strings.Repeat("compress me ", 100))}, header: []string{"Sec-WebSocket-Extensions: " + offer}})
	}
	all = append(all, socketCase{name: "a protocol on top", send: []frame{text("x")}, header: []string{"Sec-WebSocket-Protocol: chat, superchat"}})
	return all
}

func TestWebSocketCases(t *testing.T) {
	cases := socketCases()
	if len(cases) < 100 {
		t.Fatalf("only %d cases", len(cases))
	}
	t.Logf("%d cases", len(cases))
	r := newRig(t)
	r.service("web", mesh.AppHTTP11, r.pod("web", backendtest.HTTP(socketEcho)))
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			conn, answers := r.socket(t, c.header...)
			defer conn.Close()
			var all []byte
			for _, f := range c.send {
				all = append(all, f.bytes(true)...)
			}
			go func() { // ends with the connection
				for len(all) > 0 {
					n := len(all)
					if c.chop > 0 {
						n = min(n, c.chop)
					}
					if _, err := conn.Write(all[:n]); err != nil {
						return
					}
					all = all[n:]
				}
			}()
			closed := false
			for i, want := range c.send {
				if want.opcode == opPing {
					want.opcode = opPong
				}
				got, err := readFrame(answers)
				if err != nil || got.fin != want.fin || got.rsv != want.rsv || got.opcode != want.opcode || !bytes.Equal(got.data, want.data) {
					t.Fatalf("frame %d came back as %v/%d/%d with %d bytes, %v", i, got.fin, got.rsv, got.opcode, len(got.data), err)
				}
				closed = closed || want.opcode == opClose
			}
			if !closed {
				conn.Write(hangUp(1000, "done").bytes(true))
				if f, err := readFrame(answers); err != nil || f.opcode != opClose {
					t.Fatalf("the close came back as %+v, %v", f, err)
				}
			}
			if _, err := answers.ReadByte(); err != io.EOF {
				t.Errorf("after the close: %v, want the end", err)
			}
		})
	}
}

// socket changes a connection to WebSocket.
func (r *rig) socket(t *testing.T, header ...string) (net.Conn, *bufio.Reader) {
	t.Helper()
	conn, err := net.Dial("tcp", r.at)
	if err != nil {
		t.Fatal(err)
	}
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	fmt.Fprintf(conn, "GET /chat HTTP/1.1\r\nHost: web\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n%s\r\n",
		strings.Join(append(header, ""), "\r\n"))
	answers := bufio.NewReaderSize(conn, 64<<10)
	resp, err := http.ReadResponse(answers, nil)
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != 101 || resp.Header.Get("Upgrade") != "websocket" || resp.Header.Get("Sec-Websocket-Accept") != "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" {
		t.Fatalf("%s %v", resp.Status, resp.Header)
	}
	for _, h := range header {
		if k, v, _ := strings.Cut(h, ": "); resp.Header.Get(k) != v {
			t.Errorf("%s: %q", k, resp.Header.Get(k))
		}
	}
	return conn, answers
}

func TestABackendThatSpeaksFirstOnAWebSocketIsHeard(t *testing.T) {
	r := newRig(t)
	r.service("web", mesh.AppHTTP11, r.pod("web", backendtest.HTTP(func(w http.ResponseWriter, q *http.Request) {
		c, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			panic(err)
		}
		defer c.Close()
		// In one breath with the answer.
		io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"+string(text("first").bytes(false)))
	})))
	conn, answers := r.socket(t)
	defer conn.Close()
	if f, err := readFrame(answers); err != nil || string(f.data) != "first" {
		t.Errorf("%+v, %v", f, err)
	}
	conn.Close()
	if e := r.last(); e.Status != 101 {
		t.Errorf("record %+v", e)
	}
}

func TestAChangeOfProtocolThatABackendRefusesIsAnAnswer(t *testing.T) {
	r := newRig(t)
	r.service("web", mesh.AppHTTP11, r.pod("web", backendtest.HTTP(func(w http.ResponseWriter, q *http.Request) {
		w.WriteHeader(426)
		io.WriteString(w, "no")
	})))
	resp, body := r.do(false, "GET /", "", "Connection: Upgrade", "Upgrade: websocket")
	if resp.StatusCode != 426 || body != "no" || !resp.Close {
		t.Errorf("%s %q, close %v", resp.Status, body, resp.Close)
	}
}

func TestAnAnswerThatChangesTheProtocolUnaskedIsRefused(t *testing.T) {
	r := newRig(t)
	r.service("web", mesh.AppHTTP11, r.pod("web", backendtest.TCP(func(c *net.TCPConn) {
		defer c.Close()
		io.ReadAtLeast(c, make([]byte, 4096), 1)
		io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: other\r\n\r\n")
	})))
	for _, header := range [][]string{nil, {"Connection: Upgrade", "Upgrade: websocket"}} {
		if resp, _ := r.do(false, "GET /", "", header...); resp.StatusCode != 502 {
			t.Errorf("asked with %v: %s", header, resp.Status)
		}
	}
}
