package ask_test

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ambit-mesh/ambit/ambit/ask"
	"github.com/ambit-mesh/ambit/ambit/reach"
)

// replicaOf answers with an authority.
func replicaOf(t *testing.T, a ask.Authority) ask.Opener {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { json.NewEncoder(w).Encode(a) }))
	t.Cleanup(s.Close)
	return func(context.Context) (*reach.Door, error) { return &reach.Door{Name: "istiod", URL: s.URL}, nil }
}

var (
	one = ask.Part{ID: "1", Name: "istio-system/ztunnel-a", Node: "n1", Kind: "ztunnel"}
	two = ask.Part{ID: "2", Name: "istio-system/ztunnel-b", Node: "n2", Kind: "ztunnel"}
	cp  = ask.Part{ID: "3", Name: "istiod-x", Node: "n1", Kind: "istiod"}
)

func TestTheAuthorityIsWhatTheFurthestReplicaTellsAndItsProxiesWhatAllDo(t *testing.T) {
	a, err := ask.AuthorityOf(t.Context(), []ask.Opener{
		replicaOf(t, ask.Authority{Phase: "spread", Epoch: 7, Members: []ask.Part{one, two, cp}, Proxies: []ask.Truster{{Part: one, Epoch: 7, Trusts: []string{"a", "b"}}}}),
		replicaOf(t, ask.Authority{Phase: "steady", Epoch: 6, Members: []ask.Part{one}, Proxies: []ask.Truster{{Part: two, Epoch: 6, Trusts: []string{"a"}}}}),
	})
	if err != nil {
		t.Fatal(err)
	}
	if a.Phase != "spread" || len(a.Proxies) != 2 || a.Proxies[0].Says != "" || a.Proxies[1].Says != "is at epoch 6 of 7" || !a.Behind() {
		t.Errorf("got %+v", a)
	}
	a, err = ask.AuthorityOf(t.Context(), []ask.Opener{replicaOf(t, ask.Authority{Epoch: 7, Members: []ask.Part{one}})})
	if err != nil || !strings.Contains(a.Proxies[0].Says, "not connected") {
		t.Errorf("a silent proxy: %+v, %v", a, err)
	}
}

func TestProgressTellsOfPhasesThatNobodySaw(t *testing.T) {
	p := ask.Progress{FromStart: true}
	now := time.Now()
	got := p.Look(&ask.Authority{Phase: "reissue", Epoch: 7, Members: []ask.Part{one, cp}, Waiting: []ask.Waited{{Part: one, Lacks: "x"}}}, now)
	p.GiveUp()
	got = append(got, p.Look(&ask.Authority{Phase: "steady", Epoch: 9, Members: []ask.Part{one, cp}}, now)...)
	want := []string{
		"spread: the new root is trusted beside the old one", "  node n1: ztunnel istio-system/ztunnel-a trusts both",
		"switch: the new root signs", "  node n1: istiod istiod-x signs with it",
		"reissue: every certificate is replaced",
		"forget: the old root is forgotten", "  node n1: ztunnel istio-system/ztunnel-a trusts only the new root",
		"steady: done",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	under := ask.Progress{}
	if got := under.Look(&ask.Authority{Phase: "reissue", Epoch: 7}, now); len(got) != 1 {
		t.Errorf("of one that was under way before: %v", got)
	}
}

func TestProgressNamesEveryNodeOnceAndWhoIsMissingAgain(t *testing.T) {
	var p ask.Progress
	now := time.Now()
	members := []ask.Part{cp, one, two}
	late := ask.Waited{Part: two, Lacks: "has certificates of the old root"}
	var got []string
	look := func(after time.Duration, phase string, epoch uint64, waiting ...ask.Waited) {
		now = now.Add(after)
		got = append(got, p.Look(&ask.Authority{Phase: phase, Epoch: epoch, Members: members, Waiting: waiting}, now)...)
	}
	look(0, "switch", 6, ask.Waited{Part: cp, Lacks: "has not taken epoch 6"})
	look(time.Second, "switch", 6)
	look(time.Second, "reissue", 7, ask.Waited{Part: one, Lacks: "x"}, late)
	look(time.Second, "reissue", 7, late)
	look(time.Second, "reissue", 7, late)
	begun := p.Stagnant()
	look(20*time.Second, "reissue", 7, late)
	look(time.Second, "forget", 8, late)
	look(time.Second, "steady", 9)
	want := []string{
		"switch: the new root signs", "  node n1: istiod istiod-x signs with it",
		"reissue: every certificate is replaced", "  node n1: ztunnel istio-system/ztunnel-a has only new certificates",
		"  waiting: node n2: ztunnel istio-system/ztunnel-b has certificates of the old root",
		"  node n2: ztunnel istio-system/ztunnel-b has only new certificates",
		"forget: the old root is forgotten",
		"  node n1: ztunnel istio-system/ztunnel-a trusts only the new root",
		"  node n2: ztunnel istio-system/ztunnel-b trusts only the new root",
		"steady: done",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if !p.Stagnant().After(begun) {
		t.Error("it does not note when somebody confirmed")
	}
}
