package dns

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// The bounds of what a Lookup remembers (dataplane spec 2.6). An answer is kept
// no longer than its servers allow.
const (
	maxKept     = 4096
	longestKept = 5 * time.Minute
	lookupLimit = 9 * time.Second
)

// Lookup finds the addresses of endpoints that are known by name, for the proxy
// itself. Each pod has its own: what one is told is no other's.
type Lookup struct {
	forward forwarder

	mu   sync.Mutex
	kept map[string]*found
}

// found is what is known of one name.
type found struct {
	ready     chan struct{} // closed when the rest is set
	addresses []netip.Addr
	err       error
	until     time.Time
}

// NewLookup asks servers by dial.
func NewLookup(servers func() ([]netip.AddrPort, error), dial Dial) *Lookup {
	return &Lookup{forward: forwarder{servers, dial}, kept: map[string]*found{}}
}

// Addresses are those of a name, of both families, in random order. Callers at
// one time share one question.
func (l *Lookup) Addresses(ctx context.Context, host string) ([]netip.Addr, error) {
	host = strings.TrimSuffix(host, ".")
	f, mine := l.claim(host)
	if mine {
		// Whoever else waits does not lose the answer if this caller leaves.
		asking, cancel := context.WithTimeout(context.WithoutCancel(ctx), lookupLimit)
		f.addresses, f.until, f.err = l.find(asking, host)
		cancel()
		close(f.ready)
	}
	select {
	case <-f.ready:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if f.err != nil {
		return nil, fmt.Errorf("resolving %s: %w", host, f.err)
	}
	out := slices.Clone(f.addresses)
	rand.Shuffle(len(out), func(i, j int) { out[i], out[j] = out[j], out[i] })
	return out, nil
}

// claim is what is kept of a name, or a place that the caller must fill.
func (l *Lookup) claim(host string) (f *found, mine bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if f = l.kept[host]; f != nil {
		select {
		case <-f.ready:
			if time.Now().Before(f.until) {
				return f, false
			}
		default:
			return f, false
		}
	}
	if len(l.kept) >= maxKept {
		l.makeRoomLocked()
	}
	f = &found{ready: make(chan struct{})}
	l.kept[host] = f
	return f, true
}

// makeRoomLocked drops what is over, or else anything.
func (l *Lookup) makeRoomLocked() {
	for host, f := range l.kept {
		select {
		case <-f.ready:
			if time.Now().After(f.until) || len(l.kept) >= maxKept {
				delete(l.kept, host)
			}
		default:
		}
	}
}

// find asks for both families at once. One of them suffices.
func (l *Lookup) find(ctx context.Context, host string) ([]netip.Addr, time.Time, error) {
	var got [2]reply
	var asking sync.WaitGroup
	for i, t := range []dnsmessage.Type{dnsmessage.TypeA, dnsmessage.TypeAAAA} {
		asking.Go(func() { got[i] = l.ask(ctx, host, t) })
	}
	asking.Wait()
	all := slices.Concat(got[0].addresses, got[1].addresses)
	keep := longestKept
	for _, r := range got {
		if len(r.addresses) > 0 {
			keep = min(keep, r.ttl)
		}
	}
	if len(all) == 0 {
		err := errors.Join(got[0].err, got[1].err)
		if err == nil {
			err = errors.New("it has no address")
		}
		return nil, time.Time{}, err
	}
	return all, time.Now().Add(keep), nil
}

// reply is the answer to one question of ours.
type reply struct {
	addresses []netip.Addr
	ttl       time.Duration
	err       error
}

func (l *Lookup) ask(ctx context.Context, host string, t dnsmessage.Type) reply {
	q, err := newQuery(host, t)
	if err != nil {
		return reply{err: err}
	}
	answer, err := l.forward.ask(ctx, "udp", q)
	if err == nil && answer[2]&0x02 != 0 { // truncated
		answer, err = l.forward.ask(ctx, "tcp", q)
	}
	if err != nil {
		return reply{err: err}
	}
	return readReply(answer)
}

// newQuery is a question of ours.
func newQuery(host string, t dnsmessage.Type) (*query, error) {
	name, err := dnsmessage.NewName(host + ".")
	if err != nil {
		return nil, fmt.Errorf("name %q: %w", host, err)
	}
	b := dnsmessage.NewBuilder(nil, dnsmessage.Header{ID: uint16(rand.Uint32()), RecursionDesired: true})
	var h dnsmessage.ResourceHeader
	err = errors.Join(
		b.StartQuestions(), b.Question(dnsmessage.Question{Name: name, Type: t, Class: dnsmessage.ClassINET}),
		b.StartAdditionals(), h.SetEDNS0(ednsSize, dnsmessage.RCodeSuccess, false), b.OPTResource(h, dnsmessage.OPTResource{}),
	)
	if err != nil {
		return nil, fmt.Errorf("name %q: %w", host, err)
	}
	raw, err := b.Finish()
	if err != nil {
		return nil, fmt.Errorf("name %q: %w", host, err)
	}
	q, _ := readQuery(raw)
	return &q, nil
}

// readReply takes the addresses, whatever aliases lead to them: the resolver has
// followed these.
func readReply(raw []byte) (r reply) {
	var p dnsmessage.Parser
	h, err := p.Start(raw)
	if err == nil {
		err = p.SkipAllQuestions()
	}
	if err == nil && h.RCode != dnsmessage.RCodeSuccess {
		err = fmt.Errorf("the resolver says %s", strings.TrimPrefix(h.RCode.String(), "RCode"))
	}
	for r.ttl = longestKept; err == nil; {
		var rh dnsmessage.ResourceHeader
		if rh, err = p.AnswerHeader(); err != nil {
			break
		}
		r.ttl = min(r.ttl, time.Duration(rh.TTL)*time.Second)
		switch rh.Type {
		case dnsmessage.TypeA:
			var a dnsmessage.AResource
			if a, err = p.AResource(); err == nil {
				r.addresses = append(r.addresses, netip.AddrFrom4(a.A))
			}
		case dnsmessage.TypeAAAA:
			var a dnsmessage.AAAAResource
			if a, err = p.AAAAResource(); err == nil {
				r.addresses = append(r.addresses, netip.AddrFrom16(a.AAAA).Unmap())
			}
		default:
			err = p.SkipAnswer()
		}
	}
	if err != dnsmessage.ErrSectionDone {
		return reply{err: err}
	}
	return r
}
