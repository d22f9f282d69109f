package sabotage

// datagrams breaks how UDP gets to the node proxy and back.
func datagrams() []Sabotage {
	return []Sabotage{
		{
			Name:  "UDP replies come from the proxy's own address",
			File:  "internal/linux/answers.go",
			Old:   "c.WriteMsgIP(packet, sourceAddress(from.Addr().Unmap()), ",
			New:   "c.WriteMsgIP(packet, nil, ",
			Tests: []Test{{"internal/linux", "TestDatagramsToldWhereTheyWereGoingAndAnsweredFromThere"}, {"cni/rules", "TestDatagramsAreCaptured"}},
			Root:  true,
		},
		{
			Name:  "the loss of the chain that takes datagrams is not noticed",
			File:  "cni/rules/apply.go",
			Old:   "	return slices.Concat(drift, guard, routes), nil\n",
			New:   "	return slices.DeleteFunc(slices.Concat(drift, guard, routes), func(d string) bool { return len(d) > 23 && d[:23] == \"chain capture-datagrams\" }), nil\n",
			Tests: []Test{{"cni/rules", "TestEveryDamageIsNoticedAndMended"}},
			Root:  true,
		},
		{
			Name:  "the loss of the rule that brings datagrams to lo is not noticed",
			File:  "cni/rules/route.go",
			Old:   "			case wanted && !found:\n",
			New:   "			case wanted && !found && m != datagrams:\n",
			Tests: []Test{{"cni/rules", "TestEveryDamageIsNoticedAndMended"}},
			Root:  true,
		},
		{
			Name:  "DNS is captured as UDP",
			File:  "cni/rules/datagrams.go",
			Old:   "nft.Concat(nft.UDP(), nft.NotDstPort(namePort), nft.NotMark(linux.Mark), ",
			New:   "nft.Concat(nft.UDP(), nft.NotMark(linux.Mark), ",
			Tests: []Test{{"cni/rules", "TestDatagramsAreCaptured"}},
			Root:  true,
		},
		{
			Name:  "who sends from the port of DNS is passed on",
			File:  "cni/rules/datagrams.go",
			Old:   "nft.SrcPort(namePort), nft.Back(), nft.Accept()",
			New:   "nft.SrcPort(namePort), nft.Accept()",
			Tests: []Test{{"cni/rules", "TestWhoSendsFromThePortOfNamesIsNotPassedOn"}},
			Root:  true,
		},
		{
			Name:  "what ztunnel answers for others is tracked",
			File:  "internal/linux/answers.go",
			Old:   "[]option{markOption(AnswerMark), transparent}",
			New:   "[]option{markOption(Mark), transparent}",
			Tests: []Test{{"cni/rules", "TestWhileARuleIsMissingNoDatagramPassesInClear"}},
			Root:  true,
		},
		{
			Name:  "datagrams pass in clear while ztunnel does not listen",
			File:  "cni/rules/datagrams.go",
			Old:   "			Exprs: nft.Concat(arriving(), nft.Drop()),\n",
			New:   "			Exprs: nft.Concat(arriving(), nft.Accept()),\n",
			Tests: []Test{{"cni/rules", "TestWithoutZtunnelNoDatagramPasses"}, {"cni/rules", "TestWhileARuleIsMissingNoDatagramPassesInClear"}},
			Root:  true,
		},
		{
			Name:  "the network is told what came by a tunnel and reached no program",
			File:  "cni/rules/datagrams.go",
			Old:   "nft.PortUnreachable(false), nft.Drop()",
			New:   "nft.PortUnreachable(false), nft.Accept()",
			Tests: []Test{{"cni/rules", "TestNobodyOutsideIsToldWhatReachedNoProgram"}},
			Root:  true,
		},
	}
}
