package h2

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/net/http/httpguts"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/ambit-mesh/ambit/internal/hbone"
)

// Limits of a header list (dataplane spec 1.2).
const (
	clientHeaderList = 16 << 10
	serverHeaderList = 64 << 10
	maxContinuations = 64
)

func (t *tunnel) maxHeaderList() uint32 {
	if t.client {
		return clientHeaderList
	}
	return serverHeaderList
}

// block is a decoded header block.
type block struct {
	pseudo  map[string]string
	header  map[string]string
	again   map[string][]string // the later values of fields that come more than once
	size    uint32
	limit   uint32
	tooLong bool
	invalid string // what is wrong with it
}

// add takes one field from the decoder.
func (b *block) add(f hpack.HeaderField) {
	b.size += f.Size()
	switch {
	case b.size > b.limit:
		b.tooLong = true
	case !httpguts.ValidHeaderFieldValue(f.Value):
		b.invalid = "value of a header"
	case f.IsPseudo():
		b.addPseudo(f)
	case !validName(f.Name):
		b.invalid = "name of a header"
	default:
		b.addField(f)
	}
}

// addField keeps repeated values apart until join, so that many cost no more
// than their length.
func (b *block) addField(f hpack.HeaderField) {
	if _, twice := b.header[f.Name]; !twice {
		b.header[f.Name] = f.Value
		return
	}
	if b.again == nil {
		b.again = map[string][]string{}
	}
	b.again[f.Name] = append(b.again[f.Name], f.Value)
}

func (b *block) join() {
	for name, more := range b.again {
		b.header[name] += "," + strings.Join(more, ",")
	}
	b.again = nil
}

func (b *block) addPseudo(f hpack.HeaderField) {
	if _, twice := b.pseudo[f.Name]; twice || len(b.header) > 0 {
		b.invalid = "order of pseudo headers"
		return
	}
	b.pseudo[f.Name] = f.Value
}

func validName(s string) bool {
	return httpguts.ValidHeaderFieldName(s) && s == strings.ToLower(s)
}

// readBlock reads HEADERS and its CONTINUATIONs. What is too long is decoded all
// the same, as HPACK has a state, but not kept, and not without end.
func (t *tunnel) readBlock(fh http2.FrameHeader) (*block, bool, error) {
	b := &block{pseudo: map[string]string{}, header: map[string]string{}, limit: t.maxHeaderList()}
	t.dec.SetEmitFunc(b.add)
	t.dec.SetMaxStringLength(int(b.limit))
	end := fh.Flags.Has(http2.FlagHeadersEndStream)
	for n, length := 0, uint32(0); ; n++ {
		length += fh.Length
		if n > maxContinuations || length > 2*b.limit {
			return nil, false, AbuseHeaders.error(fmt.Sprintf("%d frames, %d bytes", n+1, length))
		}
		f, err := t.fr.ReadFrameForHeader(fh)
		if err != nil {
			return nil, false, err
		}
		if _, err := t.dec.Write(f.(fragment).HeaderBlockFragment()); err != nil {
			return nil, false, &connError{code: http2.ErrCodeCompression, reason: "header block: " + err.Error()}
		}
		if f.(fragment).HeadersEnded() {
			break
		}
		if fh, err = t.fr.ReadFrameHeader(); err != nil {
			return nil, false, err
		}
	}
	if err := t.dec.Close(); err != nil {
		return nil, false, &connError{code: http2.ErrCodeCompression, reason: "header block: " + err.Error()}
	}
	b.join()
	return b, end, nil
}

type fragment interface {
	HeaderBlockFragment() []byte
	HeadersEnded() bool
}

// Fields that differ with every connection are not worth a place in the table.
var unindexed = map[string]bool{hbone.HeaderForwarded: true, hbone.HeaderTraceparent: true, hbone.HeaderReason: true}

