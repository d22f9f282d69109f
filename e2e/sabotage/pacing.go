package sabotage

// pacing breaks how the control plane copes with many: changes and clients.
func pacing() []Sabotage {
	return []Sabotage{
		{
			Name:  "a storm of changes does not coalesce",
			File:  "istiod-lite/push/pace.go",
			Old:   "			rest := time.NewTimer(pause)\n",
			New:   "			rest := time.NewTimer(pause / 1000)\n",
			Tests: []Test{{"istiod-lite", "TestAStormCoalesces"}, {"istiod-lite/push", "TestPace"}},
		},
		{
			Name:  "every client has its own copy of what all are sent",
			File:  "internal/xds/message.go",
			Old:   "		if e.same(r) {\n",
			New:   "		if e.same(r) && false {\n",
			Tests: []Test{{"internal/xds", "TestWhatManyClientsGetIsEncodedOnce"}},
		},
		{
			Name:  "the control plane remembers the versions of objects that are gone",
			File:  "istiod-lite/ledger/ledger.go",
			Old:   "			delete(l.entries, ref) // gone\n",
			New:   "",
			Tests: []Test{{"istiod-lite", "TestWhatIsGoneLeavesNothingBehind"}},
		},
		{
			Name:  "the control plane remembers pods that are gone",
			File:  "istiod-lite/placement.go",
			Old:   "	delete(p.pods, k)\n",
			New:   "",
			Tests: []Test{{"istiod-lite", "TestWhatIsGoneLeavesNothingBehind"}},
		},
		{
			Name:  "proxies remember the accounts of pods that are gone",
			File:  "internal/view/batch.go",
			Old:   "	withdraw(&b.byAccount, account{w.Namespace, w.Name, w.ServiceAccount}, w)\n",
			New:   "",
			Tests: []Test{{"internal/view", "TestWhatIsGoneLeavesNothingBehind"}},
		},
		{
			Name:  "a leak of memory is taken for noise",
			File:  "e2e/soak/slope.go",
			Old:   "	return Slope{Value: at((pairs - 1) / 2), Low: at((pairs-1)/2 - half),",
			New:   "	return Slope{Value: at((pairs - 1) / 2), Low: at((pairs-1)/2 - 9*half),",
			Tests: []Test{{"e2e/soak", "TestALeakIsToldFromNoiseAndSteps"}},
		},
		{
			Name:  "all who come back are read at once",
			File:  "internal/xds/session.go",
			Old:   "	if err := c.arrive(); err != nil {\n		return err\n	}\n	defer c.arrived()\n",
			New:   "	c.arrived = func() {}\n",
			Tests: []Test{{"internal/xds", "TestOfManyWhoReturnFewAreReadAtOnce"}},
		},
		{
			Name:  "one that comes and says nothing keeps others out",
			File:  "internal/xds/session.go",
			Old:   "	late := time.AfterFunc(arriveLimit, leave)\n",
			New:   "	late := time.AfterFunc(100*arriveLimit, leave)\n",
			Tests: []Test{{"internal/xds", "TestWhoIsSlowDoesNotKeepOthersWaitingForLong"}},
		},
		{
			Name:  "one that comes and does not read keeps others out",
			File:  "internal/xds/send.go",
			Old:   "	c.arrived()\n",
			New:   "",
			Tests: []Test{{"internal/xds", "TestWhoIsSlowDoesNotKeepOthersWaitingForLong"}},
		},
	}
}
