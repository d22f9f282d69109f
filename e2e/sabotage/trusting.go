package sabotage

// trusting breaks how roots are replaced and certificates taken back.
func trusting() []Sabotage {
	const (
		certs    = "internal/certs"
		rotation = "istiod-lite/rotation"
		ca       = "istiod-lite/ca"
	)
	return []Sabotage{
		{
			Name:  "the old root is trusted for ever",
			File:  rotation + "/rotation.go",
			Old:   "		n.Phase, n.Trusted = Forget, sorted(t.Roots)\n",
			New:   "		n.Phase = Forget\n",
			Tests: []Test{{rotation, "TestTheWayFromOneAuthorityToAnother"}, {ca, "TestARootIsReplacedAndNobodyNotices"}},
		},
		{
			Name:  "the new root signs before all trust it",
			File:  rotation + "/rotation.go",
			Old:   "		n.Phase = Spread\n",
			New:   "		n.Phase, n.Signer = Spread, t.Signer\n",
			Tests: []Test{{rotation, "TestTheWayFromOneAuthorityToAnother"}, {rotation, "TestNobodyEverPresentsWhatAnotherDoesNotTrust"}},
		},
		{
			Name:  "who is silent counts as having confirmed",
			File:  rotation + "/confirm.go",
			Old:   "	lacks := silent\n",
			New:   "	lacks := \"\"\n",
			Tests: []Test{{rotation, "TestWhoHoldsAPhaseBack"}, {ca, "TestAProxyThatIsAwayHoldsTheRotationBack"}},
		},
		{
			Name:  "the old root is forgotten while some have its certificates",
			File:  rotation + "/confirm.go",
			Old:   "		} else if len(old) > 0 {\n",
			New:   "		} else if len(old) > 0 && false {\n",
			Tests: []Test{{rotation, "TestNobodyEverPresentsWhatAnotherDoesNotTrust"}},
		},
		{
			Name:  "a lagging replica is not waited for",
			File:  rotation + "/confirm.go",
			Old:   "r.Epoch >= s.Epoch }) {\n",
			New:   "r.Epoch >= 0 }) {\n",
			Tests: []Test{{rotation, "TestWhoHoldsAPhaseBack"}},
		},
		{
			Name:  "mounted roots are not waited for",
			File:  rotation + "/confirm.go",
			Old:   "		case p.HasFile && !contains(p.File, s.Trusted):\n",
			New:   "		case false:\n",
			Tests: []Test{{ca, "TestAMountedFileOfRootsIsWaitedFor"}},
		},
		{
			Name:  "a certificate of a root that is being replaced is taken",
			File:  certs + "/manager.go",
			Old:   "	case !t.fits(c):\n",
			New:   "	case false:\n",
			Tests: []Test{{certs, "TestARootIsReplacedInStepsAndToldOfEach"}},
		},
		{
			Name:  "lists of revoked certificates are ignored in handshakes",
			File:  certs + "/verify.go",
			Old:   "			if err == nil && h.guard != nil {\n",
			New:   "			if err == nil && h.guard != nil && false {\n",
			Tests: []Test{{certs, "TestRevokedCertificates"}},
		},
		{
			Name:  "a tunnel to who is revoked goes on",
			File:  certs + "/crl.go",
			Old:   "	w.end(err)\n",
			New:   "",
			Tests: []Test{{certs, "TestATunnelToWhoIsRevokedIsEndedAndNoOther"}},
		},
		{
			Name:  "a list that cannot be read clears the last one",
			File:  certs + "/crl.go",
			Old:   "	if err != nil {\n		g.bad(err)\n		return false\n	}\n	lists",
			New:   "	if err != nil {\n		g.bad(err)\n	}\n	lists",
			Tests: []Test{{certs, "TestRevokedCertificates"}},
		},
		{
			Name:  "a list by anybody revokes",
			File:  certs + "/revocation.go",
			Old:   " && l.signedAbove(c, chain, roots) {\n",
			New:   " {\n",
			Tests: []Test{{certs, "TestRevokedCertificates"}},
		},
		{
			Name:  "short certificates are not tried for again before they end",
			File:  certs + "/manager.go",
			Old:   "	return min(d, max(c.Leaf().NotAfter.Sub(now)/4, time.Second))\n",
			New:   "	return c.Leaf().NotAfter.Sub(now)\n",
			Tests: []Test{{certs, "TestShortCertificatesAreTriedForOftenEnoughBeforeTheyEnd"}},
		},
		{
			Name:  "one that has ended is replaced only when its renewal is due",
			File:  certs + "/manager.go",
			Old:   "		m.overdueLocked(e)\n",
			New:   "",
			Tests: []Test{{certs, "TestOneThatHasEndedBeforeItsRenewalIsReplacedAtOnce"}},
		},
		{
			Name:  "apply waits for a replica that has ended",
			File:  "ambit/ask/served.go",
			Old:   "		w.opened = time.Time{} // who did not answer may have gone\n",
			New:   "		w.opened = time.Now().Add(time.Hour)\n",
			Tests: []Test{{"ambit/ask", "TestAwaitGoesOnWithTheReplicasThatAreLeft"}},
		},
		{
			Name:  "who was met before is let in after its certificate's end",
			File:  certs + "/proofs.go",
			Old:   "	return ok && !now.Before(s.from) && !now.After(s.until)\n",
			New:   "	return ok && !now.Before(s.from)\n",
			Tests: []Test{{certs, "TestAPeerThatWasMetBeforeIsJudgedAnew"}, {certs, "TestWhatIsRememberedOfAPeer"}},
		},
		{
			Name:  "who was met before is let in by roots that do not count any more",
			File:  certs + "/proofs.go",
			Old:   "		p.roots = &r[0]\n",
			New:   "",
			Tests: []Test{{certs, "TestAPeerThatWasMetBeforeIsJudgedAnew"}, {certs, "TestWhatIsRememberedOfAPeer"}},
		},
		{
			Name:  "who was met before lends its name to others",
			File:  certs + "/verify.go",
			Old:   "	if shown := proofOf(chain, trusted); !known.known(shown, time.Now()) {\n",
			New:   "	if shown := proofOf(chain[:0], trusted); !known.known(shown, time.Now()) {\n",
			Tests: []Test{{certs, "TestAPeerThatWasMetBeforeIsJudgedAnew"}},
		},
	}
}
