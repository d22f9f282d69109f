package rotation

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// Standing is what a proxy says of itself.
type Standing struct {
	// Epoch is that of the roots that it was told last.
	Epoch uint64
	// Trusts are the roots whose peers it accepts.
	Trusts []Root
	// Holds are the roots of the certificates that it may present.
	Holds []Root
	// File are the roots by which it verifies the control plane, if HasFile.
	File    []Root
	HasFile bool
}

// Missing is what a proxy lacks in the state's phase, empty if nothing.
func (s State) Missing(p Standing) string {
	switch s.Phase {
	case Steady, Switch:
	case Spread:
		switch {
		case !contains(p.Trusts, s.Trusted):
			return "does not trust the new root yet"
		case p.HasFile && !contains(p.File, s.Trusted):
			return "its mounted root-cert.pem has not got the new root yet (the kubelet takes a minute or two)"
		}
	case Reissue:
		if old := slices.DeleteFunc(slices.Clone(p.Holds), func(r Root) bool { return r == s.Active }); p.Epoch < s.Epoch {
			return "has not heard that certificates are replaced"
		} else if len(old) > 0 {
			return "has certificates of the old root"
		}
	case Forget:
		if p.Epoch < s.Epoch || !same(p.Trusts, s.Trusted) {
			return "still trusts the old root"
		}
	}
	return ""
}

// The kinds of members.
const (
	KindReplica  = "istiod"
	KindZtunnel  = "ztunnel"
	KindWaypoint = "waypoint"
)

// Member is a part of the mesh that has to confirm a phase.
type Member struct {
	// ID tells lives of a name apart: the UID of its pod.
	ID string `json:"id"`
	// Name is "namespace/name".
	Name string `json:"name"`
	Node string `json:"node"`
	Kind string `json:"kind"`
}

// Word is what a replica knows of a proxy.
type Word struct {
	Name string `json:"name,omitempty"`
	// Lacks is what keeps the proxy from confirming; empty: it has confirmed.
	Lacks string `json:"lacks,omitempty"`
}

// Record is what one replica says in one epoch: that it works by it, and what
// the proxies have told that are or were connected to it, by Member.ID. What a
// proxy has confirmed in an epoch stays so.
type Record struct {
	Replica string          `json:"replica"`
	Epoch   uint64          `json:"epoch"`
	Proxies map[string]Word `json:"proxies,omitempty"`
}

// Waiting is who has not confirmed, and why.
type Waiting struct {
	Member
	Lacks string `json:"lacks"`
}

// slack is how long a connected proxy may take to hear what its replica knows:
// one that takes longer is no longer connected.
const slack = 5 * time.Minute

// Unconfirmed are those who hold the phase back. A proxy that nobody has heard
// of counts as confirmed only once every certificate has ended that it can have
// from a replica of before: it then meets nobody.
func (s State) Unconfirmed(members []Member, records []Record, now time.Time) []Waiting {
	if s.Phase == Steady {
		return nil
	}
	var out []Waiting
	running := map[string]bool{}
	for _, m := range members {
		running[m.ID] = true
		lacks := s.lacks(m, records)
		if lacks == silent && m.Kind != KindReplica && !s.Taken.IsZero() && now.After(s.Taken.Add(slack+s.Longest)) {
			lacks = ""
		}
		if lacks != "" {
			out = append(out, Waiting{m, lacks})
		}
	}
	for id, name := range s.unlisted(members, running, records) {
		out = append(out, Waiting{Member{ID: id, Name: name}, "has just connected"})
	}
	slices.SortFunc(out, func(a, b Waiting) int {
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Node, b.Node), cmp.Compare(a.Name, b.Name))
	})
	return out
}

const silent = "is not connected, or does not know of rotations; its certificates end in time, a restart is faster"

// lacks is what keeps a member from confirming.
func (s State) lacks(m Member, records []Record) string {
	if m.Kind == KindReplica {
		if !slices.ContainsFunc(records, func(r Record) bool { return r.Replica == m.Name && r.Epoch >= s.Epoch }) {
			return fmt.Sprintf("has not taken epoch %d", s.Epoch)
		}
		return ""
	}
	if s.Phase == Switch {
		return ""
	}
	lacks := silent
	for _, r := range records {
		w, heard := r.Proxies[m.ID]
		if r.Epoch != s.Epoch || !heard {
			continue
		}
		if w.Lacks == "" {
			return ""
		}
		lacks = w.Lacks
	}
	return lacks
}

// unlisted are proxies that a running replica waits for and that are not among
// the members yet.
func (s State) unlisted(members []Member, running map[string]bool, records []Record) map[string]string {
	out := map[string]string{}
	for _, r := range records {
		if r.Epoch != s.Epoch || !slices.ContainsFunc(members, func(m Member) bool { return m.Kind == KindReplica && m.Name == r.Replica }) {
			continue
		}
		for id, w := range r.Proxies {
			if w.Lacks != "" && !running[id] {
				out[id] = w.Name
			}
		}
	}
	return out
}
