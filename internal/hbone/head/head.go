// Package head holds the rules for the heads of a CONNECT and of its answer that
// HTTP/2 and HTTP/3 share: which pseudo headers and headers may be read and
// written, and what they ask for. It refuses to know how either compresses or
// frames them; hbone/h2 and hbone/h3 call it.
package head

import (
	"fmt"
	"strings"

	"golang.org/x/net/http/httpguts"
)

// Limits of a header list (dataplane spec 1.2).
const (
	ClientLimit = 16 << 10
	ServerLimit = 64 << 10
)

// Field is one header, or pseudo header.
type Field struct{ Name, Value string }

// size is what RFC 9113, 6.5.2 and RFC 9114, 4.2.2 count.
func (f Field) size() uint32 { return uint32(len(f.Name) + len(f.Value) + 32) }

// Block is a decoded header block.
type Block struct {
	Pseudo map[string]string
	Header map[string]string

	again   map[string][]string // the later values of fields that come more than once
	size    uint32
	limit   uint32
	tooLong bool
	invalid string // what is wrong with it
}

// NewBlock takes header lists up to limit.
func NewBlock(limit uint32) *Block {
	return &Block{Pseudo: map[string]string{}, Header: map[string]string{}, limit: limit}
}

// Limit is the longest header list that the block takes.
func (b *Block) Limit() uint32 { return b.limit }

// Add takes one field from the decoder.
func (b *Block) Add(f Field) {
	b.size += f.size()
	switch {
	case b.size > b.limit:
		b.tooLong = true
	case !httpguts.ValidHeaderFieldValue(f.Value):
		b.invalid = "value of a header"
	case strings.HasPrefix(f.Name, ":"):
		b.addPseudo(f)
	case !validName(f.Name):
		b.invalid = "name of a header"
	default:
		b.addField(f)
	}
}

// TooLong notes that more came than the block takes.
func (b *Block) TooLong() { b.tooLong = true }

// addField keeps repeated values apart until Join, so that many cost no more
// than their length.
func (b *Block) addField(f Field) {
	if _, twice := b.Header[f.Name]; !twice {
		b.Header[f.Name] = f.Value
		return
	}
	if b.again == nil {
		b.again = map[string][]string{}
	}
	b.again[f.Name] = append(b.again[f.Name], f.Value)
}

func (b *Block) addPseudo(f Field) {
	if _, twice := b.Pseudo[f.Name]; twice || len(b.Header) > 0 {
		b.invalid = "order of pseudo headers"
		return
	}
	b.Pseudo[f.Name] = f.Value
}

// Join is called after the last field.
func (b *Block) Join() {
	for name, more := range b.again {
		b.Header[name] += "," + strings.Join(more, ",")
	}
	b.again = nil
}

func validName(s string) bool {
	return httpguts.ValidHeaderFieldName(s) && s == strings.ToLower(s)
}

// Check refuses what must not go onto the wire.
func Check(pseudo []Field, header map[string]string, limit uint32) error {
	var size uint32
	for _, f := range pseudo {
		size += f.size()
		if !httpguts.ValidHeaderFieldValue(f.Value) {
			return fmt.Errorf("header %s: invalid value", f.Name)
		}
	}
	for name, value := range header {
		size += Field{name, value}.size()
		if !validName(name) || !httpguts.ValidHeaderFieldValue(value) {
			return fmt.Errorf("header %q: invalid name or value", name)
		}
	}
	if size > limit {
		return fmt.Errorf("header list of %d bytes: the peer takes %d", size, limit)
	}
	return nil
}

// OneLine makes a reason fit for a header.
func OneLine(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, s)
	return strings.TrimSpace(s[:min(len(s), 1024)])
}
