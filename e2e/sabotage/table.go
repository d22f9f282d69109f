package sabotage

import "slices"

// Table is every sabotage, in the order in which they are committed.
func Table() []Sabotage {
	return slices.Concat(
		capture(),
		explaining(),
		tunnel(),
		policy(),
		control(),
		routing(),
		carrying(),
		attaching(),
		around(),
		lasting(),
		resilience(),
		telling(),
		guarding(),
		waypoints(),
		admitting(),
		naming(),
		holding(),
		pacing(),
		abusing(),
		trusting(),
		datagrams(),
		tunnelling(),
		crossing(),
		flows(),
	)
}

// capture breaks how connections get to the node proxy.
func capture() []Sabotage {
	return []Sabotage{
		{
			Name:  "redirection off: what pods send is not captured",
			File:  "cni/rules/table.go",
			Old:   "nft.Redirect(outboundPort)),\n",
			New:   "nft.Accept()),\n",
			Tests: []Test{{"cni/rules", "TestCapture"}},
			Root:  true,
		},
		{
			Name:  "redirection off: what reaches pods in clear is not captured",
			File:  "cni/rules/table.go",
			Old:   "				nft.Redirect(inboundPort)),\n",
			New:   "				nft.Accept()),\n",
			Tests: []Test{{"cni/rules", "TestCapture"}},
			Root:  true,
		},
		{
			Name:  "the SYN-only match is removed: open connections are captured too",
			File:  "cni/nft/match.go",
			Old:   "		equal([]byte{syn}),\n	}\n}\n\n// DstPort",
			New:   "		&expr.Cmp{Op: expr.CmpOpNeq, Register: reg, Data: []byte{0xff}},\n	}\n}\n\n// DstPort",
			Tests: []Test{{"cni/rules", "TestOpenConnectionsOutliveEnrolmentAndRelease"}},
			Root:  true,
		},
		{
			Name:  "the plugin takes whatever it hears for a yes",
			File:  "cni/event/client.go",
			Old:   "		return fmt.Errorf(\"reading the ambit cni agent's answer: it is none: %.100q\", answer)\n",
			New:   "		return nil\n",
			Tests: []Test{{"cni/event", "TestOnlyAYesLetsAPodStart"}},
		},
		{
			Name:  "the plugin lets pods start while the agent is away",
			File:  "cni/plugin/plugin.go",
			Old:   "		if err := ask(args, conf, pod); err != nil {\n",
			New:   "		if err := ask(args, conf, pod); err != nil && false {\n",
			Tests: []Test{{"cni/plugin", "TestAddFailsClosed"}},
		},
	}
}

const newTunnel = "func newTunnel(c secured, w *wire, tuning Tuning, client bool) *tunnel {\n"

// inClear is the connection without its TLS. What the handshake read too much
// is given first.
const inClear = `type inClear struct {
	secured
	w *wire
}

func (c inClear) Read(p []byte) (int, error) {
	if c.w.w > c.w.r {
		n := copy(p, c.w.in[c.w.r:c.w.w])
		c.w.r += n
		return n, nil
	}
	return c.w.Conn.Read(p)
}

func (c inClear) Write(p []byte) (int, error) { return c.w.Write(p) }

`

// tunnel breaks what happens between two node proxies.
func tunnel() []Sabotage {
	return []Sabotage{
		{
			Name:  "HBONE in plaintext: after the handshake both ends write past TLS",
			File:  "internal/hbone/h2/tunnel.go",
			Old:   newTunnel,
			New:   inClear + newTunnel + "	c = inClear{c, w}\n",
			Tests: []Test{{"e2e/eavesdrop", "TestTheTunnelCannotBeRead"}},
		},
		{
			Name:  "encryption off: pods that accept HBONE are dialled in clear",
			File:  "ztunnel/route/outbound.go",
			Old:   "	if w.Tunnel != mesh.TunnelHBONE {\n",
			New:   "	if w.Tunnel != mesh.TunnelHBONE || true {\n",
			Tests: []Test{{"e2e/scenario", "TestScenarios"}, {"ztunnel/outbound", "TestWhereConnectionsGo"}},
		},
		{
			Name:  "the identity of the server is not checked",
			File:  "internal/certs/verify.go",
			Old:   "		if !slices.Contains(accept, got) {\n",
			New:   "		if false && !slices.Contains(accept, got) {\n",
			Tests: []Test{{"internal/hbone/h2", "TestConformance"}},
		},
		{
			Name:  "any CA and any date is accepted: chains are not verified",
			File:  "internal/certs/verify.go",
			Old:   "		return got, explain(chain[0], err)\n",
			New:   "		return got, nil\n",
			Tests: []Test{{"internal/hbone/h2", "TestConformance"}},
		},
		{
			Name:  "half-closes are lost",
			File:  "internal/relay/relay.go",
			Old:   "		err = dst.CloseWrite()\n",
			New:   "		err = nil\n",
			Tests: []Test{{"internal/relay", "TestHalfClosesPassBothWays"}},
		},
	}
}

