// Package scenario runs the whole mesh in one process, without a socket:
// objects in YAML are translated, snapshotted, marshalled, sent as xDS
// responses, read into a proxy's view, and asked for the fate of connections; and
// into the tables of waypoints, and asked for the routes of requests.
//
// A scenario is a txtar file, complete in itself. Its first lines are its
// promise. Each step is a directory (the first has none) with
//
//	objects.yaml   objects put, over those of the steps before
//	delete.txt     objects deleted: "Kind namespace/name" a line
//	decide.txt     connections and, after "->", their fate; rewritten by -update
//	requests.txt   requests to services behind waypoints and, after "->", what
//	               policies say, and the rule and the backends; rewritten by -update
//	names.txt      names asked by pods and, after "->", their addresses; rewritten
//	               by -update
//	virtual.txt    the virtual addresses that ServiceEntries are to have; rewritten
//	               by -update
//	lost.txt       names of resources that do not reach the proxy in this step
//	conditions.txt what object owners are told; rewritten by -update
//
// A connection is "from NAMESPACE/POD to ADDRESS:PORT" for a pod of the mesh
// or "from ADDRESS to ADDRESS:PORT" for plaintext from anywhere else. Called
// only by its own test.
package scenario

import (
	"cmp"
	"context"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"golang.org/x/tools/txtar"

	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/internal/view"
	"github.com/ambit-mesh/ambit/internal/xds"
	"github.com/ambit-mesh/ambit/istiod-lite/objects"
	"github.com/ambit-mesh/ambit/istiod-lite/snapshot"
	"github.com/ambit-mesh/ambit/istiod-lite/translate"
)

// step is one directory of the file.
type step struct {
	name  string
	files map[string]*txtar.File
}

// stepsOf gathers the files by directory, in order of appearance.
func stepsOf(a *txtar.Archive) []*step {
	var steps []*step
	for i := range a.Files {
		f := &a.Files[i]
		dir, base, ok := strings.Cut(f.Name, "/")
		if !ok {
			dir, base = "", f.Name
		}
		j := slices.IndexFunc(steps, func(s *step) bool { return s.name == dir })
		if j < 0 {
			j, steps = len(steps), append(steps, &step{name: dir, files: map[string]*txtar.File{}})
		}
		steps[j].files[base] = f
	}
	return steps
}

// chain leads from objects to a proxy's view.
type chain struct {
	set        objects.Set
	translator *translate.Translator
	sent       *snapshot.Ztunnel
	store      *view.Store
	waypoints  waypoints
}

func newChain() *chain {
	return &chain{
		set:        objects.Set{Mesh: objects.MeshConfig{}.WithDefaults()},
		translator: translate.New(),
		store:      view.NewStore(),
		waypoints:  waypoints{of: map[snapshot.Gateway]*waypoint{}},
	}
}

// change applies a step's objects and returns the responses that a proxy gets.
func (c *chain) change(s *step) (mesh.Model, []translate.Condition, []xds.Update, error) {
	var changed []objects.Ref
	if f := s.files["objects.yaml"]; f != nil {
		fresh, err := objects.Parse(f.Data)
		if err != nil {
			return mesh.Model{}, nil, nil, err
		}
		changed = c.merge(fresh)
	}
	if f := s.files["delete.txt"]; f != nil {
		for line := range strings.Lines(string(f.Data)) {
			ref, err := parseRef(strings.TrimSpace(line))
			if err != nil {
				return mesh.Model{}, nil, nil, err
			}
			c.set.Delete(ref)
			changed = append(changed, ref)
		}
	}
	model, conditions := c.translator.Update(c.set, changed)
	next := snapshot.ForZtunnels(c.sent, model)
	updates := snapshot.Diff(c.sent, next)
	c.sent = next
	if err := c.waypoints.follow(model, next.Types[xds.TypeAddress]); err != nil {
		return model, nil, nil, err
	}
	if f := s.files["lost.txt"]; f != nil {
		lose(updates, strings.Fields(string(f.Data)))
	}
	return model, conditions, updates, nil
}

// lose drops resources from responses.
func lose(updates []xds.Update, names []string) {
	for i, u := range updates {
		updates[i].Upserts = slices.DeleteFunc(u.Upserts, func(r xds.Resource) bool { return slices.Contains(names, r.Name) })
	}
}

// merge puts every object of a set over those there.
func (c *chain) merge(fresh objects.Set) []objects.Ref {
	var changed []objects.Ref
	put := func(o any) {
		ref, err := c.set.Put(o)
		if err != nil {
			panic(err) // it came out of a Set
		}
		changed = append(changed, ref)
	}
	fresh.Each(func(_ objects.Ref, o any) { put(o) })
	if !reflect.DeepEqual(fresh.Mesh, objects.MeshConfig{}.WithDefaults()) {
		put(fresh.Mesh)
	}
	return changed
}

func parseRef(line string) (objects.Ref, error) {
	kind, name, ok := strings.Cut(line, " ")
	if !ok {
		return objects.Ref{}, fmt.Errorf("%q: want Kind namespace/name", line)
	}
	k := objects.Key{Name: name}
	if ns, n, ok := strings.Cut(name, "/"); ok {
		k = objects.Key{Namespace: ns, Name: n}
	}
	return objects.Ref{Kind: objects.Kind(kind), Key: k}, nil
}

// receive gives the store one response; nothing in it may be rejected.
func (c *chain) receive(u xds.Update) error {
	for _, r := range c.store.Receive(context.Background(), u) {
		return fmt.Errorf("the proxy rejects %s: %w", r.Name, r.Reason)
	}
	return nil
}

// conditionLines is the text of conditions.txt.
func conditionLines(conditions []translate.Condition) string {
	var b strings.Builder
	for _, c := range slices.SortedStableFunc(slices.Values(conditions), func(a, b translate.Condition) int {
		return cmp.Compare(a.Object.String(), b.Object.String())
	}) {
		parent := ""
		if c.Parent != (translate.Parent{}) {
			parent = fmt.Sprintf(" (%s %s)", c.Parent.Kind, cmp.Or(c.Parent.Name, c.Parent.SectionName))
		}
		fmt.Fprintf(&b, "%s%s: %s=%v %s: %s\n", c.Object, parent, c.Type, c.Status, c.Reason, c.Message)
	}
	return b.String()
}
