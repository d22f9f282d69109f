package dns

import (
	"encoding/binary"
	"strings"

	"golang.org/x/net/dns/dnsmessage"
)

// The sizes of messages (RFC 1035 4.2, RFC 6891 6.2.3).
const (
	headerSize = 12
	plainSize  = 512
	maxSize    = 65535
)

// query is a message from a program, as far as it is understood here.
type query struct {
	raw []byte
	// header is read of every message that is long enough to be one.
	header dnsmessage.Header
	// question is the one question; plain is whether there is one, in a query
	// of no other kind.
	question dnsmessage.Question
	plain    bool
	// size is how long the answer to a datagram may be, and edns says that the
	// program speaks EDNS.
	size int
	edns bool
}

// readQuery is false for what is no query at all and deserves no answer.
func readQuery(raw []byte) (query, bool) {
	q := query{raw: raw, size: plainSize}
	var p dnsmessage.Parser
	h, err := p.Start(raw)
	if err != nil || h.Response {
		return q, false
	}
	q.header = h
	if h.OpCode != 0 || h.Truncated {
		return q, true
	}
	if q.question, err = p.Question(); err != nil {
		return q, true
	}
	if _, err = p.Question(); err != dnsmessage.ErrSectionDone {
		return q, true
	}
	q.plain = q.readOptions(&p) == nil
	return q, true
}

// readOptions looks for EDNS among the additional records.
func (q *query) readOptions(p *dnsmessage.Parser) error {
	if err := p.SkipAllAnswers(); err != nil {
		return err
	}
	if err := p.SkipAllAuthorities(); err != nil {
		return err
	}
	for {
		h, err := p.AdditionalHeader()
		if err == dnsmessage.ErrSectionDone {
			return nil
		}
		if err != nil {
			return err
		}
		if h.Type == dnsmessage.TypeOPT {
			q.edns, q.size = true, max(plainSize, int(h.Class))
		}
		if err := p.SkipAdditional(); err != nil {
			return err
		}
	}
}

// addresses reports whether the query is for addresses, and of which family.
func (q *query) addresses() (v6, ok bool) {
	if !q.plain || q.question.Class != dnsmessage.ClassINET {
		return false, false
	}
	switch q.question.Type {
	case dnsmessage.TypeA:
		return false, true
	case dnsmessage.TypeAAAA:
		return true, true
	}
	return false, false
}

// name is what is asked for, in the form that names are known by.
func (q *query) name() string {
	return strings.ToLower(strings.TrimSuffix(q.question.Name.String(), "."))
}

// kind is the type that is asked for, of those that have a name of their own in
// metrics.
func (q *query) kind() string {
	if !q.plain {
		return "other"
	}
	switch t := q.question.Type; t {
	case dnsmessage.TypeA, dnsmessage.TypeAAAA, dnsmessage.TypeCNAME, dnsmessage.TypeMX, dnsmessage.TypeNS,
		dnsmessage.TypePTR, dnsmessage.TypeSOA, dnsmessage.TypeSRV, dnsmessage.TypeTXT, dnsmessage.TypeHINFO:
		return strings.TrimPrefix(t.String(), "Type")
	case 64:
		return "SVCB"
	case 65:
		return "HTTPS"
	}
	return "other"
}

// transfers reports whether many messages answer the query (RFC 5936, 1995).
func (q *query) transfers() bool {
	return q.plain && (q.question.Type == dnsmessage.TypeAXFR || q.question.Type == 251)
}

// answers reports whether a message from a resolver is the answer to the query.
func (q *query) answers(raw []byte) bool {
	if len(raw) < headerSize || binary.BigEndian.Uint16(raw) != q.header.ID {
		return false
	}
	var p dnsmessage.Parser
	h, err := p.Start(raw)
	if err != nil || !h.Response || h.OpCode != q.header.OpCode {
		return false
	}
	if !q.plain {
		return true
	}
	// Some resolvers answer an error without the question.
	got, err := p.Question()
	return err == dnsmessage.ErrSectionDone && h.RCode != dnsmessage.RCodeSuccess ||
		err == nil && got.Type == q.question.Type && got.Class == q.question.Class &&
			strings.EqualFold(got.Name.String(), q.question.Name.String())
}

// rcode is how an answer ended.
func rcode(raw []byte) dnsmessage.RCode { return dnsmessage.RCode(raw[3] & 0xf) }
