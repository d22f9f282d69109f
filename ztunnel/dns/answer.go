package dns

import (
	"math/rand/v2"
	"net/netip"
	"slices"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/ambit-mesh/ambit/ztunnel/names"
)

// ttl is how long a program may keep an answer of the mesh, in seconds. Services
// keep their addresses; pods do not, and clients reconnect when they go.
const ttl = 30

// ednsSize is the datagram that the proxy says it takes: what passes every
// network in one packet.
const ednsSize = 1232

// answer writes what the mesh knows of the query's name. A datagram that would
// be longer than the program takes is cut short and says so, and the program
// comes again over TCP.
func (q *query) answer(a names.Answer, limit int) ([]byte, error) {
	addresses := slices.Clone(a.Addresses)
	rand.Shuffle(len(addresses), func(i, j int) { addresses[i], addresses[j] = addresses[j], addresses[i] })
	for truncated := false; ; truncated = true {
		b, err := q.write(a.Alias, addresses, truncated)
		if err != nil || len(b) <= limit || len(addresses) == 0 {
			return b, err
		}
		// A record is 16 or 28 bytes, the name left out.
		addresses = addresses[:max(0, len(addresses)-max(1, (len(b)-limit)/28))]
	}
}

func (q *query) write(alias string, addresses []netip.Addr, truncated bool) ([]byte, error) {
	b := dnsmessage.NewBuilder(make([]byte, 0, plainSize), dnsmessage.Header{
		ID: q.header.ID, Response: true, Authoritative: true, Truncated: truncated,
		RecursionDesired: q.header.RecursionDesired, RecursionAvailable: true,
	})
	b.EnableCompression()
	if err := b.StartQuestions(); err != nil {
		return nil, err
	}
	if err := b.Question(q.question); err != nil {
		return nil, err
	}
	if err := b.StartAnswers(); err != nil {
		return nil, err
	}
	name := q.question.Name
	if alias != "" {
		target, err := dnsmessage.NewName(alias + ".")
		if err != nil {
			return nil, err
		}
		if err := b.CNAMEResource(record(name), dnsmessage.CNAMEResource{CNAME: target}); err != nil {
			return nil, err
		}
		name = target
	}
	for _, a := range addresses {
		if err := address(&b, name, a); err != nil {
			return nil, err
		}
	}
	if err := q.options(&b); err != nil {
		return nil, err
	}
	return b.Finish()
}

func record(name dnsmessage.Name) dnsmessage.ResourceHeader {
	return dnsmessage.ResourceHeader{Name: name, Class: dnsmessage.ClassINET, TTL: ttl}
}

func address(b *dnsmessage.Builder, name dnsmessage.Name, a netip.Addr) error {
	if a.Is4() {
		return b.AResource(record(name), dnsmessage.AResource{A: a.As4()})
	}
	return b.AAAAResource(record(name), dnsmessage.AAAAResource{AAAA: a.As16()})
}

// options answers EDNS with EDNS.
func (q *query) options(b *dnsmessage.Builder) error {
	if !q.edns {
		return nil
	}
	if err := b.StartAdditionals(); err != nil {
		return err
	}
	var h dnsmessage.ResourceHeader
	if err := h.SetEDNS0(ednsSize, dnsmessage.RCodeSuccess, false); err != nil {
		return err
	}
	return b.OPTResource(h, dnsmessage.OPTResource{})
}

// fail tells that there is no answer for now.
func (q *query) fail() []byte {
	h := q.header
	b := dnsmessage.NewBuilder(make([]byte, 0, plainSize), dnsmessage.Header{
		ID: h.ID, Response: true, OpCode: h.OpCode, RecursionDesired: h.RecursionDesired, RecursionAvailable: true,
		RCode: dnsmessage.RCodeServerFailure,
	})
	if q.plain && b.StartQuestions() == nil {
		// A question that was read can be written.
		_ = b.Question(q.question)
	}
	out, err := b.Finish()
	if err != nil {
		return nil
	}
	return out
}
