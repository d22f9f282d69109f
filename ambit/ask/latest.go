package ask

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"github.com/ambit-mesh/ambit/ambit/reach"
	"github.com/ambit-mesh/ambit/internal/decision"
)

// Party is one end of connections, by any of what stories call it.
type Party struct {
	// Names are "namespace/name" of a workload, Hosts those of a service, whole
	// or their first labels; Addresses are where it is reached, Identities its
	// SPIFFE ids.
	Names, Hosts, Identities []string
	Addresses                []netip.Addr
}

// Pair is two ends and the port that was asked for; zero is any.
type Pair struct {
	Source, Destination Party
	Port                uint16
	// Text is what a user calls it.
	Text string
}

// NothingBetweenError says that nobody remembers a decision on a pair.
type NothingBetweenError struct {
	Pair  string
	Asked int
}

// Error implements error.
func (e *NothingBetweenError) Error() string {
	return fmt.Sprintf("none of the %d proxies remembers a decision on %s: there was none lately, or it never reached a proxy (ambit can tells what would become of one)", e.Asked, e.Pair)
}

// Latest asks every proxy for the newest decision on a pair, and gives its
// stories of all of them in their order.
func Latest(ctx context.Context, proxies []Opener, p Pair) (stories []decision.Story, silent []error, err error) {
	query := url.Values{"source": p.Source.texts(), "destination": p.Destination.texts()}
	answers, silent := each(ctx, proxies, func(ctx context.Context, d *reach.Door) ([]decision.Story, error) {
		var found []decision.Story
		return found, d.GetJSON(ctx, "/decisions?"+query.Encode(), &found)
	})
	all := slices.DeleteFunc(slices.Concat(answers...), func(s decision.Story) bool { return s.ID == "" || !p.is(&s) })
	if len(all) == 0 {
		return nil, silent, &NothingBetweenError{Pair: p.Text, Asked: len(proxies) - len(silent)}
	}
	newest := slices.MaxFunc(all, func(a, b decision.Story) int { return a.At.Compare(b.At) })
	stories, more, err := Why(ctx, proxies, newest.ID)
	if missing := (&NotRememberedError{}); errors.As(err, &missing) {
		return []decision.Story{newest}, append(silent, more...), nil // forgotten just now
	}
	return stories, more, err
}

func (p *Party) texts() []string {
	out := slices.Concat(p.Names, p.Hosts, p.Identities)
	for _, a := range p.Addresses {
		out = append(out, a.String())
	}
	return out
}

// is reports whether a story is about the pair.
func (p *Pair) is(s *decision.Story) bool {
	return p.Source.is(s.Source) && (p.Destination.is(s.Destination) || p.Destination.asked(s)) && p.onPort(s)
}

func (p *Party) is(e decision.End) bool {
	return slices.Contains(p.Names, e.Workload) || slices.Contains(p.Identities, e.Identity) || p.at(e.Address)
}

// asked reports whether the party is what was asked for.
func (p *Party) asked(s *decision.Story) bool {
	_, host, _ := strings.Cut(s.Service, "/")
	host, _, _ = strings.Cut(host, ":")
	return p.at(s.Asked) || slices.ContainsFunc(p.Hosts, func(h string) bool { return host == h || strings.HasPrefix(host, h+".") })
}

func (p *Party) at(addrPort string) bool {
	a, err := netip.ParseAddrPort(addrPort)
	return err == nil && slices.Contains(p.Addresses, a.Addr().Unmap())
}

// onPort reports whether the port was dialled, asked of the service, or led to.
func (p *Pair) onPort(s *decision.Story) bool {
	if p.Port == 0 {
		return true
	}
	suffix := fmt.Sprintf(":%d", p.Port)
	return strings.HasSuffix(s.Asked, suffix) || strings.HasSuffix(s.Service, suffix) || strings.HasSuffix(s.Destination.Address, suffix)
}
