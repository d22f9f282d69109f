package sabotage

// tunnelling breaks what HBONE over QUIC must make good itself, and datagrams.
func tunnelling() []Sabotage {
	const (
		h3      = "internal/hbone/h3"
		capsule = "internal/hbone/capsule"
	)
	return []Sabotage{
		{
			Name: "h3 without client certificate check",
			File: h3 + "/server.go",
			Old:  "	return secured(cfg), nil\n",
			New:  "	cfg = secured(cfg)\n	cfg.VerifyConnection = nil\n	return cfg, nil\n",
			Tests: []Test{
				{h3, "TestConformance/a_client_with_a_foreign_CA_is_refused"},
				{h3, "TestConformance/a_client_with_an_expired_certificate_is_refused"},
				{h3, "TestConformance/a_client_of_another_trust_domain_is_refused"},
			},
		},
		{
			Name:  "sessions over QUIC may be resumed, and what is said early may come again",
			File:  h3 + "/handshake.go",
			Old:   "	cfg.SessionTicketsDisabled = true\n",
			New:   "	cfg.SessionTicketsDisabled = false\n",
			Tests: []Test{{h3, "TestNothingIsResumedOrSaidEarly"}},
		},
		{
			Name:  "a tunnel follows its peer to another address",
			File:  h3 + "/tunnel.go",
			Old:   "now.Addr() != t.peer.Remote.Addr() {\n",
			New:   "now.Addr() != t.peer.Remote.Addr() && false {\n",
			Tests: []Test{{h3, "TestATunnelDoesNotFollowItsPeerToAnotherAddress"}},
		},
		{
			Name:  "a datagram too large for a packet is dropped silently",
			File:  h3 + "/datagram.go",
			Old:   "	return s.sendCapsule(ctx, p)\n",
			New:   "	return nil\n",
			Tests: []Test{{h3, "TestConformance/datagrams_of_every_size_arrive_both_ways"}},
		},
		{
			Name:  "over QUIC everybody's address is believed",
			File:  h3 + "/visit.go",
			Old:   "func (s *server) doubts(from net.Addr) bool {\n",
			New:   "func (s *server) doubts(from net.Addr) bool {\n	if s != nil {\n		return false\n	}\n",
			Tests: []Test{{h3, "TestHalfOpenHandshakes"}},
		},
		{
			Name:  "a reset overtakes what was written before it",
			File:  h3 + "/stream.go",
			Old:   "		s.q.SetReliableBoundary()\n",
			New:   "",
			Tests: []Test{{h3, "TestConformance/what_came_before_a_reset_is_read_first"}},
		},
		{
			Name:  "the end of a drained connection drops what nobody has read yet",
			File:  h3 + "/leave.go",
			Old:   "	if len(t.streams) > 0 || len(t.untaken) > 0 || t.opening > 0 {\n",
			New:   "	if len(t.streams) > 0 || t.opening > 0 {\n",
			Tests: []Test{{h3, "TestConformance/what_arrived_before_its_sender_left_for_good_is_delivered"}},
		},
		{
			Name:  "streams of which the peer wants no more count for ever",
			File:  h3 + "/stream.go",
			Old:   "	if !errors.Is(context.Cause(s.q.Context()), quic.ErrStreamClosed) {\n",
			New:   "	if s.q.Context().Err() == nil {\n",
			Tests: []Test{{h3, "TestConformance/streams_that_were_reset_at_either_end_make_room_for_others"}},
		},
		{
			Name:  "datagrams that nobody receives are kept",
			File:  capsule + "/queue.go",
			Old:   "	if len(q.waiting) >= maxQueued || q.bytes+len(p) > maxQueuedBytes {\n",
			New:   "	if len(q.waiting) < 0 {\n",
			Tests: []Test{{capsule, "TestAQueueIsBoundedByNumberAndByBytes"}},
		},
	}
}
