package h2

import (
	"fmt"
	"maps"
	"slices"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/ambit-mesh/ambit/internal/hbone"
	"github.com/ambit-mesh/ambit/internal/hbone/head"
)

const maxContinuations = 64

func (t *tunnel) maxHeaderList() uint32 {
	if t.client {
		return head.ClientLimit
	}
	return head.ServerLimit
}

// readBlock reads HEADERS and its CONTINUATIONs. What is too long is decoded all
// the same, as HPACK has a state, but not kept, and not without end.
func (t *tunnel) readBlock(fh http2.FrameHeader) (*head.Block, bool, error) {
	b := head.NewBlock(t.maxHeaderList())
	t.dec.SetEmitFunc(func(f hpack.HeaderField) { b.Add(head.Field{Name: f.Name, Value: f.Value}) })
	t.dec.SetMaxStringLength(int(b.Limit()))
	end := fh.Flags.Has(http2.FlagHeadersEndStream)
	for n, length := 0, uint32(0); ; n++ {
		length += fh.Length
		if n > maxContinuations || length > 2*b.Limit() {
			return nil, false, abuseError(AbuseHeaders, fmt.Sprintf("%d frames, %d bytes", n+1, length))
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
	b.Join()
	return b, end, nil
}

type fragment interface {
	HeaderBlockFragment() []byte
	HeadersEnded() bool
}

// Fields that differ with every connection are not worth a place in the table.
var unindexed = map[string]bool{hbone.HeaderForwarded: true, hbone.HeaderTraceparent: true, hbone.HeaderReason: true}

// writeHeaders queues HEADERS, and CONTINUATIONs if it must; cmu is held.
func (t *tunnel) writeHeadersLocked(id uint32, end bool, pseudo []head.Field, header map[string]string) {
	t.hbuf.Reset()
	for _, f := range pseudo {
		t.enc.WriteField(hpack.HeaderField{Name: f.Name, Value: f.Value})
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