// policy breaks who may connect.
func policy() []Sabotage {
	return []Sabotage{
		{
			Name:  "the policy evaluator always allows",
			File:  "internal/policy/policy.go",
			Old:   "func EvaluateRequest(s Set, q Request) Verdict {\n",
			New:   "func EvaluateRequest(s Set, q Request) Verdict {\n	if len(s.Policies) >= 0 {\n		return Verdict{Allow: true, Cause: CauseNoPolicy, Rule: -1}\n	}\n",
			Tests: []Test{{"internal/policy", "TestVerdicts"}, {"internal/policy", "TestEvaluateAgreesWithTheOracle"}, {"e2e/scenario", "TestScenarios"}},
		},
		{
			Name:  "a policy that has not arrived does not close",
			File:  "internal/view/policies.go",
			Old:   "			set.Unknown = append(set.Unknown, k)\n",
			New:   "			_ = set.Unknown\n",
			Tests: []Test{{"internal/view", "TestWhichPoliciesApply"}, {"e2e/scenario", "TestScenarios"}},
		},
		{
			Name:  "open connections are not judged again",
			File:  "ztunnel/connections/connections.go",
			Old:   "		if v := judge(*c.policy); !v.Allow {\n",
			New:   "		if v := judge(*c.policy); !v.Allow && false {\n",
			Tests: []Test{{"ztunnel/connections", "TestOnlyTheDeniedAreCutAndToldWhy"}, {"ztunnel/inbound", "TestAnOpenConnectionIsCutWhenAPolicyDeniesIt"}},
		},
		{
			Name:  "a tunnel may ask for an address that is not its destination's",
			File:  "ztunnel/route/inbound.go",
			Old:   "		if plain(a) != in.ConnDst.Addr() && !relays(v, local, plain(a)) {\n",
			New:   "		if false && !relays(v, local, plain(a)) {\n",
			Tests: []Test{{"ztunnel/inbound", "TestAnswersToConnect"}},
		},
		{
			Name:  "a named waypoint that is missing is passed by",
			File:  "ztunnel/route/outbound.go",
			Old:   "	if g := o.serviceWaypoint(s); !g.IsZero() && !o.isWaypoint(g) {\n",
			New:   "	if g := o.serviceWaypoint(s); false && !o.isWaypoint(g) {\n",
			Tests: []Test{{"e2e/scenario", "TestScenarios"}},
		},
		{
			Name:  "pods that are not ready get connections",
			File:  "ztunnel/route/balance.go",
			Old:   "	case w.Unhealthy && !s.LoadBalancing.AllowUnhealthy:\n",
			New:   "	case false && !s.LoadBalancing.AllowUnhealthy:\n",
			Tests: []Test{{"e2e/scenario", "TestScenarios"}},
		},
	}
}

// control breaks the control plane.
func control() []Sabotage {
	return []Sabotage{
		{
			Name:  "policies are pushed after the workloads that name them",
			File:  "internal/xds/send.go",
			Old:   "			if guards(typ, u.Name) {\n				to = &first\n",
			New:   "			if guards(typ, u.Name) {\n				to = &end\n",
			Tests: []Test{{"internal/xds", "TestPushOrder"}},
		},
		{
			Name:  "a node proxy gets certificates of pods that run elsewhere",
			File:  "istiod-lite/ca/authorize.go",
			Old:   "	if !pods.Runs(proxy.Node, Account{want.Namespace, want.ServiceAccount}) {\n",
			New:   "	if false {\n",
			Tests: []Test{{"istiod-lite/ca", "TestImpersonation"}},
		},
		{
			Name:  "certificates of a foreign trust domain are issued",
			File:  "istiod-lite/ca/authorize.go",
			Old:   "	case want.TrustDomain != trustDomain:\n",
			New:   "	case false:\n",
			Tests: []Test{{"istiod-lite/ca", "TestImpersonation"}},
		},
	}
}

// around breaks the installation, and what judges the conformance suite.
func around() []Sabotage {
	return []Sabotage{
		{
			Name:  "definitions that somebody else installed are overwritten",
			File:  "ambit/install/definitions.go",
			Old:   "	theirs := slices.DeleteFunc(slices.Clone(installed), func(b bundled) bool { return b.ours })\n",
			New:   "	theirs := slices.DeleteFunc(slices.Clone(installed), func(b bundled) bool { return true })\n",
			Tests: []Test{{"ambit/install", "TestWhoseDefinitionsOfTheGatewayAPIAreApplied"}},
		},
		{
			Name:  "waypoints stay when the mesh goes",
			File:  "ambit/install/waypoints.go",
			Old:   "		if !match(obj) {\n",
			New:   "		if match(obj) {\n",
			Tests: []Test{{"ambit/install", "TestUninstallDeletesTheWaypointsAndNothingElse"}},
		},
		{
			Name:  "a conformance test that was skipped counts as passed",
			File:  "e2e/trial/results.go",
			Old:   "		if o := r.outcome(test); o != Passed {\n",
			New:   "		if o := r.outcome(test); o == Failed {\n",
			Tests: []Test{{"e2e/trial", "TestWhatCountsAsPassed"}},
		},
		{
			Name:  "a conformance report is not looked at",
			File:  "e2e/trial/results.go",
			Old:   "	if r.cfg.reports() && r.ended {\n",
			New:   "	if r.cfg.reports() && !r.ended {\n",
			Tests: []Test{{"e2e/trial", "TestWhatCountsAsPassed"}},
		},
	}
}
