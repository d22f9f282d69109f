package rotation

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var start = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// authority is a target whose signer is its root.
func authority(name string, others ...Root) Target {
	return Target{Signer: "signer of " + name, Root: Root(name), Roots: append([]Root{Root(name)}, others...)}
}

// seen is what of a state a table names.
type seen struct {
	Phase   Phase
	Trusted string
	Signer  string
	Active  Root
}

func see(s State) seen {
	var names []string
	for _, r := range s.Trusted {
		names = append(names, string(r))
	}
	return seen{s.Phase, strings.Join(names, " "), strings.TrimPrefix(s.Signer, "signer of "), s.Active}
}

func TestTheWayFromOneAuthorityToAnother(t *testing.T) {
	a, b, c := authority("a"), authority("b"), authority("c")
	other := Target{Signer: "intermediate 2 of a", Root: "a", Roots: []Root{"a"}}
	for _, tt := range []struct {
		name  string
		steps []Target // each followed by one step in which all are ready
		want  []seen
	}{
		{"nothing changes", []Target{a, a}, []seen{{Steady, "a", "a", "a"}, {Steady, "a", "a", "a"}}},
		{"a new root", []Target{b, b, b, b, b, b}, []seen{
			{Spread, "a b", "a", "a"}, {Switch, "a b", "b", "a"}, {Reissue, "a b", "b", "b"}, {Forget, "b", "b", "b"}, {Steady, "b", "b", "b"}, {Steady, "b", "b", "b"},
		}},
		{"a new intermediate of the same root", []Target{other, other, other, other}, []seen{
			{Switch, "a", "intermediate 2 of a", "a"}, {Reissue, "a", "intermediate 2 of a", "a"}, {Forget, "a", "intermediate 2 of a", "a"}, {Steady, "a", "intermediate 2 of a", "a"},
		}},
		{"a root beside the one that signs, then it signs, then the first goes", []Target{
			authority("a", "b"), authority("a", "b"), authority("a", "b"), authority("a", "b"), authority("a", "b"),
			authority("b", "a"), authority("b", "a"), authority("b", "a"), authority("b", "a"),
			b, b, b, b,
		}, []seen{
			{Spread, "a b", "a", "a"}, {Switch, "a b", "a", "a"}, {Reissue, "a b", "a", "a"}, {Forget, "a b", "a", "a"}, {Steady, "a b", "a", "a"},
			{Switch, "a b", "b", "a"}, {Reissue, "a b", "b", "b"}, {Forget, "a b", "b", "b"}, {Steady, "a b", "b", "b"},
			{Switch, "a b", "b", "b"}, {Reissue, "a b", "b", "b"}, {Forget, "b", "b", "b"}, {Steady, "b", "b", "b"},
		}},
		{"it is taken back before anybody signs by it", []Target{b, a, a, a, a, a}, []seen{
			{Spread, "a b", "a", "a"}, {Spread, "a b", "a", "a"}, {Switch, "a b", "a", "a"}, {Reissue, "a b", "a", "a"}, {Forget, "a", "a", "a"}, {Steady, "a", "a", "a"},
		}},
		{"it is taken back when certificates are replaced", []Target{b, b, b, a, a, a, a}, []seen{
			{Spread, "a b", "a", "a"}, {Switch, "a b", "b", "a"}, {Reissue, "a b", "b", "b"}, {Switch, "a b", "a", "b"}, {Reissue, "a b", "a", "a"}, {Forget, "a", "a", "a"}, {Steady, "a", "a", "a"},
		}},
		{"a third root while certificates are replaced", []Target{b, b, b, c, c, c, c}, []seen{
			{Spread, "a b", "a", "a"}, {Switch, "a b", "b", "a"}, {Reissue, "a b", "b", "b"}, {Spread, "a b c", "b", "b"}, {Switch, "a b c", "c", "b"}, {Reissue, "a b c", "c", "c"}, {Forget, "c", "c", "c"},
		}},
		{"the old root again while it is being forgotten", []Target{b, b, b, b, a}, []seen{
			{Spread, "a b", "a", "a"}, {Switch, "a b", "b", "a"}, {Reissue, "a b", "b", "b"}, {Forget, "b", "b", "b"}, {Spread, "a b", "b", "b"},
		}},
	} {
		missing := []Waiting{{Member{Kind: KindReplica}, "lags"}}
		s := Begin(a, 24*time.Hour, start)
		var got []seen
		last := s.Epoch
		for i, to := range tt.steps {
			if _, moved := s.Next(s.Target, missing, start); moved {
				t.Errorf("%s: step %d: it moves though somebody is missing", tt.name, i)
			}
			next, moved := s.Next(to, nil, start.Add(time.Duration(i)*time.Second))
			if moved != (next.Epoch > last) || moved != (see(next) != see(s) || !to.Equal(s.Target)) {
				t.Errorf("%s: step %d: moved %v, epoch %d after %d", tt.name, i, moved, next.Epoch, last)
			}
			s, last = next, next.Epoch
			got = append(got, see(s))
		}
		if d := cmp.Diff(tt.want, got); d != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, d)
		}
	}
}

func TestAStateThatWasLostIsFollowedByAHigherEpoch(t *testing.T) {
	s := Begin(authority("a"), time.Hour, start)
	for range 10 {
		s, _ = s.Next(authority("b"), nil, start)
	}
	if n := Begin(authority("b"), time.Hour, start.Add(time.Minute)); n.Epoch <= s.Epoch {
		t.Errorf("epoch %d after %d", n.Epoch, s.Epoch)
	}
}

