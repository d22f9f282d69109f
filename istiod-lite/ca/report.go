package ca

import (
	"cmp"
	"slices"
	"time"

	"github.com/ambit-mesh/ambit/internal/certs"
	"github.com/ambit-mesh/ambit/istiod-lite/rotation"
)

// Report is what a replica tells of the authority, for administrators.
type Report struct {
	Phase rotation.Phase `json:"phase"`
	Epoch uint64         `json:"epoch"`
	Since time.Time      `json:"since"`
	// Plugged says that a user has brought the authority.
	Plugged bool `json:"plugged"`
	// Root is what certificates lead to, or are to lead to.
	Root  string       `json:"root"`
	Roots []RootReport `json:"roots"`
	// Waiting are those who hold the phase back.
	Waiting []rotation.Waiting `json:"waiting,omitempty"`
	// Members are all who run, Proxies those that are connected to this replica.
	Members []rotation.Member `json:"members"`
	Proxies []Standing        `json:"proxies"`
}

// RootReport is one root that is trusted.
type RootReport struct {
	Fingerprint string    `json:"fingerprint"`
	Subject     string    `json:"subject"`
	NotAfter    time.Time `json:"notAfter"`
	// Signs says that certificates are signed below it now.
	Signs bool `json:"signs"`
}

// Report describes the authority and who is how far with it.
func (c *Conductor) Report() Report {
	r, now := c.cfg.Board.Read(), time.Now()
	if r.Course == nil {
		return Report{}
	}
	s := r.Course.State
	out := Report{
		Phase: s.Phase, Epoch: s.Epoch, Since: s.Since, Plugged: r.Plugged, Root: string(s.Target.Root),
		Members: c.cfg.Members(), Proxies: []Standing{},
	}
	out.Waiting = s.Unconfirmed(out.Members, r.Records, now)
	signs, _ := r.Course.Material.root(now)
	for _, root := range r.Course.Material.Roots {
		out.Roots = append(out.Roots, RootReport{certs.Fingerprint(root), root.Subject.String(), root.NotAfter, root.Equal(signs)})
	}
	for _, p := range c.cfg.Guides.Standings() {
		out.Proxies = append(out.Proxies, p)
	}
	slices.SortFunc(out.Proxies, func(a, b Standing) int { return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Name, b.Name)) })
	return out
}
