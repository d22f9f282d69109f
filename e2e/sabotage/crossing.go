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
			Name:  "an identity refused over one transport is tried over the other",
			File:  "internal/hbone/fallback/fallback.go",
			Old:   "			case refused(r.err):\n",
			New:   "			case false:\n",
			Tests: []Test{{"internal/hbone/fallback", "TestOverWhatATunnelIsMade/nothing_where_HTTP/3_meets_a_stranger"}},
		},
	}
}
