package sabotage

// lasting breaks what lets node proxies be replaced, killed and started without
// a control plane, and this run for long.
func lasting() []Sabotage {
	return []Sabotage{
		{
			Name:  "istiod remembers the labels of pods that went",
			File:  "istiod-lite/kube/shared.go",
			Old:   "	if len(s.young) == sharedAtOnce || s.young == nil {\n",
			New:   "	if s.young == nil {\n",
			Tests: []Test{{"istiod-lite/kube", "TestPodsThatWentLeaveNothingInTheStripper"}},
		},
		{
			Name:  "a kept state is used though it was torn or changed",
			File:  "ztunnel/kept/file.go",
			Old:   "	if sha256.Sum256(text[:end]) != s {\n",
			New:   "	if len(text) == 0 {\n",
			Tests: []Test{{"ztunnel/kept", "TestWhatCannotBeTrustedIsRefused"}},
		},
		{
			Name:  "policies are not restored with the workloads that were kept",
			File:  "ztunnel/kept/state.go",
			Old:   "	for _, typ := range types {\n		u := ",
			New:   "	for _, typ := range types[1:] {\n		u := ",
			Tests: []Test{{"ztunnel/kept", "TestWhatWasKeptIsReadAsItWas"}, {"e2e/inpod", "TestAZtunnelStartedWhileTheControlPlaneIsAwayGoesOnAsBefore"}},
			Root:  true,
		},
		{
			Name:  "a state in part is kept, before its policies have come",
			File:  "ztunnel/kept/known.go",
			Old:   "	if k.known.overflow || k.known.whole() {\n",
			New:   "	if k.known.size >= 0 {\n",
			Tests: []Test{{"ztunnel/kept", "TestAStateInPartIsNeverWritten"}},
		},
		{
			Name:  "a kept certificate is restored after its end",
			File:  "internal/certs/kept.go",
			Old:   "	if err := c.check(own, now); err != nil {\n",
			New:   "	if err := c.check(own, c.Leaf().NotBefore); err != nil {\n",
			Tests: []Test{{"internal/certs", "TestAnExpiredKeptCertificateIsNeverUsed"}},
		},
		{
			Name:  "a kept certificate below a root that was replaced is used",
			File:  "internal/certs/kept.go",
			Old:   " || !m.trust.Load().fits(c) || m.guard.names(c) {\n",
			New:   " {\n",
			Tests: []Test{{"internal/certs", "TestAKeptCertificateBelowARootThatWasReplacedIsNotUsed"}},
		},
		{
			Name:  "which roots were forgotten is forgotten at the next start",
			File:  "internal/certs/manager.go",
			Old:   "	if cfg.Told != nil {\n",
			New:   "	if cfg.Told != nil && m.cfg.TTL == 0 {\n",
			Tests: []Test{{"internal/certs", "TestWhatWasToldOfRootsOutlivesTheProcess"}},
		},
		{
			Name:  "keys are kept on a disk",
			File:  "ztunnel/kept/keys.go",
			Old:   "	if !k.take(keysFile) || !inMemory(k.config.Dir) {\n",
			New:   "	if !k.take(keysFile) {\n",
			Tests: []Test{{"ztunnel/kept", "TestCertificatesAreKeptInMemoryOnly"}},
		},
		{
			Name:  "a server that drains says no GOAWAY",
			File:  "internal/hbone/h2/serve.go",
			Old:   "func (t *tunnel) goAway() {\n",
			New:   "func (t *tunnel) goAway() {\n	if t.tuning.Logger != nil {\n		t.mu.Lock()\n		t.drainLocked()\n		t.mu.Unlock()\n		return\n	}\n",
			Tests: []Test{{"internal/hbone/h2", "TestConformance"}, {"internal/hbone/h2", "TestTheTwoStepsOfADrain"}},
		},
		{
			Name:  "a draining server hangs up on who is in the handshake",
			File:  "internal/hbone/h2/server.go",
			Old:   "	if s.ctx.Err() != nil {\n",
			New:   "	if s.draining {\n",
			Tests: []Test{{"internal/hbone/h2", "TestAConnectionInItsHandshakeIsServedByADrainingServer"}},
		},
		{
			Name:  "a stream that a draining tunnel refuses is not opened in another",
			File:  "internal/hbone/pool/pool.go",
			Old:   "		if !errors.Is(err, hbone.ErrDraining) && !errors.Is(err, hbone.ErrSilent) {\n",
			New:   "		if err != hbone.ErrClosed {\n",
			Tests: []Test{{"internal/hbone/pool", "TestAStreamThatATunnelRefusesIsOpenedInAnother"}},
		},
		{
			Name:  "another endpoint is asked after a policy said no",
			File:  "ztunnel/outbound/outbound.go",
			Old:   "		return status.Response.Status == hbone.StatusUnavailable\n",
			New:   "		return status.Response.Status != hbone.StatusOK\n",
			Tests: []Test{{"ztunnel/outbound", "TestWhereConnectionsGo"}},
		},
		{
			Name:  "a node proxy that is being started again is not waited for",
			File:  "ztunnel/outbound/bridge.go",
			Old:   "	if !absent(err) {\n",
			New:   "	if !absent(err) || f.bridged.until.IsZero() {\n",
			Tests: []Test{{"ztunnel/outbound", "TestWhereConnectionsGo"}},
		},
		{
			Name:  "a pod that cannot be served makes its node unready",
			File:  "ztunnel/inpod/session.go",
			Old:   "			m.config.Ready(true)\n",
			New:   "			all := true\n			for _, p := range m.Pods() {\n				all = all && p.State == Up\n			}\n			m.config.Ready(all)\n",
			Tests: []Test{{"ztunnel/inpod", "TestAPodThatCannotBeServedHarmsOnlyItselfAndIsTriedAgain"}},
		},
		{
			Name:  "connections that a drain cuts are not counted",
			File:  "ztunnel/connections/cut.go",
			Old:   "	if err == nil || cut == nil || cut.Err() == nil {\n",
			New:   "	if err == nil || cut != nil {\n",
			Tests: []Test{{"e2e/inpod", "TestAZtunnelThatEndsLetsConnectionsFinishUntilItsDeadline"}},
			Root:  true,
		},
		{
			Name:  "connections that a kill cut are not looked for",
			File:  "ztunnel/journal/journal.go",
			Old:   "				lost = append(lost, read(text)...)\n",
			New:   "				_ = read(text)\n",
			Tests: []Test{{"ztunnel/journal", "TestWhatWasOpenAtAKillIsFoundOnce"}},
		},
	}
}
