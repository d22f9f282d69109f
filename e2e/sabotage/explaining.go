package sabotage

// explaining breaks what a user is told of faults, of single connections, and
// of what is served.
func explaining() []Sabotage {
	return []Sabotage{
		{
			Name:  "ambit check passes by a node without ztunnel or agent",
			File:  "ambit/doctor/coverage.go",
			Old:   "	case p.Pod == \"\":\n",
			New:   "	case false:\n",
			Tests: []Test{{"ambit/doctor", "TestEachFaultIsNamedWithItsFix"}},
		},
		{
			Name:  "ambit check is content with what it could not look at",
			File:  "ambit/doctor/doctor.go",
			Old:   "Finding{Fail, u.What, \"could not be looked at",
			New:   "Finding{OK, u.What, \"could not be looked at",
			Tests: []Test{{"ambit/doctor", "TestEachTroubleIsFoundAndAFixTold"}},
		},
		{
			Name:  "ambit check finds fault with what goes with its namespace",
			File:  "ambit/doctor/namespaces.go",
			Old:   "func(w WaypointStatus) bool { return !lives[w.Namespace] }",
			New:   "func(w WaypointStatus) bool { return false }",
			Tests: []Test{{"ambit/doctor", "TestWhatGoesWithItsNamespaceIsNoFault"}},
		},
		{
			Name:  "ambit check takes a root that has expired for a good one",
			File:  "ambit/doctor/trust.go",
			Old:   "		case !f.Now.Before(until):\n",
			New:   "		case false:\n",
			Tests: []Test{{"ambit/doctor", "TestEachFaultIsNamedWithItsFix"}},
		},
		{
			Name:  "a node proxy says that it reaches nodes that it does not",
			File:  "ztunnel/reach.go",
			Old:   "	if err != nil {\n		r.Error",
			New:   "	if err != nil && false {\n		r.Error",
			Tests: []Test{{"e2e/inpod", "TestAZtunnelTellsHowItIsAndWhomItReaches"}},
			Root:  true,
		},
		{
			Name:  "the node agent does not tell which rules it had to mend",
			File:  "cni/agent/seen.go",
			Old:   "	if len(drift) > 0 {\n",
			New:   "	if false {\n",
			Tests: []Test{{"cni/agent", "TestWhatChangedInAPodIsCounted"}},
		},
		{
			Name:  "ambit why names a policy that did not decide",
			File:  "internal/decision/policies.go",
			Old:   "o.Policy == v.Policy &&",
			New:   "o.Policy != v.Policy &&",
			Tests: []Test{{"e2e/inpod", "TestTwentySituationsAreForeseenAndExplained"}},
			Root:  true,
		},
		{
			Name:  "ambit why does not tell which policy a waypoint denied by",
			File:  "waypoint/exchange/story.go",
			Old:   "	out.Policies = decision.Policies(s.policies, s.asked, s.verdict)\n",
			New:   "",
			Tests: []Test{{"waypoint/exchange", "TestStoriesSayWhyAndWhyNot"}},
		},
		{
			Name:  "ambit why tells of another client than was asked for",
			File:  "ambit/ask/latest.go",
			Old:   "	return p.Source.is(s.Source) &&",
			New:   "	return true &&",
			Tests: []Test{{"ambit/ask", "TestTheNewestDecisionBetweenTwoIsFound"}},
		},
		{
			Name:  "ambit can does not ask the policies of a connection's destination",
			File:  "ztunnel/connects.go",
			Old:   "	f.add(c, in.Status == hbone.StatusOK, in.Reason)\n",
			New:   "	f.add(c, in.Status == hbone.StatusOK || true, in.Reason)\n",
			Tests: []Test{{"ztunnel", "TestWhatBothEndsWouldSayOfAConnection"}},
		},
		{
			Name:  "a wait ends at a proxy's word, whatever it decides with",
			File:  "ambit/ask/served.go",
			Old:   "		case a.Asked && a.Said.Configuration < by[p.Name].given:\n",
			New:   "		case false:\n",
			Tests: []Test{{"ambit/ask", "TestAnAcknowledgementIsProvenByWhatTheProxyDecidesWith"}, {"e2e/scenario", "TestTheWaitEndsWhenTheProxyDecidesByIt"}},
		},
		{
			Name:  "a deleted object counts as gone while the control plane holds it",
			File:  "istiod-lite/ledger/ledger.go",
			Old:   "	case q.Gone && (!ok || e.version == \"\"):\n",
			New:   "	case q.Gone:\n",
			Tests: []Test{{"istiod-lite/ledger", "TestAVersionIsHeldFromTheGenerationThatFirstHadIt"}, {"e2e/scenario", "TestTheWaitEndsWhenTheProxyDecidesByIt"}},
		},
	}
}