// writeHeaders queues HEADERS, and CONTINUATIONs if it must; cmu is held.
func (t *tunnel) writeHeadersLocked(id uint32, end bool, pseudo []hpack.HeaderField, header map[string]string) {
	t.hbuf.Reset()
	for _, f := range pseudo {
		t.enc.WriteField(f)
	}
	for _, name := range slices.Sorted(maps.Keys(header)) {
		t.enc.WriteField(hpack.HeaderField{Name: name, Value: header[name], Sensitive: unindexed[name]})
	}
	const most = recordLen // every peer takes that much
	b := t.hbuf.Bytes()
	first := b[:min(len(b), most)]
	b = b[len(first):]
	t.cf.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: first, EndStream: end, EndHeaders: len(b) == 0})
	for len(b) > 0 {
		next := b[:min(len(b), most)]
		b = b[len(next):]
		t.cf.WriteContinuation(id, len(b) == 0, next)
	}
	t.pending.Store(true)
}

// checkHeader refuses what must not go onto the wire.
func checkHeader(pseudo []hpack.HeaderField, header map[string]string, limit uint32) error {
	var size uint32
	for _, f := range pseudo {
		size += f.Size()
		if !httpguts.ValidHeaderFieldValue(f.Value) {
			return fmt.Errorf("header %s: invalid value", f.Name)
		}
	}
	for name, value := range header {
		size += hpack.HeaderField{Name: name, Value: value}.Size()
		if !validName(name) || !httpguts.ValidHeaderFieldValue(value) {
			return fmt.Errorf("header %q: invalid name or value", name)
		}
	}
	if size > limit {
		return fmt.Errorf("header list of %d bytes: the peer takes %d", size, limit)
	}
	return nil
}

// requestPseudo are the pseudo headers that a request may have.
var requestPseudo = []string{":method", ":scheme", ":authority", ":path", ":protocol"}

// malformed says what makes a request one that RFC 9113, 8.2 and 8.3 want reset.
func (b *block) malformed() string {
	if b.invalid != "" {
		return "invalid " + b.invalid
	}
	for name := range b.pseudo {
		if !slices.Contains(requestPseudo, name) {
			return "pseudo header that is no request's"
		}
	}
	for _, name := range []string{"connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"} {
		if _, ok := b.header[name]; ok {
			return "header of a connection: " + name
		}
	}
	if te, ok := b.header["te"]; ok && te != "trailers" {
		return "te other than trailers"
	}
	return ""
}

// requestOf reads a CONNECT. A status other than 0 is the answer to something
// else; malformed is for RST_STREAM.
func requestOf(b *block) (r hbone.Request, status int, reason string, malformed string) {
	_, scheme := b.pseudo[":scheme"]
	_, path := b.pseudo[":path"]
	_, extended := b.pseudo[":protocol"]
	switch wrong := b.malformed(); {
	case wrong != "":
		return r, 0, "", wrong
	case b.tooLong:
		return r, 431, "header list too long", ""
	case b.pseudo[":method"] == "":
		return r, 0, "", "request without method"
	case b.pseudo[":method"] != "CONNECT" && (b.pseudo[":scheme"] == "" || b.pseudo[":path"] == ""):
		return r, 0, "", "request without scheme or path"
	case b.pseudo[":method"] != "CONNECT":
		return r, hbone.StatusBadRequest, "only CONNECT is served", ""
	case extended:
		return r, hbone.StatusBadRequest, "extended CONNECT is not served", ""
	case scheme || path:
		return r, 0, "", "CONNECT with scheme or path"
	case b.pseudo[":authority"] == "":
		return r, hbone.StatusBadRequest, "CONNECT without authority", ""
	}
	return hbone.Request{Authority: b.pseudo[":authority"], Header: b.header}, 0, "", ""
}

// responseOf reads an answer; interim ones (1xx) are not ok.
func responseOf(b *block) (r hbone.Response, ok bool, err error) {
	status, e := strconv.Atoi(b.pseudo[":status"])
	switch {
	case b.invalid != "":
		return r, false, fmt.Errorf("answer with invalid %s", b.invalid)
	case b.tooLong:
		return r, false, fmt.Errorf("answer with a header list over %d bytes", b.limit)
	case e != nil || status < 100 || status > 999:
		return r, false, fmt.Errorf("answer with status %q", b.pseudo[":status"])
	}
	return hbone.Response{Status: status, Header: b.header}, status >= 200, nil
}