func TestItIsNotedOnceWhenEveryReplicaHasTakenAnEpoch(t *testing.T) {
	s, _ := Begin(authority("a"), time.Hour, start).Next(authority("b"), nil, start)
	proxy := []Waiting{{Member{Kind: KindZtunnel}, "lags"}}
	n, moved := s.Next(s.Target, proxy, start.Add(time.Minute))
	if !moved || n.Epoch != s.Epoch || n.Phase != s.Phase || !n.Taken.Equal(start.Add(time.Minute)) {
		t.Errorf("moved %v to %+v", moved, n)
	}
	if _, moved := n.Next(n.Target, proxy, start.Add(time.Hour)); moved {
		t.Error("noted twice")
	}
	if n, _ = n.Next(n.Target, nil, start.Add(time.Hour)); !n.Taken.IsZero() {
		t.Error("the next phase begins as if every replica had taken it")
	}
}

func TestWhatConfirmsAPhase(t *testing.T) {
	s := State{Epoch: 7, Trusted: []Root{"a", "b"}, Active: "b"}
	for _, tt := range []struct {
		name  string
		phase Phase
		p     Standing
		lacks string
	}{
		{"trusts both", Spread, Standing{Trusts: []Root{"a", "b"}}, ""},
		{"trusts only the old", Spread, Standing{Epoch: 7, Trusts: []Root{"a"}}, "does not trust"},
		{"says nothing of what it trusts", Spread, Standing{}, "does not trust"},
		{"trusts both, its file only the old", Spread, Standing{Trusts: []Root{"a", "b"}, File: []Root{"a"}, HasFile: true}, "mounted"},
		{"trusts both, its file too", Spread, Standing{Trusts: []Root{"a", "b"}, File: []Root{"b", "a"}, HasFile: true}, ""},
		{"nothing is asked of proxies while replicas switch", Switch, Standing{}, ""},
		{"only new certificates", Reissue, Standing{Epoch: 7, Holds: []Root{"b"}}, ""},
		{"none at all", Reissue, Standing{Epoch: 7}, ""},
		{"one old certificate", Reissue, Standing{Epoch: 7, Holds: []Root{"a", "b"}}, "old root"},
		{"only new ones, but it may still take old ones", Reissue, Standing{Epoch: 6, Holds: []Root{"b"}}, "has not heard"},
		{"has forgotten", Forget, Standing{Epoch: 7, Trusts: []Root{"b", "a"}}, ""},
		{"trusts more", Forget, Standing{Epoch: 7, Trusts: []Root{"b", "a", "c"}}, "still trusts"},
		{"trusts so by chance", Forget, Standing{Epoch: 6, Trusts: []Root{"a", "b"}}, "still trusts"},
	} {
		s.Phase = tt.phase
		if got := s.Missing(tt.p); (got == "") != (tt.lacks == "") || !strings.Contains(got, tt.lacks) {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.lacks)
		}
	}
}

func TestWhoHoldsAPhaseBack(t *testing.T) {
	replica, node := Member{ID: "r", Name: "istiod-1", Kind: KindReplica}, Member{ID: "p", Name: "ztunnel-1", Node: "n1", Kind: KindZtunnel}
	has := func(epoch uint64, words map[string]Word) Record {
		return Record{Replica: "istiod-1", Epoch: epoch, Proxies: words}
	}
	yes, no := map[string]Word{"p": {}}, map[string]Word{"p": {Lacks: "has old ones"}}
	for _, tt := range []struct {
		name    string
		members []Member
		records []Record
		late    time.Duration
		want    string // names and why
	}{
		{"all have confirmed", []Member{replica, node}, []Record{has(7, yes)}, 0, ""},
		{"a replica that lags", []Member{replica, node}, []Record{has(6, nil), {Replica: "gone", Epoch: 7, Proxies: yes}}, 0, "istiod-1"},
		{"a replica that has gone on without being asked", []Member{replica}, []Record{has(8, nil)}, 0, ""},
		{"a proxy that has not", []Member{replica, node}, []Record{has(7, no)}, 0, "ztunnel-1 has old ones"},
		{"a proxy that has confirmed an earlier epoch", []Member{replica, node}, []Record{has(7, nil), {Replica: "gone", Epoch: 6, Proxies: yes}}, 0, "ztunnel-1 is not connected"},
		{"a proxy that is silent", []Member{replica, node}, []Record{has(7, nil)}, 23 * time.Hour, "ztunnel-1 is not connected"},
		{"one that has been silent for so long that it has nothing left", []Member{replica, node}, []Record{has(7, nil)}, 25 * time.Hour, ""},
		{"one that speaks is waited for however long", []Member{replica, node}, []Record{has(7, no)}, 25 * time.Hour, "ztunnel-1 has old ones"},
		{"a replica is waited for however long", []Member{replica}, nil, 25 * time.Hour, "istiod-1"},
		{"one that confirmed and went to another replica", []Member{replica, node}, []Record{has(7, no), {Replica: "gone", Epoch: 7, Proxies: yes}}, 0, ""},
		{"one that nobody has listed yet", []Member{replica}, []Record{has(7, no)}, 0, "has just connected"},
		{"one that nobody lists any more, known to a replica that is gone", []Member{replica}, []Record{has(7, nil), {Replica: "gone", Epoch: 7, Proxies: no}}, 0, ""},
	} {
		s := State{Epoch: 7, Phase: Reissue, Taken: start, Longest: 24 * time.Hour}
		var got []string
		for _, w := range s.Unconfirmed(tt.members, tt.records, start.Add(tt.late)) {
			got = append(got, w.Name+" "+w.Lacks)
		}
		if text := strings.Join(got, "; "); (text == "") != (tt.want == "") || !strings.Contains(text, tt.want) {
			t.Errorf("%s: %q, want %q", tt.name, text, tt.want)
		}
	}
}
