package exchange

import (
	"bytes"
	"errors"
	"net/http"
	"strconv"
	"strings"

	"golang.org/x/net/http/httpguts"
)

// framing reads along with net/http's server in HTTP/1.1, and stops what that
// would let pass and others read in another way: two lengths, a length beside
// chunks, folded lines, bare line feeds, names with a space behind them. Where
// two programs do not agree on the end of a request, one smuggles another past
// a policy (RFC 9112 11.2).
//
// It owns the notion of where a message ends; its errors end the connection.
type framing struct {
	state frameState
	line  []byte // what came of the current line
	left  int64  // of a body or chunk
	head  head
	begun bool // a line has come
	// maxLine bounds a line that is looked at as a whole; what is longer is left
	// to net/http, which answers 431.
	maxLine int
}

type frameState uint8

const (
	inRequestLine frameState = iota
	inHeader
	inBody
	inChunkSize
	inChunk
	inChunkEnd
	inTrailer
	// inRaw is what is not HTTP/1.1 any more: HTTP/2, or after a wish to change
	// the protocol. Whoever does not grant that wish closes the connection.
	inRaw
	// inTooLong is a head that is too long.
	inTooLong
)

// head is what is known of the current request's.
type head struct {
	old             bool // HTTP/1.0
	length          int64
	lengths, codes  int // how many fields
	hosts           int
	upgrade, wishes bool
}

// frameError is a violation. Within a head, the rest of it is replaced by what
// net/http answers 400.
type frameError struct {
	text   string
	inHead bool
}

func (e *frameError) Error() string { return "malformed request: " + e.text }

// feed takes bytes and says how many of them may go on.
func (f *framing) feed(b []byte) (int, error) {
	for i := 0; i < len(b); {
		switch f.state {
		case inRaw, inTooLong:
			return len(b), nil
		case inBody, inChunk:
			n := min(f.left, int64(len(b)-i))
			i += int(n)
			if f.left -= n; f.left == 0 {
				f.bodyOver()
			}
			continue
		case inRequestLine, inHeader, inChunkSize, inChunkEnd, inTrailer:
		}
		end := bytes.IndexByte(b[i:], '\n')
		if end < 0 {
			f.line = append(f.line, b[i:]...)
			return len(b), f.checkLong()
		}
		f.line = append(f.line, b[i:i+end]...)
		if err := f.endLine(); err != nil {
			return i + end, err
		}
		f.line = f.line[:0]
		i += end + 1
	}
	return len(b), nil
}

// maxChunkLine bounds a chunk's size with its extensions.
const maxChunkLine = 4 << 10

func (f *framing) checkLong() error {
	switch {
	case (f.state == inChunkSize || f.state == inChunkEnd) && len(f.line) > maxChunkLine:
		return f.bad("a chunk's size is too long")
	case len(f.line) > f.maxLine && f.state == inTrailer:
		return f.bad("trailers are too long")
	case len(f.line) > f.maxLine:
		f.state = inTooLong
	}
	return nil
}

func (f *framing) bad(text string) error {
	return &frameError{text, f.state == inRequestLine || f.state == inHeader}
}

func (f *framing) bodyOver() {
	if f.state == inChunk {
		f.state = inChunkEnd
		return
	}
	f.state = inRequestLine
}

// endLine looks at a whole line, which must end with a carriage return.
func (f *framing) endLine() error {
	line, ok := bytes.CutSuffix(f.line, []byte("\r"))
	switch {
	case !ok:
		return f.bad("a line ends without a carriage return")
	case len(line) > f.maxLine && f.state != inTrailer:
		f.state = inTooLong
		return nil
	}
	for _, c := range line {
		if c < ' ' && c != '\t' || c == 0x7f {
			return f.bad("a control character")
		}
	}
	switch f.state {
	case inRequestLine:
		return f.requestLine(line)
	case inHeader:
		return f.headerLine(line)
	case inChunkSize:
		return f.chunkSize(line)
	case inChunkEnd:
		if len(line) > 0 {
			return f.bad("a chunk is longer than it says")
		}
		f.state = inChunkSize
	case inTrailer:
		return f.trailerLine(line)
	case inBody, inChunk, inRaw, inTooLong:
	}
	return nil
}

func (f *framing) requestLine(line []byte) error {
	first := !f.begun
	if f.begun = true; first && string(line) == "PRI * HTTP/2.0" {
		f.state = inRaw
		return nil
	}
	parts := bytes.Split(line, []byte(" "))
	if len(parts) != 3 || len(parts[1]) == 0 || bytes.IndexByte(line, '\t') >= 0 {
		return f.bad("the request line is not method, target and version with one space between")
	}
	if !isToken(parts[0]) {
		return f.bad("the method is no token")
	}
	f.head = head{length: -1, old: string(parts[2]) == "HTTP/1.0"}
	f.state = inHeader
	return nil
}

