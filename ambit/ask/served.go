package ask

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/ambit-mesh/ambit/ambit/reach"
)

// Version is one version of an object, as the API server wrote it.
type Version struct {
	APIVersion      string `json:"apiVersion"`
	Kind            string `json:"kind"`
	Namespace       string `json:"namespace,omitempty"`
	Name            string `json:"name"`
	ResourceVersion string `json:"resourceVersion"`
}

// String is what users call the object.
func (v Version) String() string {
	name := strings.ToLower(v.Kind) + "/" + v.Name
	if v.Namespace != "" {
		name += " in " + v.Namespace
	}
	return name
}

// Held is what the control plane knows of a Version.
type Held struct {
	Version
	// State is "held", "pending" or "unread".
	State string `json:"state"`
	// Generation is the replica's first that held it.
	Generation uint64      `json:"generation,omitempty"`
	Conditions []Condition `json:"conditions,omitempty"`
}

// Condition is what the rules said of an object.
type Condition struct {
	Type    string `json:"type"`
	Status  bool   `json:"status"`
	Reason  string `json:"reason"`
	Message string `json:"message,omitempty"`
	Parent  string `json:"parent,omitempty"`
}

// Service is what became of applied objects.
type Service struct {
	Objects []Held `json:"objects"`
	// Missing says what is still waited for; none means that every proxy serves
	// the objects.
	Missing []string `json:"missing,omitempty"`
}

// Doubts are the conditions that are not true.
func (s *Service) Doubts() []string {
	var out []string
	for _, o := range s.Objects {
		for _, c := range o.Conditions {
			if c.Status {
				continue
			}
			about := o.Version.String()
			if c.Parent != "" {
				about += ", for " + c.Parent
			}
			out = append(out, strings.TrimSuffix(fmt.Sprintf("%s: %s is false (%s): %s", about, c.Type, c.Reason, c.Message), ": "))
		}
	}
	return out
}

// Served asks each replica whether it holds the versions, and whether its
// proxies have acknowledged a generation that does. Every running proxy has to:
// one that is not touched acknowledges at once, and one that is connected to
// nobody serves what is old.
func Served(ctx context.Context, replicas []*reach.Door, proxies []Proxy, versions []Version) (*Service, error) {
	s := &Service{}
	reached := map[string]bool{}
	for _, d := range replicas {
		var held []Held
		if err := d.Post(ctx, "/debug/held", versions, &held); err != nil {
			return nil, err
		}
		if len(held) != len(versions) {
			return nil, fmt.Errorf("%s answered for %d of %d objects", d.Name, len(held), len(versions))
		}
		s.Objects = held
		if missing := pending(held); len(missing) > 0 {
			s.Missing = append(s.Missing, d.Name+" has not read "+strings.Join(missing, ", "))
			continue
		}
		generation := generationOf(held)
		if generation == 0 {
			return s, nil // nothing of it is the proxies' matter
		}
		var at Standing
		if err := d.GetJSON(ctx, "/debug/generation", &at); err != nil {
			return nil, err
		}
		s.Missing = append(s.Missing, behind(&at, generation, reached)...)
	}
	if len(s.Missing) == 0 {
		for _, p := range proxies {
			if !reached[p.Name] {
				s.Missing = append(s.Missing, p.Kind+" "+p.Name+" is "+notConnected)
			}
		}
	}
	return s, nil
}

func pending(held []Held) []string {
	var out []string
	for _, h := range held {
		if h.State != "held" && h.State != "unread" {
			out = append(out, h.Version.String())
		}
	}
	return out
}

// generationOf is the first generation that held all, 0 if no proxy is
// concerned.
func generationOf(held []Held) uint64 {
	var g uint64
	for _, h := range held {
		g = max(g, h.Generation)
	}
	return g
}

// behind are the clients that have not taken a generation; the others are put
// into reached.
func behind(at *Standing, generation uint64, reached map[string]bool) []string {
	var out []string
	for _, c := range at.Clients {
		switch refused := c.Refused(generation); {
		case refused != "":
			out = append(out, fmt.Sprintf("%s %s refused %s", c.Kind(), c.Pod(), refused))
		case c.Acked() >= generation:
			reached[c.Pod()] = true
		default:
			out = append(out, fmt.Sprintf("%s %s has acknowledged %d of %d", c.Kind(), c.Pod(), c.Acked(), generation))
		}
	}
	slices.Sort(out)
	return out
}

// pollEvery is how often a wait looks. What it waits for takes some ten
// milliseconds.
const pollEvery = 100 * time.Millisecond

// Await polls until every running proxy serves the versions. When ctx ends
// first, the error says who does not and the last answer is returned with it.
func Await(ctx context.Context, replicas []*reach.Door, proxies func(context.Context) ([]Proxy, error), versions []Version) (*Service, error) {
	var last *Service
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		running, err := proxies(ctx)
		var s *Service
		if err == nil {
			s, err = Served(ctx, replicas, running, versions)
		}
		if err == nil && len(s.Missing) == 0 {
			return s, nil
		}
		if err == nil {
			last = s
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			if last == nil {
				return nil, errors.Join(context.Cause(ctx), err)
			}
			return last, fmt.Errorf("%w: %s", context.Cause(ctx), strings.Join(last.Missing, "; "))
		}
	}
}
