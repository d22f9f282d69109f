package sabotage

// abusing takes away what bounds peers that mean harm.
func abusing() []Sabotage {
	return []Sabotage{
		{
			Name:  "rapid reset is not counted",
			File:  "internal/hbone/h2/read.go",
			Old:   "time.Since(s.began) < patienceOfAll {\n",
			New:   "time.Since(s.began) < 0 {\n",
			Tests: []Test{{"internal/hbone/h2", "TestAbuseEndsTheConnection/requests_withdrawn_at_once"}},
		},
		{
			Name:  "handshakes have no end",
			File:  "internal/hbone/h2/server.go",
			Old:   "context.WithTimeout(ctx, s.handshakeTimeout())\n",
			New:   "context.WithCancel(ctx)\n",
			Tests: []Test{{"internal/hbone/h2", "TestAHandshakeThatDoesNotHappenIsCut"}},
		},
		{
			Name:  "handshakes of one address are not bounded",
			File:  "internal/hbone/door/door.go",
			Old:   "	case len(v.handshakes) >= d.handshakes:\n",
			New:   "	case len(v.handshakes) < 0:\n",
			Tests: []Test{{"internal/hbone/h2", "TestHalfOpenHandshakes"}},
		},
		{
			Name:  "who holds a place among the handshakes need not give it up",
			File:  "internal/hbone/h2/server.go",
			Old:   "		s.door.MakeRoom()\n",
			New:   "",
			Tests: []Test{{"internal/hbone/h2", "TestHalfOpenHandshakes"}},
		},
		{
			Name:  "an honest peer's handshake makes room for those of an abuser",
			File:  "internal/hbone/door/door.go",
			Old:   "		if len(v.handshakes) <= count {\n",
			New:   "		if count > 0 && len(v.handshakes) >= count {\n",
			Tests: []Test{{"internal/hbone/door", "TestWhoYields"}},
		},
		{
			Name:  "header blocks have no end",
			File:  "internal/hbone/h2/headers.go",
			Old:   "		if n > maxContinuations || length > 2*b.Limit() {\n",
			New:   "		if n < 0 {\n",
			Tests: []Test{{"internal/hbone/h2", "TestAbuseEndsTheConnection/CONTINUATION_without_end"}},
		},
		{
			Name:  "what nobody reads is not bounded",
			File:  "internal/hbone/h2/unread.go",
			Old:   "	if u := t.tuning.Unread; u.held.Load() >= u.limit {\n",
			New:   "	if u := t.tuning.Unread; u.held.Load() < 0 {\n",
			Tests: []Test{{"internal/hbone/h2", "TestAHoarderIsCut"}},
		},
		{
			Name:  "an honest peer is punished: tiny frames of DATA count as nothing",
			File:  "internal/hbone/h2/data.go",
			Old:   "	if n == 0 && !end {\n",
			New:   "	if n < 10 && !end {\n",
			Tests: []Test{{"internal/hbone/h2", "TestHonestPeersAreNotPunished/frames_of_one_byte_at_full_speed"}},
		},
		{
			Name:  "the control plane sends what no proxy takes",
			File:  "internal/xds/send.go",
			Old:   "size > most {\n",
			New:   "size < 0 {\n",
			Tests: []Test{{"internal/xds", "TestOversizedMessagesEndWithAReasonAtBothEnds/a_response_that_the_server_must_not_send"}},
		},
		{
			Name:  "captured connections are not bounded",
			File:  "ztunnel/capture/capture.go",
			Old:   "		s.places <- struct{}{} // at the latest",
			New:   "		if len(s.places) < cap(s.places) {\n			s.places <- struct{}{}\n		} // at the latest",
			Tests: []Test{{"ztunnel/capture", "TestMoreThanTheMostWait"}},
		},
	}
}
