package sabotage

// carrying breaks how a waypoint carries requests and connections.
func carrying() []Sabotage {
	const (
		exchange  = "waypoint/exchange"
		terminate = "waypoint/terminate"
		forward   = "waypoint/forward"
	)
	return []Sabotage{
		{
			Name:  "policy comes behind the backend",
			File:  exchange + "/exchange.go",
			Old:   "(*exchange).authorize,\n	(*exchange).takeHeader, (*exchange).route, (*exchange).filter, (*exchange).choose, (*exchange).send,\n",
			New:   "(*exchange).takeHeader, (*exchange).route, (*exchange).filter, (*exchange).choose, (*exchange).send,\n	(*exchange).authorize,\n",
			Tests: []Test{{exchange, "TestADeniedRequestReachesNobody"}},
		},
		{
			Name:  "a backend that speaks HBONE is reached plainly",
			File:  forward + "/dial.go",
			Old:   "	if to.Workload.Tunnel == mesh.TunnelHBONE {\n",
			New:   "	if to.Workload.Tunnel == mesh.TunnelHBONE && false {\n",
			Tests: []Test{{forward, "TestABackendMustBeWhoItIsTakenFor"}, {forward, "TestAPodWhoseZtunnelHasDiedGetsNoPlaintext"}},
		},
		{
			Name:  "a backend may have any of the identities that some service allows",
			File:  forward + "/client.go",
			Old:   "	if c != nil && c.serves(to) {\n",
			New:   "	for _, c := range f.clients {\n		return c, nil\n	}\n	if c != nil && c.serves(to) {\n",
			Tests: []Test{{forward, "TestABackendMustBeWhoItIsTakenFor"}},
		},
		{
			Name:  "the waypoint is an open relay",
			File:  terminate + "/resolve.go",
			Old:   "	if !t.servesService(v, s) {\n",
			New:   "	if false {\n",
			Tests: []Test{{terminate, "TestOnlyWhatUsesThisWaypointIsReached"}},
		},
		{
			Name:  "bytes of a declared TCP port are read as HTTP",
			File:  terminate + "/speech.go",
			Old:   "	case mesh.AppTCP, mesh.AppTLS:\n		if routes == match.ProtocolTLS {\n",
			New:   "	case mesh.AppTCP, mesh.AppTLS:\n		if routes == match.ProtocolHTTP {\n			return speechHTTP\n		}\n		if routes == match.ProtocolTLS {\n",
			Tests: []Test{{terminate, "TestDeclarationsComeBeforeRoutes"}},
		},
		{
			Name:  "a connection that a new policy denies goes on",
			File:  terminate + "/live.go",
			Old:   "	if v.Allow {\n",
			New:   "	if true || v.Allow {\n",
			Tests: []Test{{terminate, "TestPoliciesGuardConnections"}},
		},
		{
			Name:  "a length that is told twice passes",
			File:  exchange + "/strict.go",
			Old:   "	case h.lengths > 1 || h.codes > 1:\n",
			New:   "	case h.codes > 1:\n",
			Tests: []Test{{exchange, "TestFramingCases"}},
		},
		{
			Name:  "the headers of a connection go on",
			File:  exchange + "/header.go",
			Old:   "	for _, name := range hop {\n",
			New:   "	for _, name := range hop[:1] {\n",
			Tests: []Test{{exchange, "TestHeadersOfAConnectionGoNoFurther"}},
		},
		{
			Name:  "a rule's change of the path is skipped",
			File:  exchange + "/route.go",
			Old:   "	e.host, e.path = d.Rewrite(&after)\n",
			New:   "	e.host, e.path = after.Host, after.Path\n",
			Tests: []Test{{exchange, "TestRulesTakeRequests"}},
		},
		{
			Name:  "what leaves the waypoint is served without its policies",
			File:  terminate + "/former.go",
			Old:   "			return table, true\n",
			New:   "			return t.Table(), true\n",
			Tests: []Test{{"waypoint", "TestAServiceThatLeavesIsServedByItsOldPoliciesForAWhile"}},
		},
		{
			Name:  "state and certificates end before a proxy has drained",
			File:  "internal/drain/life.go",
			Old:   "context.WithCancel(context.WithoutCancel(ctx))",
			New:   "context.WithCancel(ctx)",
			Tests: []Test{{"internal/drain", "TestWhatRunsBesideOutlivesTheDrain"}},
		},
	}
}
