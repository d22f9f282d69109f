package rules

import (
	"fmt"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/ambit-mesh/ambit/cni/nft"
	"github.com/ambit-mesh/ambit/internal/linux"
)

func nameRules() []nft.Rule {
	return []nft.Rule{
		{
			What:  "dns queries go to ztunnel, unless they are ztunnel's own (UDP)",
			Exprs: nft.Concat(nft.UDP(), nft.DstPort(namePort), nft.NotMark(linux.Mark), nft.Redirect(dnsPort)),
		},
		{
			What: "dns queries go to ztunnel, unless they are ztunnel's own (TCP)",
			Exprs: nft.Concat(nft.TCP(), nft.SYN(), nft.DstPort(namePort), nft.NotMark(linux.Mark), nft.NotMark(returnMark),
				nft.Redirect(dnsPort)),
		},
	}
}

// replyRules and queryRules stay while the pod drains: ztunnel still asks for
// those that it answers.
func (s Spec) replyRules() []nft.Rule {
	if !s.DNS {
		return nil
	}
	return []nft.Rule{{
		What:  "answers to ztunnel's own dns queries belong to these",
		Exprs: nft.Concat(nft.NotIn("lo"), nft.UDP(), nft.SrcPort(namePort), nft.NotMark(linux.Mark), nft.SetZone(nameZone)),
	}}
}

func (s Spec) queryRules() []nft.Rule {
	if !s.DNS {
		return nil
	}
	return []nft.Rule{{
		What:  "ztunnel's own dns queries are tracked apart from programs'",
		Exprs: nft.Concat(nft.UDP(), nft.DstPort(namePort), nft.Mark(linux.Mark), nft.SetZone(nameZone)),
	}}
}

// PortTaken reports whether something of the pod's own holds the port of
// ztunnel's DNS proxy, which therefore cannot answer there.
func PortTaken(ns *linux.NetNS) (taken bool, err error) {
	var packets, listeners []socket
	err = ns.Do(func() (err error) {
		if packets, err = socketsOf(unix.IPPROTO_UDP, boundStates); err == nil {
			listeners, err = socketsOf(unix.IPPROTO_TCP, listenState)
		}
		return err
	})
	if err != nil {
		return false, fmt.Errorf("looking who listens for dns: %w", err)
	}
	for _, s := range append(packets, listeners...) {
		if s.local.Port() != dnsPort {
			continue
		}
		if s.mark == linux.Mark { // ztunnel has it
			return false, nil
		}
		taken = true
	}
	return taken, nil
}

// ForgetNames makes the kernel forget the DNS conversations that go elsewhere
// than the rules of s lead: a program that keeps its socket would go on with
// its conversation whatever the rules say.
func ForgetNames(ns *linux.NetNS, s Spec) error {
	return forget(ns, astray{captured: s.DNS})
}

// astray matches the conversations that are not as wished.
type astray struct{ captured bool }

// MatchConntrackFlow implements netlink.CustomConntrackFilter.
func (a astray) MatchConntrackFlow(f *netlink.ConntrackFlow) bool {
	return f.Forward.Protocol == unix.IPPROTO_UDP && f.Forward.DstPort == namePort && f.Zone != nameZone &&
		(f.Reverse.SrcPort == dnsPort) != a.captured
}
