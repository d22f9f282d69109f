package sabotage

// guarding breaks what waypoints let pass.
func guarding() []Sabotage {
	return []Sabotage{
		{
			Name:  "a rule about methods allows what is not HTTP",
			File:  "internal/policy/http.go",
			Old:   "		t.set, t.ok = true, t.ok && t.widen\n",
			New:   "		t.set = true\n",
			Tests: []Test{{"internal/policy", "TestWhatCannotBeToldCloses"}, {"internal/policy", "TestEvaluateAgreesWithTheOracle"}, {"e2e/scenario", "TestScenarios"}},
		},
		{
			Name:  "a CUSTOM policy passes what nobody asked about",
			File:  "internal/policy/policy.go",
			Old:   "		case p.Action == mesh.ActionCustom && !q.Asked:\n",
			New:   "		case p.Action == mesh.ActionCustom && false:\n",
			Tests: []Test{{"internal/policy", "TestCustomPoliciesAreAskedFirst"}, {"internal/policy", "TestEvaluateAgreesWithTheOracle"}},
		},
		{
			Name:  "of a header sent twice only both values joined count",
			File:  "internal/policy/http.go",
			Old:   "		return holds(strings.Join(lines, \",\")) || slices.ContainsFunc(lines, holds)\n",
			New:   "		return holds(strings.Join(lines, \",\"))\n",
			Tests: []Test{{"internal/policy", "TestWhatCannotBeToldCloses"}, {"internal/policy", "TestEvaluateAgreesWithTheOracle"}},
		},
		{
			Name:  "a DENY with something that nobody can read is left out",
			File:  "istiod-lite/translate/authorization.go",
			Old:   "	return c.action != mesh.ActionAllow\n",
			New:   "	return false\n",
			Tests: []Test{{"istiod-lite/translate", "TestConversionForWaypointsNeverOpens"}, {"istiod-lite/translate", "TestConversionNeverOpens"}},
		},
		{
			Name:  "a provider that does not answer lets requests pass",
			File:  "waypoint/extauthz/extauthz.go",
			Old:   "	if p.FailOpen {\n",
			New:   "	if p.Name != \"\" {\n",
			Tests: []Test{{"waypoint/extauthz", "TestAProviderThatDoesNotAnswer"}, {"waypoint/exchange", "TestProvidersAreAsked"}},
		},
		{
			Name:  "tokens never expire",
			File:  "waypoint/authn/verify.go",
			Old:   "	case h.Expiry != nil && !now",
			New:   "	case h.Expiry == nil && !now",
			Tests: []Test{{"waypoint/authn", "TestTokensAreVerified"}},
		},
		{
			Name:  "clients may write what tokens are to write",
			File:  "waypoint/authn/authn.go",
			Old:   "	dropOutputs(q.Header, rules)\n",
			New:   "",
			Tests: []Test{{"waypoint/authn", "TestHeadersForBackends"}},
		},
		{
			Name:  "one good token is enough",
			File:  "waypoint/authn/authn.go",
			Old:   "		if err != nil {\n			return nil, &Refused",
			New:   "		if err != nil && first != nil {\n			continue\n		}\n		if err != nil {\n			return nil, &Refused",
			Tests: []Test{{"waypoint/authn", "TestEveryTokenMustBeGood"}},
		},
		{
			Name:  "an issuer's outage takes its keys away",
			File:  "istiod-lite/jwks/jwks.go",
			Old:   "			next.Keys, next.Problem = last.Keys, ",
			New:   "			next.Problem = ",
			Tests: []Test{{"istiod-lite/jwks", "TestKeysSurviveAnOutage"}},
		},
		{
			Name:  "keys are fetched from the cloud's metadata",
			File:  "istiod-lite/jwks/fetch.go",
			Old:   "	return a.IsLoopback() || a.IsUnspecified() || a.IsLinkLocalUnicast() || a.IsMulticast()\n",
			New:   "	return false\n",
			Tests: []Test{{"istiod-lite/jwks", "TestWhatOnlyTheControlPlaneReachesIsNotFetched"}},
		},
	}
}
