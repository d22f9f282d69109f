package sabotage

// routing breaks what becomes of requests at a waypoint.
func routing() []Sabotage {
	const pkg = "waypoint/match"
	return []Sabotage{
		{
			Name:  "a weight is ignored",
			File:  "waypoint/match/match.go",
			Old:   "		if n -= int(rule.Backends[i].Weight); n < 0 {\n",
			New:   "		if n--; n < 0 {\n",
			Tests: []Test{{pkg, "TestBackends"}, {pkg, "TestTheConformanceSuitesWeights"}},
		},
		{
			Name:  "the share of an invalid backend is not refused",
			File:  "waypoint/match/match.go",
			Old:   "			return b, b.Invalid == \"\"\n",
			New:   "			return b, true\n",
			Tests: []Test{{pkg, "TestBackends"}},
		},
		{
			Name:  "a consumer's routes speak for clients of every namespace",
			File:  "waypoint/match/compile.go",
			Old:   "		if errs = append(errs, err); ns == service.Namespace {\n",
			New:   "		if errs = append(errs, err); out.producer == nil || ns == service.Namespace {\n",
			Tests: []Test{{pkg, "TestProducersAndConsumers"}, {pkg, "TestTheConformanceSuitesParents"}, {pkg, "TestTheOracleAgrees"}},
		},
		{
			Name:  "a newer route wins over an older one",
			File:  "waypoint/match/compile.go",
			Old:   "cmp.Compare(a.Created, b.Created)",
			New:   "cmp.Compare(b.Created, a.Created)",
			Tests: []Test{{pkg, "TestAmongEquals"}, {pkg, "TestTheOracleAgrees"}},
		},
		{
			Name:  "what no rule matches goes to the service itself",
			File:  "waypoint/match/find.go",
			Old:   "	return Decision{Outcome: NotFound, Rule: -1, Match: -1}\n",
			New:   "	return Decision{Rule: -1, Match: -1}\n",
			Tests: []Test{{pkg, "TestTheConformanceSuitesMatches"}, {pkg, "TestRoutesThatCannotBeRead"}, {pkg, "TestTheOracleAgrees"}},
		},
		{
			Name:  "dots climb out of a path that a rule or policy matches",
			File:  "internal/urlpath/urlpath.go",
			Old:   "			kept = kept[:max(0, len(kept)-1)]\n",
			New:   "			kept = append(kept, seg)\n",
			Tests: []Test{{"internal/urlpath", "TestPathsHaveOneForm"}, {pkg, "TestMatches"}, {pkg, "TestTheOracleAgrees"}},
		},
		{
			Name:  "a header filter is skipped",
			File:  "waypoint/match/headers.go",
			Old:   "	EditResponse(e, header)\n	delete(header, \"Host\")\n",
			New:   "	delete(header, \"Host\")\n",
			Tests: []Test{{pkg, "TestHeaderEdits"}},
		},
		{
			Name:  "a request that may have been processed is sent again",
			File:  "waypoint/match/retry.go",
			Old:   "	return f == FailureUnsent || slices.Contains(r.Codes, status)\n",
			New:   "	return f != FailureNone || slices.Contains(r.Codes, status)\n",
			Tests: []Test{{pkg, "TestRetries"}},
		},
	}
}