// headerLine takes what decides about the end of the message.
func (f *framing) headerLine(line []byte) error {
	if len(line) == 0 {
		return f.headOver()
	}
	name, value, err := f.field(line)
	if err != nil {
		return err
	}
	h := &f.head
	switch {
	case is(name, "Content-Length"):
		h.lengths++
		if h.length, err = length(string(value)); err != nil {
			return f.bad("the length is no number")
		}
	case is(name, "Transfer-Encoding"):
		h.codes++
		if !strings.EqualFold(string(value), "chunked") {
			return f.bad("a transfer coding that is not chunked")
		}
	case is(name, "Host"):
		h.hosts++
	case is(name, "Upgrade"):
		h.upgrade = h.upgrade || passesUpgrade(string(value))
	case is(name, "Connection"):
		h.wishes = h.wishes || httpguts.HeaderValuesContainsToken([]string{string(value)}, "upgrade")
	}
	return nil
}

// is compares names as HTTP does.
func is(name []byte, want string) bool {
	return len(name) == len(want) && strings.EqualFold(string(name), want)
}

// field takes a line apart; name and value are parts of it.
func (f *framing) field(line []byte) (name, value []byte, err error) {
	if line[0] == ' ' || line[0] == '\t' {
		return nil, nil, f.bad("a folded line")
	}
	n, v, ok := bytes.Cut(line, []byte(":"))
	if !ok || !isToken(n) {
		return nil, nil, f.bad("the name of a header is no token")
	}
	return n, bytes.Trim(v, " \t"), nil
}

// length is stricter than ParseInt: no sign, no space, one number.
func length(text string) (int64, error) {
	for i := range len(text) {
		if text[i] < '0' || text[i] > '9' {
			return 0, errors.New("no number")
		}
	}
	return strconv.ParseInt(text, 10, 64)
}

func (f *framing) headOver() error {
	if cap(f.line) > 4<<10 {
		f.line = nil // hold little while a body is carried
	}
	h := &f.head
	switch {
	case h.lengths > 1 || h.codes > 1:
		return f.bad("the length is told twice")
	case h.lengths > 0 && h.codes > 0:
		return f.bad("a length beside chunks")
	case h.codes > 0 && h.old:
		return f.bad("chunks in HTTP/1.0")
	case h.hosts > 1 || h.hosts == 0 && !h.old:
		return f.bad("not exactly one host")
	case h.upgrade && h.wishes && !h.old:
		f.state = inRaw
	case h.codes > 0:
		f.state = inChunkSize
	case h.length > 0:
		f.state, f.left = inBody, h.length
	default:
		f.state = inRequestLine
	}
	return nil
}

// chunkSize is hexadecimal and may have extensions, which nobody reads.
func (f *framing) chunkSize(line []byte) error {
	digits, _, _ := bytes.Cut(line, []byte(";"))
	digits = bytes.TrimRight(digits, " \t") // RFC 9112 7.1.1 lets old senders do so
	if len(digits) == 0 || len(digits) > 15 || len(line) > maxChunkLine {
		return f.bad("the size of a chunk")
	}
	n, err := strconv.ParseUint(string(digits), 16, 63)
	if err != nil || digits[0] == '+' || bytes.IndexByte(digits, '_') >= 0 {
		return f.bad("the size of a chunk")
	}
	if f.left = int64(n); n == 0 {
		f.state = inTrailer
	} else {
		f.state = inChunk
	}
	return nil
}

func (f *framing) trailerLine(line []byte) error {
	if len(line) == 0 {
		f.state = inRequestLine
		return nil
	}
	name, _, err := f.field(line)
	if err == nil && !httpguts.ValidTrailerHeader(string(name)) {
		err = f.bad("the trailer " + string(name) + " belongs into the head")
	}
	return err
}

func isToken(b []byte) bool {
	for _, c := range b {
		if !httpguts.IsTokenRune(rune(c)) {
			return false
		}
	}
	return len(b) > 0
}

// checkRequest finds what net/http lets pass in HTTP/2, and could not be said to
// a backend in HTTP/1.1.
func checkRequest(r *http.Request) error {
	switch lengths := r.Header["Content-Length"]; {
	case !isToken([]byte(r.Method)):
		return errors.New("the method is no token")
	case r.Host != "" && !isAuthority(r.Host):
		return errors.New("the host has a character that none has")
	case r.ProtoMajor != 2:
		return nil
	case !isTarget(r.RequestURI, r.Method):
		return errors.New("the path does not begin with a slash, or has a space or control character")
	case len(lengths) > 1:
		return errors.New("the length is told twice")
	case len(lengths) == 1:
		n, err := length(lengths[0])
		if err != nil || n != max(r.ContentLength, 0) {
			return errors.New("the length is not that of the body")
		}
	}
	return nil
}

func isTarget(uri, method string) bool {
	if uri == "*" {
		return method == http.MethodOptions
	}
	uri, _, _ = strings.Cut(uri, "?") // queries are brought into form
	return strings.HasPrefix(uri, "/") && !strings.ContainsFunc(uri, func(r rune) bool { return r <= ' ' || r == 0x7f })
}

// isAuthority lets a name or address pass, with its port.
func isAuthority(s string) bool {
	for i := range len(s) {
		c := s[i]
		if c != '-' && c != '_' && !('0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z') && !strings.ContainsRune(".:[]~!$&'()*+,;=%", rune(c)) {
			return false
		}
	}
	return s != ""
}

// poison makes net/http answer 400, wherever in a head it comes: it is allowed
// neither in a request line nor in a header.
const poison = "\x00\r\n\r\n"
