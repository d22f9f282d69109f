package outbound

import (
	"strings"
	"testing"

	"github.com/ambit-mesh/ambit/internal/hbone"
)

func TestTheClientsEndTellsWhereTheConnectionWent(t *testing.T) {
	for _, tt := range []struct {
		sentence, dst string
		prepare       func(*rig)
		choice, flag  string
		attempts      int
		reason, last  string
		inTunnel      bool
	}{
		{"a service", "10.96.0.1:80", func(*rig) {}, "an endpoint of the service, by a tunnel", "-", 1, "allowed by test", "", true},
		{"an endpoint that does not accept, and then another", "10.96.0.1:80", func(r *rig) {
			r.tunnels.answer["10.1.0.6:15008"] = status(503, "gone")
			r.tunnels.answer["10.1.0.7:15008"] = status(503, "gone")
		}, "an endpoint of the service, by a tunnel", "CONNECT", 2, "gone", "503", true},
		{"what the destination denies", "10.1.0.6:8080", func(r *rig) {
			r.tunnels.answer["10.1.0.6:15008"] = status(401, "denied by DENY policy shop/p rule 0")
		}, "the workload that was dialled, by a tunnel", "DENY", 1, "denied by DENY policy shop/p rule 0", "policy rejection", true},
		{"what takes no tunnel", "10.96.0.2:80", func(*rig) {}, "it takes no tunnel: in clear", "-", 1, "", "", false},
		{"what is none of the mesh's", "192.0.2.1:80", func(*rig) {}, "nothing of the mesh is there: passed on in clear", "-", 1, "", "", false},
		{"a waypoint that is missing", "10.1.0.9:8080", func(*rig) {}, "", "CONNECT", 0, "", "", false},
	} {
		r := newRig(t)
		tt.prepare(r)
		r.send(tt.dst, "hello")
		id, _ := r.record()["id"].(string)
		stories := r.out.Decisions.Find(id)
		if len(stories) != 1 {
			t.Errorf("%s: %d stories under %q", tt.sentence, len(stories), id)
			continue
		}
		s := stories[0]
		if s.Asked != tt.dst || s.Choice != tt.choice || s.Outcome.Flag != tt.flag || len(s.Attempts) != tt.attempts || s.Outcome.Reason != tt.reason || s.Source.Workload != "shop/client" {
			t.Errorf("%s: story %+v", tt.sentence, s)
		}
		if n := len(s.Attempts); n > 0 && !strings.Contains(s.Attempts[n-1].Error, tt.last) || n > 0 && (s.Attempts[n-1].Error == "") != (tt.last == "") {
			t.Errorf("%s: attempts %+v, want the last with %q", tt.sentence, s.Attempts, tt.last)
		}
		if sent := r.tunnels.last.Header[hbone.HeaderDecision]; tt.inTunnel && sent != id {
			t.Errorf("%s: the tunnel's other end was told %q, want %q", tt.sentence, sent, id)
		}
	}
}
