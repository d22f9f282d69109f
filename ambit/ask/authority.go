package ask

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/ambit-mesh/ambit/ambit/reach"
)

// Authority is the mesh's certificate authority, as the control plane tells it.
type Authority struct {
	// Phase is "steady", or how far the replacement of the root is.
	Phase string    `json:"phase"`
	Epoch uint64    `json:"epoch"`
	Since time.Time `json:"since"`
	// Plugged says that a user has brought it, in Secret cacerts.
	Plugged bool `json:"plugged"`
	// Root is the fingerprint that certificates lead to, or are to lead to.
	Root    string          `json:"root"`
	Roots   []AuthorityRoot `json:"roots"`
	Waiting []Waited        `json:"waiting"`
	Members []Part          `json:"members"`
	Proxies []Truster       `json:"proxies"`
}

// AuthorityRoot is one root that is trusted.
type AuthorityRoot struct {
	Fingerprint string    `json:"fingerprint"`
	Subject     string    `json:"subject"`
	NotAfter    time.Time `json:"notAfter"`
	Signs       bool      `json:"signs"`
}

// Part is a proxy or a replica of the control plane.
type Part struct {
	ID   string `json:"id"`
	Name string `json:"name"`
	Node string `json:"node"`
	Kind string `json:"kind"`
}

// Waited is a part that holds a phase back.
type Waited struct {
	Part
	Lacks string `json:"lacks"`
}

// Truster is what a proxy has told of itself.
type Truster struct {
	Part
	Epoch  uint64
	Trusts []string
	Holds  []Holding
	// Says is what is odd about it.
	Says string
}

// Holding counts the certificates below a root.
type Holding struct {
	Root  string
	Count int
	Until time.Time
}

// AuthorityOf asks every replica: the one that is furthest tells of the
// authority, each of the proxies that are connected to it.
func AuthorityOf(ctx context.Context, replicas []Opener) (*Authority, error) {
	answers, silent := each(ctx, replicas, func(ctx context.Context, d *reach.Door) (a Authority, err error) {
		return a, d.GetJSON(ctx, "/debug/ca", &a)
	})
	if len(answers) == 0 {
		return nil, errors.Join(append(silent, errors.New("no replica of the control plane tells of its authority"))...)
	}
	all := slices.MaxFunc(answers, func(a, b Authority) int { return cmp.Compare(a.Epoch, b.Epoch) })
	told := map[string]Truster{}
	for _, a := range answers {
		for _, p := range a.Proxies {
			if old, ok := told[p.ID]; !ok || p.Epoch > old.Epoch {
				told[p.ID] = p
			}
		}
	}
	all.Proxies = nil
	for _, m := range all.Members {
		p, ok := told[m.ID]
		switch {
		case m.Kind == "istiod":
			continue
		case !ok:
			p = Truster{Part: m, Says: "is not connected, or knows nothing of rotations"}
		case p.Epoch < all.Epoch:
			p.Says = fmt.Sprintf("is at epoch %d of %d", p.Epoch, all.Epoch)
		}
		all.Proxies = append(all.Proxies, p)
	}
	byName := func(a, b Part) int {
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Node, b.Node), cmp.Compare(a.Name, b.Name))
	}
	slices.SortFunc(all.Proxies, func(a, b Truster) int { return byName(a.Part, b.Part) })
	slices.SortFunc(all.Members, byName)
	return &all, nil
}

// Behind reports whether a proxy is, or a phase waits.
func (a *Authority) Behind() bool {
	return len(a.Waiting) > 0 || slices.ContainsFunc(a.Proxies, func(p Truster) bool { return p.Says != "" })
}

// Progress tells of a replacement of the root, as it is seen from time to time.
type Progress struct {
	// FromStart says that the replacement began with the first look.
	FromStart bool

	epoch    uint64
	phase    string
	missing  []Part
	toldAt   time.Time
	stagnant time.Time
}

// meaning is what a phase is about, and what its members do.
var meaning = map[string][2]string{
	"spread":  {"the new root is trusted beside the old one", "trusts both"},
	"switch":  {"the new root signs", "signs with it"},
	"reissue": {"every certificate is replaced", "has only new certificates"},
	"forget":  {"the old root is forgotten", "trusts only the new root"},
	"steady":  {"done", ""},
}

// remindEvery is how often those who are waited for are named again.
const remindEvery = 15 * time.Second

// order is that of the phases.
var order = []string{"spread", "switch", "reissue", "forget", "steady"}

// Look gives the lines that are new. Phases that were over between two looks are
// told of too: they are not left before all have confirmed, or were given up.
func (p *Progress) Look(a *Authority, now time.Time) (lines []string) {
	if a.Epoch != p.epoch {
		lines = p.advance(a)
		p.epoch, p.toldAt, p.stagnant = a.Epoch, now, now
	}
	waited := map[string]bool{}
	for _, w := range a.Waiting {
		waited[w.ID] = true
	}
	confirmed := p.confirmed(func(id string) bool { return !waited[id] })
	if len(confirmed) > 0 {
		p.stagnant = now
	}
	lines = append(lines, confirmed...)
	if len(a.Waiting) > 0 && now.Sub(p.toldAt) >= remindEvery {
		p.toldAt = now
		for _, w := range a.Waiting {
			lines = append(lines, "  waiting: "+named(w.Part)+" "+w.Lacks)
		}
	}
	return lines
}

// advance goes on to the phase that a is in.
func (p *Progress) advance(a *Authority) (lines []string) {
	from, to := slices.Index(order, p.phase), slices.Index(order, a.Phase)
	if p.phase == a.Phase || to <= from || from < 0 && !p.FromStart {
		from = to - 1 // it has turned, or was under way before
	}
	for _, phase := range order[from+1 : to+1] {
		lines = append(lines, p.confirmed(func(string) bool { return true })...)
		lines = append(lines, phase+": "+meaning[phase][0])
		p.phase, p.missing = phase, nil
		for _, m := range a.Members {
			if phase != "steady" && (phase == "switch") == (m.Kind == "istiod") {
				p.missing = append(p.missing, m)
			}
		}
	}
	return lines
}

// confirmed tells of those who have, and forgets them.
func (p *Progress) confirmed(has func(id string) bool) (lines []string) {
	p.missing = slices.DeleteFunc(p.missing, func(m Part) bool {
		if !has(m.ID) {
			return false
		}
		lines = append(lines, "  "+named(m)+" "+meaning[p.phase][1])
		return true
	})
	return lines
}

// GiveUp says that the phase is left without those who have not confirmed it.
func (p *Progress) GiveUp() { p.missing = nil }

// Stagnant is since when nobody has confirmed anything.
func (p *Progress) Stagnant() time.Time { return p.stagnant }

func named(m Part) string {
	name := m.Kind + " " + m.Name
	if m.Node != "" {
		name = "node " + m.Node + ": " + name
	}
	return strings.TrimSpace(name)
}
