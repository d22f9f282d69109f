package rules

import (
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"

	"github.com/ambit-mesh/ambit/cni/nft"
	"github.com/ambit-mesh/ambit/internal/linux"
)

// datagramMark marks the datagrams of the pod's programs, so that they are local
// and come back in by lo, where ztunnel takes them. It is another than
// returnMark: what has that goes to a socket that the packet itself names.
const datagramMark = 0x112

// loopbacks are where ztunnel takes datagrams, at TCP's ports: these are another
// space, and a person meets 15001 and 15006 for the same things. Nobody outside
// reaches a socket on loopback, but by these rules.
var loopbacks = []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()}

// datagrams reports whether the pod's UDP is captured.
func (s Spec) datagrams() bool { return s.UDP && !s.Draining }

// answerRules are about what ztunnel sends with another's address as its source.
// Were it tracked, what comes next from whom it answers would be an answer too.
func (s Spec) answerRules() []nft.Rule {
	if !s.datagrams() {
		return nil
	}
	return []nft.Rule{{
		What:  "answers that ztunnel gives for others begin nothing",
		Exprs: nft.Concat(nft.UDP(), nft.Mark(linux.AnswerMark), nft.Untrack()),
	}}
}

// leaving matches what programs send to one host elsewhere and is no DNS query.
// Where plaintext that comes in is left alone, its answers are too.
func (s Spec) leaving() []expr.Any {
	match := nft.Concat(nft.UDP(), nft.NotDstPort(namePort), nft.NotMark(linux.Mark), nft.NotMark(linux.AnswerMark), nft.ToUnicast())
	if s.BypassInbound {
		match = append(match, nft.There()...)
	}
	return match
}

// arriving matches what comes for the pod and is not for ztunnel's tunnels.
func arriving() []expr.Any {
	return nft.Concat(nft.NotIn("lo"), nft.UDP(), nft.NotDstPort(hbonePort), nft.ToLocal())
}

// ours is what ztunnel asked for, and what it was given.
func ours() nft.Rule {
	return nft.Rule{
		What:  "datagrams to ztunnel's own sockets reach them",
		Exprs: nft.Concat(nft.UDP(), nft.SocketMark(linux.Mark), nft.Accept()),
	}
}

// named asks connection tracking, as nothing else does here but a gateway's
// rules: by its port alone, whoever sends from that would be let in.
func named() nft.Rule {
	return nft.Rule{
		What:  "answers to dns queries of programs reach them",
		Exprs: nft.Concat(nft.NotIn("lo"), nft.UDP(), nft.SrcPort(namePort), nft.Back(), nft.Accept()),
	}
}

// sendRules mark what leaves: only a chain of type route sends it to lo.
func (s Spec) sendRules() []nft.Rule {
	if !s.datagrams() {
		return nil
	}
	return []nft.Rule{{
		What:  "datagrams go to ztunnel, unless they are ztunnel's own",
		Exprs: nft.Concat(nft.NotMark(returnMark), s.leaving(), nft.SetMark(datagramMark)),
	}}
}

// takeChains is the chain that gives datagrams to ztunnel's sockets. No
// translation does: it tells the first destination for connections only.
func (s Spec) takeChains() []nft.Chain {
	if !s.datagrams() {
		return nil
	}
	var rules []nft.Rule
	for _, lo := range loopbacks {
		rules = append(rules, nft.Rule{
			What: "what programs send is ztunnel's" + of(lo),
			Exprs: nft.Concat(nft.In("lo"), nft.UDP(), nft.Mark(datagramMark),
				nft.Proxy(netip.AddrPortFrom(lo, outboundPort)), nft.Accept()),
		})
	}
	if !s.BypassInbound {
		rules = append(rules, ours(), named())
		for _, lo := range loopbacks {
			rules = append(rules, nft.Rule{
				What:  "what comes for them is ztunnel's" + of(lo),
				Exprs: nft.Concat(arriving(), nft.Proxy(netip.AddrPortFrom(lo, inboundPort)), nft.Accept()),
			})
		}
	}
	return []nft.Chain{{
		Name: "capture-datagrams", Type: nftables.ChainTypeFilter, Hook: nftables.ChainHookPrerouting,
		Priority: int32(*nftables.ChainPriorityMangle), Rules: rules,
	}}
}

// guardDatagramsIn close while ztunnel does not listen, too.
func (s Spec) guardDatagramsIn() []nft.Rule {
	if !s.datagrams() {
		return nil
	}
	rules := []nft.Rule{ours(), {
		What:  "what programs send comes to ztunnel alone",
		Exprs: nft.Concat(nft.In("lo"), nft.UDP(), nft.Mark(datagramMark), nft.Drop()),
	}}
	if !s.BypassInbound {
		rules = append(rules, named(), nft.Rule{
			What:  "datagrams come to ztunnel alone",
			Exprs: nft.Concat(arriving(), nft.Drop()),
		})
	}
	return rules
}

// guardDatagramsOut lets no ICMP message out that says that a port is nobody's:
// it quotes the datagram, which may have come by a tunnel.
func (s Spec) guardDatagramsOut() []nft.Rule {
	if !s.datagrams() {
		return nil
	}
	return []nft.Rule{
		{What: "datagrams leave by ztunnel alone", Exprs: nft.Concat(nft.NotOut("lo"), s.leaving(), nft.Drop())},
		{What: "what reached no program is not told (IPv4)", Exprs: nft.Concat(nft.NotOut("lo"), nft.PortUnreachable(false), nft.Drop())},
		{What: "what reached no program is not told (IPv6)", Exprs: nft.Concat(nft.NotOut("lo"), nft.PortUnreachable(true), nft.Drop())},
	}
}

func of(lo netip.Addr) string {
	if lo.Is6() {
		return " (IPv6)"
	}
	return " (IPv4)"
}
