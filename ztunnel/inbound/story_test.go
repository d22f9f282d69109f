package inbound

import (
	"strings"
	"testing"

	"github.com/ambit-mesh/ambit/internal/decision"
)

func TestAConnectionsDecisionIsRememberedUnderTheClientsId(t *testing.T) {
	const sent = "k7q2m4xa"
	for _, tt := range []struct {
		sentence, id, as string
		ruling           string
		verdicts         []string
		flag             string
	}{
		{"one that was let in", sent, "client", "allowed: no policy restricts it", []string{"DENY shop/no-thief: does not match", "DENY shop/strict: does not match"}, "-"},
		{"one that was denied", sent, "thief", "denied by DENY policy shop/no-thief rule 0", []string{"DENY shop/no-thief: rule 0 matches ←", "DENY shop/strict: does not match"}, "DENY"},
		{"one of a proxy that sends no id", "", "client", "allowed: no policy restricts it", nil, "-"},
		{"one of a proxy that sends what is none", "k7q2m4xa\"}", "client", "allowed: no policy restricts it", nil, "-"},
	} {
		r := newRig(t, "shop/strict")
		r.decision = tt.id
		_, far, done := r.call("10.1.0.6:8080", account(tt.as))
		if tt.flag == "-" {
			far.Write([]byte("hello"))
			far.Read(make([]byte, 5))
		}
		done()
		id, _ := r.record()["id"].(string)
		if tt.id == sent && id != sent || tt.id != sent && (id == tt.id || !decision.ValidID(id)) {
			t.Errorf("%s: recorded under %q", tt.sentence, id)
		}
		stories := r.in.Decisions.Find(id)
		if len(stories) != 1 {
			t.Errorf("%s: %d stories", tt.sentence, len(stories))
			continue
		}
		s := stories[0]
		if s.Ruling != tt.ruling || s.Outcome.Flag != tt.flag || s.Source.Identity != account(tt.as).String() || s.Destination.Workload != "shop/web" || s.At.IsZero() {
			t.Errorf("%s: story %+v", tt.sentence, s)
		}
		if tt.flag == "-" && (s.Outcome.Received != 5 || s.Outcome.Sent != 5) {
			t.Errorf("%s: %d bytes received and %d sent, want 5 and 5", tt.sentence, s.Outcome.Received, s.Outcome.Sent)
		}
		var text strings.Builder
		for _, v := range s.Policies {
			text.WriteString(v.String() + "\n")
		}
		for _, want := range tt.verdicts {
			if !strings.Contains(text.String(), want+"\n") {
				t.Errorf("%s: policies said\n%swant %q", tt.sentence, text.String(), want)
			}
		}
	}
}

func TestAnArrivalThatNoPolicyWasAskedAboutIsRememberedToo(t *testing.T) {
	r := newRig(t, "")
	r.decision = "k7q2m4xb"
	_, _, done := r.call("10.9.9.9:8080", account("client"))
	done()
	s := r.in.Decisions.Find("k7q2m4xb")
	if len(s) != 1 || len(s[0].Policies) != 0 || s[0].Ruling != "" || s[0].Outcome.Flag != "CONNECT" || !strings.Contains(s[0].Outcome.Reason, "is not the address") {
		t.Errorf("stories %+v", s)
	}
}
