package sabotage

// flows breaks what is promised of UDP.
func flows() []Sabotage {
	return []Sabotage{
		{
			Name:  "UDP in clear comes in unjudged",
			File:  "ztunnel/podproxy/datagrams.go",
			Old:   "u.in.PlainDatagrams()}",
			New:   "p.plainly()}",
			Tests: []Test{{"e2e/inpod", "TestWhoMaySendDatagrams"}},
			Root:  true,
		},
		{
			Name:  "the UDP of programs leaves in clear",
			File:  "ztunnel/podproxy/datagrams.go",
			Old:   "u.out.Datagrams(p.plainly())",
			New:   "datagrams.Carrier(p.plainly())",
			Tests: []Test{{"e2e/inpod", "TestDatagramsAreCarriedWithIdentity"}},
			Root:  true,
		},
		{
			Name:  "a flow of UDP outlives its permission",
			File:  "ztunnel/inbound/inbound.go",
			Old:   "	return ctx, d.Upstream, nil\n",
			New:   "	if a.flow.Datagrams {\n		ctx = context.WithoutCancel(ctx)\n	}\n	return ctx, d.Upstream, nil\n",
			Tests: []Test{{"e2e/inpod", "TestAFlowEndsWithItsPermission"}},
			Root:  true,
		},
		{
			Name:  "UDP for what is behind a waypoint goes past it",
			File:  "ztunnel/route/datagrams.go",
			Old:   "		return unpassable(w.Waypoint)\n",
			New:   "		return o.direct(w, o.dst)\n",
			Tests: []Test{{"ztunnel/route", "TestWhereDatagramsGo"}},
		},
		{
			Name:  "a service's UDP does not reach its pods' port",
			File:  "internal/mesh/datagrams.go",
			Old:   "	if !ok || declared.Target != 0 {\n		return declared.Target\n	}\n",
			New:   "	if !ok || declared.Target != 0 {\n		return declared.Service\n	}\n",
			Tests: []Test{{"e2e/inpod", "TestAServiceOfUDPLeadsToOneEndpointForAFlow"}, {"ztunnel/route", "TestWhereDatagramsGo"}},
			Root:  true,
		},
		{
			Name:  "a flow of UDP that is being opened is given up as idle",
			File:  "ztunnel/datagrams/live.go",
			Old:   "		left = limit // opening",
			New:   "		_ = limit // opening",
			Tests: []Test{{"ztunnel/datagrams", "TestAFlowIsNotIdleWhileItIsOpened"}},
		},
		{
			Name:  "a running pod's UDP is captured before anybody takes it",
			File:  "cni/members/steps.go",
			Old:   "udp = h.udp || k.heard(h, since)",
			New:   "udp = h.udp || since != time.Time{}",
			Tests: []Test{{"cni/members", "TestDriftIsMended"}},
			Root:  true,
		},
		{
			Name:  "peers send UDP by tunnels before it is captured",
			File:  "istiod-lite/translate/translator.go",
			Old:   " && pod.Annotations[mesh.DatagramsAnnotation] == \"enabled\"",
			New:   "",
			Tests: []Test{{"istiod-lite/translate", "TestPodToWorkload"}},
		},
		{
			Name:  "a running pod's UDP is not captured when its label comes",
			File:  "cni/members/steps.go",
			Old:   "h.udp != udp, ",
			New:   "",
			Tests: []Test{{"cni/members", "TestDriftIsMended"}},
			Root:  true,
		},
		{
			Name:  "a pod whose UDP is not the mesh's is said to take it",
			File:  "istiod-lite/translate/translator.go",
			Old:   "w.Settings.CaptureDatagrams && w.Tunnel == mesh.TunnelHBONE && pod",
			New:   "w.Settings.CaptureDatagrams && pod",
			Tests: []Test{{"istiod-lite/translate", "TestPodToWorkload"}},
		},
		{
			Name:  "UDP is counted as connections",
			File:  "internal/telemetry/labels.go",
			Old:   "		datagrams:   f.Datagrams,\n",
			New:   "",
			Tests: []Test{{"internal/telemetry", "TestAFlowOfUDPHasMetricsOfItsOwn"}},
		},
		{
			Name:  "what was dropped of UDP is forgotten with its pod",
			File:  "internal/telemetry/drops.go",
			Old:   "			d.ended[reason] += n\n",
			New:   "			_, _ = reason, n\n",
			Tests: []Test{{"internal/telemetry", "TestDroppedDatagramsAreCountedBeyondTheirPod"}},
		},
	}
}
