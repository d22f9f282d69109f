package sabotage

// resilience breaks what waypoints do about the endpoints of services.
func resilience() []Sabotage {
	return []Sabotage{
		{
			Name:  "an endpoint that was taken for sick goes on getting requests",
			File:  "waypoint/circuit/recovery.go",
			Old:   "	case Open, HalfOpen:\n	}\n	return 0\n",
			New:   "	case Open, HalfOpen:\n	}\n	return Whole\n",
			Tests: []Test{{"waypoint/balance", "TestASickEndpointIsIsolatedWithinTwoSeconds"}, {"waypoint/balance", "TestTrafficLeavesAZoneWhoseEndpointsAreEjected"}},
		},
		{
			Name:  "an endpoint that seems well again gets its whole part at once",
			File:  "waypoint/circuit/recovery.go",
			Old:   "	c.move(now, Ramping)\n",
			New:   "	c.move(now, Closed)\n",
			Tests: []Test{{"waypoint/circuit", "TestStates"}, {"waypoint/balance", "TestAnEjectedEndpointGetsOnlyProbesAndComesBackGradually"}},
		},
		{
			Name:  "a relapse is forgotten at once",
			File:  "waypoint/circuit/circuit.go",
			Old:   "	c.relapses++\n",
			New:   "",
			Tests: []Test{{"waypoint/circuit", "TestRelapsesEjectLongerAndAreForgiven"}, {"waypoint/balance", "TestARelapseEjectsLonger"}},
		},
		{
			Name:  "the last endpoint may be ejected too",
			File:  "waypoint/balance/breaker.go",
			Old:   " && out+1 < r.ready\n",
			New:   "\n",
			Tests: []Test{{"waypoint/balance", "TestNeverIsEveryoneEjected"}},
		},
		{
			Name:  "a request that failed is tried at the same endpoint again",
			File:  "waypoint/balance/balancer.go",
			Old:   "return len(q.Avoid) > 0 && slices.Contains(q.Avoid, uid) }",
			New:   "return len(q.Avoid) > 99 && slices.Contains(q.Avoid, uid) }",
			Tests: []Test{{"waypoint/balance", "TestTheChoiceIsAnEndpointThatMayBeUsed"}, {"waypoint/balance", "TestWhateverHappensNoRuleIsBroken"}},
		},
		{
			Name:  "the bound of a connection pool is not looked at",
			File:  "waypoint/balance/connections.go",
			Old:   "	case s.used < limit:\n",
			New:   "	case true:\n",
			Tests: []Test{{"waypoint/balance", "TestConnectionsAreBoundedAndAwaited"}, {"waypoint/exchange", "TestAConnectionPoolOfOne"}},
		},
		{
			Name:  "of two DestinationRules for one host the younger counts",
			File:  "istiod-lite/translate/destination.go",
			Old:   "cmp.Compare(d.created, o.created)",
			New:   "cmp.Compare(o.created, d.created)",
			Tests: []Test{{"istiod-lite/translate", "TestTraffic"}},
		},
		{
			Name:  "nobody is told that a field of a DestinationRule has no effect",
			File:  "istiod-lite/translate/destination.go",
			Old:   "	d.notes = append(d.notes, fmt.Sprintf(format, args...))\n",
			New:   "	_ = fmt.Sprintf(format, args...)\n",
			Tests: []Test{{"istiod-lite/translate", "TestTraffic"}},
		},
	}
}
