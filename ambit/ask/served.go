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
	// Gone is that the object was deleted; the version is its last.
	Gone bool `json:"gone,omitempty"`
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
// nobody serves what is old. When all have, each is asked what it decides with:
// an acknowledgement is a word, and its view is the deed.
func Served(ctx context.Context, replicas []*reach.Door, proxies []Proxy, versions []Version) (*Service, error) {
	s := &Service{}
	reached := map[string]link{}
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
	for _, p := range proxies {
		if _, ok := reached[p.Name]; !ok && len(s.Missing) == 0 {
			s.Missing = append(s.Missing, p.Kind+" "+p.Name+" is "+notConnected)
		}
	}
	if len(s.Missing) == 0 {
		s.Missing = unproven(ctx, proxies, reached)
	}
	return s, nil
}

// link is a proxy's connection to the control plane.
type link struct {
	connected time.Time
	// given is the generation that it has to decide with by now.
	given uint64
}

// unproven are the proxies whose view is not what they have acknowledged, or
// that do not say.
func unproven(ctx context.Context, proxies []Proxy, by map[string]link) []string {
	var out []string
	for i, a := range Probe(ctx, proxies) {
		p := proxies[i]
		switch {
		case a.Err != nil:
			out = append(out, fmt.Sprintf("%s %s does not say what it decides with: %v", p.Kind, p.Name, a.Err))
		case a.Asked && a.Said.Configuration < by[p.Name].given:
			out = append(out, fmt.Sprintf("%s %s has acknowledged %d and decides with %d", p.Kind, p.Name, by[p.Name].given, a.Said.Configuration))
		}
	}
	return out
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
func behind(at *Standing, generation uint64, reached map[string]link) []string {
	var out []string
	for _, c := range at.Clients {
		switch refused := c.Refused(generation); {
		case refused != "":
			out = append(out, fmt.Sprintf("%s %s refused %s", c.Kind(), c.Pod(), refused))
		case c.Acked() >= generation:
			// One that has just changed its replica is on both lists for a while.
			if before := reached[c.Pod()]; !before.connected.After(c.Connected) {
				reached[c.Pod()] = link{c.Connected, c.Given()}
			}
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

// Await polls until every running proxy serves the versions; replicas and
// proxies are who runs now, which changes while it waits. When ctx ends first,
// the error says who does not and the last answer is returned with it.
func Await(ctx context.Context, replicas func(context.Context) ([]Opener, error), proxies func(context.Context) ([]Proxy, error), versions []Version) (*Service, error) {
	var last *Service
	w := way{replicas: replicas}
	defer w.close()
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		s, err := w.served(ctx, proxies, versions)
		if err == nil && len(s.Missing) == 0 {
			return s, nil
		}
		if ctx.Err() == nil {
			last = s // not the echo of the end of ctx
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

// reopenEvery is how often a wait looks which replicas there are: proxies go
// over to one that has come, and what one that has gone said counts no more.
const reopenEvery = time.Second

// way keeps the doors to the replicas open from one look to the next.
type way struct {
	replicas func(context.Context) ([]Opener, error)
	doors    []*reach.Door
	opened   time.Time
}

func (w *way) served(ctx context.Context, proxies func(context.Context) ([]Proxy, error), versions []Version) (*Service, error) {
	running, err := proxies(ctx)
	if err == nil && time.Since(w.opened) > reopenEvery {
		err = w.open(ctx)
	}
	if err != nil {
		return nil, err
	}
	s, err := Served(ctx, w.doors, running, versions)
	if err != nil {
		w.opened = time.Time{} // who did not answer may have gone
	}
	return s, err
}

func (w *way) open(ctx context.Context) error {
	w.close()
	replicas, err := w.replicas(ctx)
	if err != nil {
		return err
	}
	for _, open := range replicas {
		d, err := open(ctx)
		if err != nil {
			return err
		}
		w.doors = append(w.doors, d)
	}
	w.opened = time.Now()
	return nil
}

func (w *way) close() {
	for _, d := range w.doors {
		d.Close()
	}
	w.doors, w.opened = nil, time.Time{}
}
