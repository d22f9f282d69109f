package rules

import (
	"net/netip"

	"github.com/google/nftables"

	"github.com/ambit-mesh/ambit/cni/nft"
	"github.com/ambit-mesh/ambit/internal/linux"
)

// TableName is the one nftables table (family inet) in a pod's namespace. The
// upstream agent's tables are called istio-ambient-nat and so on.
const TableName = "istio-ambient"

// ztunnel's ports inside a pod.
const (
	outboundPort = 15001
	inboundPort  = 15006
	hbonePort    = 15008
	dnsPort      = 15053
)

// namePort is where DNS is asked.
const namePort = 53

// nameZone is where ztunnel's own DNS queries are tracked. The kernel remembers
// a query of a program for a while as one that it redirects; ztunnel's own may
// come from the same port, and would be redirected to ztunnel again.
const nameZone = 1

// spoofedZone is where connections to the pod's own program that come with the
// client's address are tracked on their way there. The client may have one of
// the same ports to ztunnel, since a NAT on its way gives it any; in one zone
// they would be the same connection, and both would end.
const spoofedZone = 2

// apart is the chain for that. It is in both tables of a pod, since a connection
// that loses its zone ends: one of the two may be missing for a while.
func apart() nft.Chain {
	return nft.Chain{
		Name: "track-spoofed", Type: nftables.ChainTypeFilter, Hook: nftables.ChainHookOutput,
		Priority: int32(*nftables.ChainPriorityRaw),
		Rules: []nft.Rule{{
			What:  "connections from ztunnel to the pod's program are tracked apart from their clients'",
			Exprs: nft.Concat(nft.Out("lo"), nft.TCP(), nft.Mark(linux.Mark), nft.MarkBit(linux.SpoofedMark), nft.SetZoneThere(spoofedZone)),
		}},
	}
}

// returnMark marks connections that ztunnel opened to the pod's own program
// with the client's address as source; their replies must find ztunnel.
const returnMark = 0x111

// The sources that the node gives to the kubelet's probes (cni/probes), which
// are never captured.
var (
	ProbeSourceV4 = netip.MustParseAddr("169.254.7.127")
	ProbeSourceV6 = netip.MustParseAddr("fd16:9254:7127:1337:ffff:ffff:ffff:ffff")
)

// Spec says which rules a pod is to have.
type Spec struct {
	// BypassInbound leaves plaintext that comes in alone; HBONE works. For
	// ingress gateways, annotation ambient.istio.io/bypass-inbound-capture.
	BypassInbound bool
	// DNS brings the pod's DNS queries to ztunnel.
	DNS bool
	// UDP brings the pod's other datagrams to ztunnel, those to it and those from
	// it, but not what is sent to many or stays inside. Of these none is older
	// than the rules: from the first on all are captured. A pod that drains has
	// them back at once.
	UDP bool
	// Draining captures nothing new and keeps what is captured alive.
	Draining bool
}

// Table describes the pod's nftables table.
func (s Spec) Table() nft.Table {
	inbound, outbound := inboundRules(), s.outboundRules()
	if s.BypassInbound || s.Draining {
		inbound = nil
	}
	if s.Draining {
		outbound = nil
	}
	chains := []nft.Chain{
		apart(),
		{
			Name: "track-replies", Type: nftables.ChainTypeFilter, Hook: nftables.ChainHookPrerouting,
			Priority: int32(*nftables.ChainPriorityRaw), Rules: s.replyRules(),
		},
		{
			Name: "track-queries", Type: nftables.ChainTypeFilter, Hook: nftables.ChainHookOutput,
			Priority: int32(*nftables.ChainPriorityRaw), Rules: append(s.answerRules(), s.queryRules()...),
		},
		{
			Name: "mark-inbound", Type: nftables.ChainTypeFilter, Hook: nftables.ChainHookPrerouting,
			Priority: int32(*nftables.ChainPriorityMangle),
			Rules: []nft.Rule{{
				What:  "remember connections from ztunnel to the pod's program",
				Exprs: nft.Concat(nft.Mark(linux.Mark), nft.SetConnMark(returnMark)),
			}},
		},
		{
			// Of type route, not filter: only it routes the packet again.
			Name: "mark-outbound", Type: nftables.ChainTypeRoute, Hook: nftables.ChainHookOutput,
			Priority: int32(*nftables.ChainPriorityMangle),
			Rules: append([]nft.Rule{{
				What:  "send their replies back to ztunnel",
				Exprs: nft.Concat(nft.ConnMark(returnMark), nft.SetMark(returnMark)),
			}}, s.sendRules()...),
		},
		// The chains of type nat stay while draining, though empty: without
		// them the kernel would stop translating captured connections.
		{
			Name: "capture-inbound", Type: nftables.ChainTypeNAT, Hook: nftables.ChainHookPrerouting,
			Priority: int32(*nftables.ChainPriorityNATDest), Rules: inbound,
		},
		{
			Name: "capture-outbound", Type: nftables.ChainTypeNAT, Hook: nftables.ChainHookOutput,
			Priority: int32(*nftables.ChainPriorityNATDest), Rules: outbound,
		},
	}
	return nft.Table{Name: TableName, Chains: append(chains, s.takeChains()...)}
}

func inboundRules() []nft.Rule {
	return []nft.Rule{
		// Only for a packet that was on its way through lo when the rules came:
		// others have been decided upon by the outbound chain.
		{What: "what stays inside the pod is its own matter", Exprs: nft.Concat(nft.In("lo"), nft.Accept())},
		{What: "kubelet probes reach the program (IPv4)", Exprs: nft.Concat(nft.Source(ProbeSourceV4), nft.TCP(), nft.Accept())},
		{What: "kubelet probes reach the program (IPv6)", Exprs: nft.Concat(nft.Source(ProbeSourceV6), nft.TCP(), nft.Accept())},
		{
			What: "new plaintext connections go to ztunnel",
			Exprs: nft.Concat(nft.TCP(), nft.SYN(), nft.NotDstPort(hbonePort), nft.NotMark(linux.Mark),
				nft.Redirect(inboundPort)),
		},
	}
}

func (s Spec) outboundRules() []nft.Rule {
	rules := []nft.Rule{
		{What: "what stays inside the pod is its own matter", Exprs: nft.Concat(nft.Out("lo"), nft.Accept())},
	}
	if s.DNS {
		rules = append(rules, nameRules()...)
	}
	return append(rules, nft.Rule{
		What: "new connections go to ztunnel, unless they are ztunnel's own",
		Exprs: nft.Concat(nft.TCP(), nft.SYN(), nft.NotMark(linux.Mark), nft.NotMark(returnMark),
			nft.Redirect(outboundPort)),
	})
}
