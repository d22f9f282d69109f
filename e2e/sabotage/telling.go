package sabotage

// telling breaks what the mesh says of itself.
func telling() []Sabotage {
	return []Sabotage{
		{
			Name:  "applied objects count as served before proxies have taken them",
			File:  "ambit/ask/served.go",
			Old:   "		case c.Acked() >= generation:\n",
			New:   "		case true:\n",
			Tests: []Test{{"ambit/ask", "TestWhatIsServed"}}, // the wait itself would still look at what the proxy decides with
		},
		{
			Name:  "a proxy that is connected to nobody counts as up to date",
			File:  "ambit/ask/served.go",
			Old:   "!ok && len(s.Missing) == 0 {\n",
			New:   "!ok && len(s.Missing) < 0 {\n",
			Tests: []Test{{"ambit/ask", "TestWhatIsServed"}},
		},
		{
			Name:  "ambit can does not ask the policies",
			File:  "waypoint/exchange/forecast.go",
			Old:   "		if no := step(e); no != nil {\n",
			New:   "		if no := step(e); no != nil && no.status != 403 {\n",
			Tests: []Test{{"waypoint/exchange", "TestForecastsSayWhatRequestsGetAndSendNothing"}},
		},
		{
			Name:  "the two ends of a tunnel remember a connection under different ids",
			File:  "ztunnel/outbound/request.go",
			Old:   "f.flow.ID,\n",
			New:   "\"\",\n",
			Tests: []Test{{"ztunnel/outbound", "TestTheClientsEndTellsWhereTheConnectionWent"}},
		},
		{
			Name:  "a denied request is counted as a good one",
			File:  "waypoint/exchange/reply.go",
			Old:   "	e.record.Flag, e.record.Err = a.flag, a.err\n",
			New:   "	e.record.Flag, e.record.Err = \"-\", a.err\n",
			Tests: []Test{{"waypoint/exchange", "TestADeniedRequestReachesNobody"}},
		},
		{
			Name:  "the trace of a request ends at the waypoint",
			File:  "internal/tracing/span.go",
			Old:   "	s.carried.write(headers, span.SpanContext(), s.span.SpanContext().SpanID())\n",
			New:   "",
			Tests: []Test{{"internal/tracing", "TestContextsOfEveryKindAreFollowedAndGoOn"}},
		},
	}
}
