package translate

import (
	"encoding/binary"
	"hash/fnv"
	"net/netip"
	"slices"
	"strings"

	api "istio.io/api/networking/v1alpha3"
	networking "istio.io/client-go/pkg/apis/networking/v1"

	"github.com/ambit-mesh/ambit/istiod-lite/objects"
)

// labelAllocate on a ServiceEntry says whether it gets virtual addresses.
const labelAllocate = "networking.istio.io/enable-autoallocate-ip"

// The ranges of virtual addresses, which are Istio's (controlplane spec 9.4).
var virtualRanges = [2]netip.Prefix{netip.MustParsePrefix("240.240.0.0/16"), netip.MustParsePrefix("2001:2::/48")}

// rangeSize is how many virtual addresses each range has.
const rangeSize = 1<<16 - 2

// VirtualAddress is an address for a host of a ServiceEntry.
type VirtualAddress struct {
	Host  string
	Value string
}

// allocatable reports whether an entry gets virtual addresses.
func allocatable(se *networking.ServiceEntry) bool {
	return len(se.Spec.GetAddresses()) == 0 && se.Spec.GetResolution() != api.ServiceEntry_NONE && se.Labels[labelAllocate] != "false"
}

// place is a place for one address of one host.
type place struct {
	entry objects.Key
	host  string
	of    int // which range
	has   netip.Addr
}

// allocate says in the entries' details which virtual addresses their hosts are
// to have. Whoever leads writes them to the status, and from there they are taken:
// so what is written once stays, and all replicas have the same. It looks at all
// entries, since they share the ranges: first comes what users wrote, then what
// the statuses give, the older entry first, and then who has nothing yet.
func (t *Translator) allocate() {
	var places []place
	p := pool{taken: map[netip.Addr]bool{}}
	for _, k := range entriesByAge(t, t.seen.ServiceEntries) {
		se := t.seen.ServiceEntries[k]
		p.reserve(se.Spec.GetAddresses())
		places = append(places, placesOf(k, se)...)
	}
	for i := range places {
		p.keep(&places[i], t.seen.ServiceEntries[places[i].entry])
	}
	out := map[objects.Ref]*Detail{}
	for i := range places {
		s := &places[i]
		if !s.has.IsValid() {
			p.give(s)
		}
		if !s.has.IsValid() {
			continue
		}
		ref := objects.Ref{Kind: objects.KindServiceEntry, Key: s.entry}
		if out[ref] == nil {
			out[ref] = &Detail{}
		}
		out[ref].Virtual = append(out[ref].Virtual, VirtualAddress{Host: s.host, Value: s.has.String()})
	}
	for ref, d := range out {
		t.details.put(ref, d)
	}
	for ref := range t.details.m {
		if ref.Kind == objects.KindServiceEntry && out[ref] == nil {
			t.details.del(ref)
		}
	}
}

// placesOf are the places that an entry's hosts need: one in each range.
func placesOf(k objects.Key, se *networking.ServiceEntry) []place {
	if !allocatable(se) {
		return nil
	}
	var out []place
	for _, host := range se.Spec.GetHosts() {
		host = strings.ToLower(host)
		if !sound(host) || slices.ContainsFunc(out, func(s place) bool { return s.host == host }) {
			continue
		}
		for of := range virtualRanges {
			out = append(out, place{entry: k, host: host, of: of})
		}
	}
	return out
}

// pool is what is left of the ranges.
type pool struct {
	taken map[netip.Addr]bool
	used  [len(virtualRanges)]int
	// written are the parts of the ranges that users gave to entries.
	written []netip.Prefix
}

// reserve keeps away from what a user wrote.
func (p *pool) reserve(addresses []string) {
	for _, text := range addresses {
		blocks, _ := ipBlock(text)
		for _, b := range blocks {
			if slices.ContainsFunc(virtualRanges[:], b.Overlaps) {
				p.written = append(p.written, b)
			}
		}
	}
}

// take is whether an address was free; now it is not.
func (p *pool) take(a netip.Addr, of int) bool {
	if p.taken[a] || slices.ContainsFunc(p.written, func(b netip.Prefix) bool { return b.Contains(a) }) {
		return false
	}
	p.taken[a] = true
	p.used[of]++
	return true
}

// keep takes the address that the status gives already.
func (p *pool) keep(s *place, se *networking.ServiceEntry) {
	for _, given := range se.Status.GetAddresses() {
		a, err := netip.ParseAddr(given.GetValue())
		if err == nil && virtualRanges[s.of].Contains(a) && strings.EqualFold(given.GetHost(), s.host) && p.take(a, s.of) {
			s.has = a
			return
		}
	}
}

// give finds a free address, beginning with the one that the names lead to.
// Nothing is given when the range is used up.
func (p *pool) give(s *place) {
	for n, i := s.number(), 0; i < rangeSize && p.used[s.of] < rangeSize; n, i = n+1, i+1 {
		if a := nth(virtualRanges[s.of], n); p.take(a, s.of) {
			s.has = a
			return
		}
	}
}

// number is where the names of a place lead to.
func (s *place) number() uint64 {
	h := fnv.New64a()
	h.Write([]byte(s.entry.Namespace + "/" + s.entry.Name + "/" + s.host))
	return h.Sum64()
}

// nth is an address of a range: its last two bytes are the number's, kept off
// the ends of the range.
func nth(in netip.Prefix, n uint64) netip.Addr {
	b := in.Addr().AsSlice()
	binary.BigEndian.PutUint16(b[len(b)-2:], uint16(1+n%rangeSize))
	a, _ := netip.AddrFromSlice(b)
	return a
}
