package sabotage

// crossing breaks the choice of a tunnel's transport, and what each of them
// promises.
func crossing() []Sabotage {
	return []Sabotage{
		{
			Name:  "an address where HTTP/3 was blocked is never tried again",
			File:  "internal/hbone/fallback/blocked.go",
			Old:   "!time.Now().Before(b.until)",
			New:   "b.until.IsZero()",
			Tests: []Test{{"internal/hbone/fallback", "TestABlockIsNotForEver"}},
		},
		{
			Name:  "each tunnel waits anew where HTTP/3 is blocked",
			File:  "internal/hbone/fallback/fallback.go",
			Old:   "				d.block(t, cmp.Or(failed[1], errSlow))\n",
			New:   "				_ = cmp.Or(failed[1], errSlow)\n",
			Tests: []Test{{"internal/hbone/fallback", "TestABlockedAddressDelaysOnce"}},
		},
		{
			Name:  "a client that is to use HTTP/2 alone gets HTTP/3",
			File:  "internal/mesh/transport.go",
			Old:   "	return t != TransportH2 && destination",
			New:   "	return destination",
			Tests: []Test{{"e2e/inpod", "TestOverWhatTunnelsAreMade"}},
			Root:  true,
		},
		{
			Name:  "a tunnel through which nothing comes any more is waited for",
			File:  "internal/hbone/h3/open.go",
			Old:   "		end(why)\n",
			New:   "		_ = end\n",
			Tests: []Test{{"e2e/inpod", "TestHTTP3IsBlockedInTheMiddleOfTraffic"}},
			Root:  true,
		},
		{
			Name:  "a namespace's transport is not its pods'",
			File:  "istiod-lite/translate/workload.go",
			Old:   "[]map[string]string{pod.Labels, labelsOf(namespace)} {\n",
			New:   "[]map[string]string{pod.Labels} {\n		_ = namespace\n",
			Tests: []Test{{"istiod-lite/translate", "TestPodToWorkload"}},
		},
		{
			Name:  "an identity refused over one transport is tried over the other",
			File:  "internal/hbone/fallback/fallback.go",
			Old:   "			case refused(r.err):\n",
			New:   "			case false:\n",
			Tests: []Test{{"internal/hbone/fallback", "TestOverWhatATunnelIsMade/nothing_where_HTTP/3_meets_a_stranger"}},
		},
	}
}
