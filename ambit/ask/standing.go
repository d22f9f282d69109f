package ask

import (
	"cmp"
	"context"
	"errors"
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
	LastNack    string
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
	// Says is why, if it is.
	Says string `json:"says,omitempty"`
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
type Proxy struct{ Name, Kind, Node string }

// Status asks the replicas of the control plane how far the proxies are.
// Running proxies that are connected to none are in the report too.
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
			r.Proxies = append(r.Proxies, Row{Proxy: p.Name, Kind: p.Kind, Node: p.Node, Says: notConnected})
		}
	}
	slices.SortFunc(r.Proxies, func(a, b Row) int {
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Proxy, b.Proxy), cmp.Compare(a.ControlPlane, b.ControlPlane))
	})
	return r, nil
}

const notConnected = "not connected to the control plane"

func row(c *Client, replica string, newest uint64) Row {
	acked := c.Acked()
	r := Row{Proxy: c.Pod(), Kind: c.Kind(), Node: c.Node, ControlPlane: replica, Generation: acked, Lag: newest - min(acked, newest)}
	switch refused := c.Refused(acked); {
	case refused != "":
		r.Says = "refused " + refused
	case r.Lag > 0:
		r.Says = "has not acknowledged"
	}
	return r
}
