package rules

import (
	"github.com/google/nftables"

	"github.com/ambit-mesh/ambit/cni/nft"
	"github.com/ambit-mesh/ambit/internal/linux"
)

// GuardName is a second table beside TableName, which lets nothing pass that
// the first ought to have captured: it is what closes while a rule, a chain or
// the whole of the first is missing and has not been mended yet.
const GuardName = "istio-ambient-guard"

// guardPriority is after every translation, so that a packet that has not been
// translated by then was not captured.
const guardPriority = 150

// Guard describes that table. It drops and does not refuse: whoever sent the
// packet sends it again, and by then the rules are mended, so that a connection
// is late and neither lost nor in clear.
func (s Spec) Guard() nft.Table {
	inbound, outbound := guardInbound(), guardOutbound()
	if s.BypassInbound || s.Draining {
		inbound = nil
	}
	if s.Draining {
		outbound = nil
	}
	return nft.Table{Name: GuardName, Chains: []nft.Chain{
		apart(),
		{
			Name: "guard-inbound", Type: nftables.ChainTypeFilter, Hook: nftables.ChainHookInput,
			Priority: guardPriority, Rules: append(inbound, s.guardDatagramsIn()...),
		},
		{
			Name: "guard-outbound", Type: nftables.ChainTypeFilter, Hook: nftables.ChainHookPostrouting,
			Priority: guardPriority, Rules: append(outbound, s.guardDatagramsOut()...),
		},
	}}
}

func guardInbound() []nft.Rule {
	return []nft.Rule{
		{What: "kubelet probes reach the program (IPv4)", Exprs: nft.Concat(nft.Source(ProbeSourceV4), nft.TCP(), nft.Accept())},
		{What: "kubelet probes reach the program (IPv6)", Exprs: nft.Concat(nft.Source(ProbeSourceV6), nft.TCP(), nft.Accept())},
		{
			What: "what is captured comes to ztunnel alone",
			Exprs: nft.Concat(nft.NotIn("lo"), nft.TCP(), nft.Translated(), nft.There(), nft.NotDstPort(inboundPort),
				nft.NotMark(linux.Mark), nft.Drop()),
		},
		{
			What: "new plaintext connections come to ztunnel alone",
			Exprs: nft.Concat(nft.NotIn("lo"), nft.TCP(), nft.SYN(), nft.First(), nft.NotDstPort(inboundPort),
				nft.NotDstPort(hbonePort), nft.NotMark(linux.Mark), nft.Drop()),
		},
	}
}

func guardOutbound() []nft.Rule {
	return []nft.Rule{
		{
			What:  "what ztunnel answers to the pod's program is translated back (15001)",
			Exprs: nft.Concat(nft.TCP(), nft.SrcPort(outboundPort), nft.Translated(), nft.Drop()),
		},
		{
			What:  "what ztunnel answers to a client is translated back (15006)",
			Exprs: nft.Concat(nft.TCP(), nft.SrcPort(inboundPort), nft.Translated(), nft.Drop()),
		},
		{
			What:  "what the pod's program answers to clients of ztunnel goes back to it",
			Exprs: nft.Concat(nft.NotOut("lo"), nft.TCP(), nft.ConnMark(returnMark), nft.Drop()),
		},
		{
			What: "what is captured leaves by ztunnel alone",
			Exprs: nft.Concat(nft.NotOut("lo"), nft.TCP(), nft.Translated(), nft.There(), nft.NotMark(linux.Mark),
				nft.NotMark(returnMark), nft.Drop()),
		},
		{
			What: "new connections leave by ztunnel alone",
			Exprs: nft.Concat(nft.NotOut("lo"), nft.TCP(), nft.SYN(), nft.First(), nft.NotMark(linux.Mark), nft.NotMark(returnMark),
				nft.Drop()),
		},
	}
}
