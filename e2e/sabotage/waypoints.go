package sabotage

// waypoints breaks how waypoints are made, named and waited for.
func waypoints() []Sabotage {
	return []Sabotage{
		{
			Name:  "whoever is not allowed to use a waypoint uses it",
			File:  "istiod-lite/translate/waypoint.go",
			Old:   "		return name == home\n",
			New:   "		return name == home || name != \"\"\n",
			Tests: []Test{{"e2e/scenario", "TestScenarios"}},
		},
		{
			Name:  "a waypoint that is missing is passed by",
			File:  "istiod-lite/translate/binding.go",
			Old:   "	if n.open && !w.addressed {\n",
			New:   "	if !w.addressed {\n",
			Tests: []Test{{"e2e/scenario", "TestScenarios"}},
		},
		{
			Name:  "status written without serving: a waypoint without a ready pod is said to be ready",
			File:  "istiod-lite/translate/waypoint.go",
			Old:   "		if ready(pod) && matches(",
			New:   "		if matches(",
			Tests: []Test{{"e2e/scenario", "TestScenarios"}},
		},
		{
			Name:  "the pods behind a policy of a service admit everybody",
			File:  "istiod-lite/translate/screen.go",
			Old:   "	if s == nil || b.Address.IsZero() || len(t.screening.aimedAt[k]) == 0 {\n",
			New:   "	if s == nil || b.Address.IsZero() || len(t.screening.aimedAt[k]) >= 0 {\n",
			Tests: []Test{{"e2e/scenario", "TestScenarios"}},
		},
		{
			Name:  "connections do not wait for their waypoint",
			File:  "ztunnel/outbound/waypoint.go",
			Old:   "	if !d.Pending {\n",
			New:   "	if d.Pending || !d.Pending {\n",
			Tests: []Test{{"ztunnel/outbound", "TestAConnectionWaitsForItsWaypoint"}},
		},
		{
			Name:  "an object of somebody else becomes a waypoint's",
			File:  "istiod-lite/kube/provision.go",
			Old:   "			return errNotOurs\n",
			New:   "			p.log.Warn(\"taking over\", \"reason\", errNotOurs)\n",
			Tests: []Test{{"istiod-lite/kube", "TestProvisioning"}},
		},
		{
			Name:  "what somebody changed of a waypoint stays so",
			File:  "istiod-lite/kube/provision.go",
			Old:   "				add(after)\n",
			New:   "				_ = after\n",
			Tests: []Test{{"istiod-lite/kube", "TestProvisioning"}},
		},
		{
			Name:  "a waypoint of the mesh's own goes although a service needs it again",
			File:  "istiod-lite/kube/provision.go",
			Old:   "		if unused && time.Since(idle.since) >= p.hold {\n",
			New:   "		if unused || time.Since(idle.since) >= p.hold {\n",
			Tests: []Test{{"istiod-lite/kube", "TestAnIdleWaypointStaysForAWhile"}},
		},
		{
			Name:  "an overlay that cannot be laid is passed over",
			File:  "istiod-lite/provision/overlay.go",
			Old:   "	if err := yaml.UnmarshalStrict([]byte(text), partial); err != nil {\n",
			New:   "	if err := yaml.Unmarshal([]byte(text), partial); err != nil {\n",
			Tests: []Test{{"istiod-lite/provision", "TestOverlaysThatCannotBeLaidHoldTheWaypoint"}},
		},
	}
}
