package sabotage

// attaching breaks how routes come to services, and what their authors are told.
func attaching() []Sabotage {
	const pkg = "istiod-lite/translate"
	return []Sabotage{
		{
			Name:  "a stale route is kept",
			File:  "istiod-lite/translate/routestatus.go",
			Old:   "	if d == nil {\n		t.routes.del(key)\n",
			New:   "	if d == nil {\n",
			Tests: []Test{{pkg, "TestRoutesThatMeetLeadWhereTheWholeDoes"}, {"e2e/scenario", "TestScenarios"}},
		},
		{
			Name:  "a status is written without serving",
			File:  "istiod-lite/translate/routestatus.go",
			Old:   "	case b.Ready:\n",
			New:   "	case b.Ready || true:\n",
			Tests: []Test{{pkg, "TestRoutes"}},
		},
		{
			Name:  "a filter that is not supported is passed over",
			File:  "istiod-lite/translate/routefilter.go",
			Old:   "		w = unsupported(\"filter %s is not supported\", f.Type)\n",
			New:   "		w = nil\n",
			Tests: []Test{{pkg, "TestRoutes"}},
		},
		{
			Name:  "the share of a backend that is not there goes to the others",
			File:  "istiod-lite/translate/routebackend.go",
			Old:   "	b.Invalid = fmt.Sprintf(format, args...)\n",
			New:   "	b.Invalid = fmt.Sprintf(format, args...)\n	b.Weight = 0\n",
			Tests: []Test{{pkg, "TestRoutes"}, {"e2e/scenario", "TestScenarios"}},
		},
		{
			Name:  "a consumer's route takes a port from the service's own",
			File:  "istiod-lite/translate/routes.go",
			Old:   "				claim(slot{a.object, p, k.Namespace}, k)\n",
			New:   "				claim(slot{a.object, p, a.object.Namespace}, k)\n",
			Tests: []Test{{pkg, "TestRoutes"}, {"e2e/scenario", "TestScenarios"}},
		},
		{
			Name:  "a port that is not HTTP takes an HTTPRoute",
			File:  "istiod-lite/translate/routeparent.go",
			Old:   "		if speaks(kind, appProtocol(p)) {\n",
			New:   "		if speaks(kind, appProtocol(p)) || true {\n",
			Tests: []Test{{pkg, "TestRoutes"}},
		},
		{
			Name:  "what other controllers say of a route is taken away",
			File:  "istiod-lite/kube/parents.go",
			Old:   "		if entry[\"controllerName\"] != routeController {\n			next = append(next, e)\n",
			New:   "		if entry[\"controllerName\"] != routeController {\n",
			Tests: []Test{{"istiod-lite/kube", "TestParentsOfRoutes"}, {"istiod-lite/kube", "TestRouteStatusIsWrittenOverTheNewestVersionOnly"}},
		},
	}
}
