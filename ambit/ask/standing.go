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

// Standing is how far one control plane replica and its proxies are. Its
// generations are its own count.
type Standing struct {
	Generation uint64    `json:"generation"`
	At         time.Time `json:"at"`
	Clients    []Client  `json:"clients"`
}

// Client is a proxy as the control plane sees it.
type Client struct {
	// ID is "kind~address~pod.namespace~domain".
	ID        string
	Node      string
	Gateway   string
	Connected time.Time
	Types     []Type
}

// Type is how far a proxy is with one type of resources.
type Type struct {
	Type        string
	Sent, Acked uint64
	// Given is the newest generation that told it something.
	Given    uint64
	LastNack string
	// Nacked is the newest generation when LastNack came, 0 for never.
	Nacked uint64
}

// Pod is the proxy's pod as "namespace/name", or its whole id.
func (c *Client) Pod() string {
	parts := strings.Split(c.ID, "~")
	if len(parts) == 4 {
		if i := strings.LastIndexByte(parts[2], '.'); i > 0 {
			return parts[2][i+1:] + "/" + parts[2][:i]
		}
	}
	return c.ID
}

// Kind is "ztunnel" or "waypoint".
func (c *Client) Kind() string {
	kind, _, _ := strings.Cut(c.ID, "~")
	return kind
}

// Acked is the generation that it has taken whole: the least of all types. One
// that has asked for nothing has taken nothing.
func (c *Client) Acked() uint64 {
	if len(c.Types) == 0 {
		return 0
	}
	return slices.MinFunc(c.Types, func(a, b Type) int { return cmp.Compare(a.Acked, b.Acked) }).Acked
}

// Given is the generation that it decides with once it has taken all: the
// newest that told it something on this connection, 0 for none.
func (c *Client) Given() uint64 {
	var g uint64
	for _, t := range c.Types {
		g = max(g, t.Given)
	}
	return g
}

// Refused is what it has refused of a generation or of a later one, empty for
// nothing. The same object may have come again since, in a form that it took;
// nobody knows here.
func (c *Client) Refused(generation uint64) string {
	for _, t := range c.Types {
		if t.Nacked > 0 && t.Nacked >= generation {
			return t.LastNack
		}
	}
	return ""
}

// Row is one proxy of `ambit status`.
type Row struct {
	Proxy string `json:"proxy"`
	Kind  string `json:"kind"`
	Node  string `json:"node,omitempty"`
	// ControlPlane is the replica that it is connected to, empty for none.
	ControlPlane string `json:"controlPlane,omitempty"`
	Generation   uint64 `json:"generation"`
	// Lag is how many generations it is behind.
	Lag uint64 `json:"lag"`
	// Serves is the generation that it says it decides with; 0 if it does not
	// say.
	Serves uint64 `json:"serves"`
	// Age is how long nobody has confirmed the state that it serves; 0 while it
	// is connected.
	Age time.Duration `json:"age,omitempty"`
	// Says is why, if it is.
	Says string `json:"says,omitempty"`

	given uint64
}

// Report is `ambit status`.
type Report struct {
	ControlPlanes []ControlPlane `json:"controlPlanes"`
	Proxies       []Row          `json:"proxies"`
}

// ControlPlane is one replica.
type ControlPlane struct {
	Name       string    `json:"name"`
	Generation uint64    `json:"generation"`
	At         time.Time `json:"at"`
}

// Behind reports whether a proxy is.
func (r *Report) Behind() bool {
	return slices.ContainsFunc(r.Proxies, func(p Row) bool { return p.Says != "" })
}

// Proxy is a running pod that must have the configuration.
type Proxy struct {
	Name, Kind, Node string
	// Admin is the way to its own pages; one without is not asked.
	Admin Opener
}

// Status asks the replicas of the control plane how far the proxies are, and
// the proxies what they decide with. Running proxies that are connected to none
// are in the report too.
func Status(ctx context.Context, replicas []Opener, proxies []Proxy) (*Report, error) {
	type stood struct {
		name string
		Standing
	}
	answers, silent := each(ctx, replicas, func(ctx context.Context, d *reach.Door) (s stood, err error) {
		s.name = d.Name
		return s, d.GetJSON(ctx, "/debug/generation", &s.Standing)
	})
	if len(silent) > 0 {
		return nil, errors.Join(silent...)
	}
	r := &Report{}
	connected := map[string]bool{}
	for _, s := range answers {
		r.ControlPlanes = append(r.ControlPlanes, ControlPlane{s.name, s.Generation, s.At})
		for _, c := range s.Clients {
			connected[c.Pod()] = true
			r.Proxies = append(r.Proxies, row(&c, s.name, s.Generation))
		}
	}
	for _, p := range proxies {
		if !connected[p.Name] {
			r.Proxies = append(r.Proxies, Row{Proxy: p.Name, Kind: p.Kind, Node: p.Node, Says: notConnected + p.serves(ctx)})
		}
	}
	r.prove(Probe(ctx, proxies), proxies)
	slices.SortFunc(r.Proxies, func(a, b Row) int {
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Proxy, b.Proxy), cmp.Compare(a.ControlPlane, b.ControlPlane))
	})
	return r, nil
}

// State is what a node proxy says of the state that it serves.
type State struct {
	// Kept says that it began with it, and has not heard of the control plane
	// since.
	Kept bool   `json:"kept"`
	Age  string `json:"age"`
}

// serves says how old is what a proxy without control plane serves, as far as
// it tells.
func (p *Proxy) serves(ctx context.Context) string {
	if p.Admin == nil {
		return ""
	}
	d, err := p.Admin(ctx)
	if err != nil {
		return ""
	}
	defer d.Close()
	var s State
	switch err := d.GetJSON(ctx, "/state", &s); {
	case err != nil:
		return ""
	case s.Kept:
		return "; serves what its node had kept, confirmed " + s.Age + " ago"
	}
	return "; serves what it had " + s.Age + " ago"
}

// prove adds what proxies say of themselves.
func (r *Report) prove(answers []Answer, proxies []Proxy) {
	for i, a := range answers {
		for j := range r.Proxies {
			row := &r.Proxies[j]
			if row.Proxy != proxies[i].Name || !a.Asked {
				continue
			}
			row.Serves, row.Age = a.Said.Configuration, a.Said.Age.Round(time.Second)
			switch {
			case row.Says != "":
			case a.Err != nil:
				row.Says = "does not say what it decides with: " + a.Err.Error()
			case row.Serves < row.given:
				row.Says = fmt.Sprintf("has acknowledged %d and decides with %d", row.given, row.Serves)
			}
		}
	}
}

const notConnected = "not connected to the control plane"

func row(c *Client, replica string, newest uint64) Row {
	acked := c.Acked()
	r := Row{Proxy: c.Pod(), Kind: c.Kind(), Node: c.Node, ControlPlane: replica, Generation: acked, Lag: newest - min(acked, newest), given: c.Given()}
	switch refused := c.Refused(acked); {
	case refused != "":
		r.Says = "refused " + refused
	case r.Lag > 0:
		r.Says = "has not acknowledged"
	}
	return r
}
