package translate_test

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"

	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/istiod-lite/objects"
	"github.com/ambit-mesh/ambit/istiod-lite/translate"
	"github.com/ambit-mesh/ambit/istiod-lite/translate/translatetest"
)

// Every file of testdata/routes is objects.yaml, the routes that waypoints get
// of it and what their authors are told.
func TestRoutes(t *testing.T) {
	files, err := filepath.Glob("testdata/routes/*.txtar")
	if err != nil || len(files) < 10 {
		t.Fatalf("found %d files: %v", len(files), err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			a, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if len(bytes.TrimSpace(a.Comment)) == 0 {
				t.Error("the file does not say what it promises")
			}
			m, conditions := translate.Translate(parse(t, string(a.Files[0].Data)))
			got := &txtar.Archive{Comment: a.Comment, Files: []txtar.File{
				a.Files[0], {Name: "routes.txt", Data: []byte(routeLines(m))}, {Name: "conditions.txt", Data: []byte(routeConditionLines(conditions))},
			}}
			if *update {
				if err := os.WriteFile(file, txtar.Format(got), 0o644); err != nil {
					t.Fatal(err)
				}
			} else if d := cmp.Diff(string(txtar.Format(a)), string(txtar.Format(got))); d != "" {
				t.Errorf("-want +got (-update rewrites):\n%s", d)
			}
		})
	}
}

// routeLines shows routes: parents, rules and what is in them.
func routeLines(m mesh.Model) string {
	var out strings.Builder
	keys := slices.SortedFunc(maps.Keys(m.Routes), func(a, b mesh.RouteKey) int { return strings.Compare(a.String(), b.String()) })
	for _, k := range keys {
		r := m.Routes[k]
		fmt.Fprintf(&out, "%s at", k)
		for _, p := range r.Parents {
			fmt.Fprintf(&out, " %s", port(p.Service, p.Port))
			if r.Consumer(p) {
				out.WriteString(" (its own clients only)")
			}
		}
		out.WriteString("\n")
		for _, rule := range r.Rules {
			fmt.Fprintf(&out, "\trule %d%s\n", rule.Index, strings.Join(append([]string{""}, about(rule)...), "\n\t\t"))
		}
	}
	return out.String()
}

func port(s mesh.ServiceKey, p uint16) string {
	short := s.Namespace + "/" + strings.TrimSuffix(s.Hostname, "."+s.Namespace+".svc.cluster.local")
	if p == 0 {
		return short
	}
	return fmt.Sprintf("%s:%d", short, p)
}

func about(r mesh.RouteRule) []string {
	var out []string
	if r.Name != "" {
		out = append(out, "named "+r.Name)
	}
	for _, m := range r.Matches {
		out = append(out, "match "+matchText(m))
	}
	if len(r.SNI) > 0 {
		out = append(out, fmt.Sprintf("SNI %v", r.SNI))
	}
	out = append(out, filterLines(r.Filters)...)
	if r.RequestTimeout+r.BackendTimeout > 0 {
		out = append(out, fmt.Sprintf("timeouts %s and %s", r.RequestTimeout, r.BackendTimeout))
	}
	if r.Retry != nil {
		out = append(out, fmt.Sprintf("retry %+v", *r.Retry))
	}
	if r.Persistence != nil {
		out = append(out, fmt.Sprintf("session %+v", *r.Persistence))
	}
	for _, b := range r.Backends {
		out = append(out, strings.Join(append([]string{"to " + backendText(b)}, filterLines(b.Filters)...), " "))
	}
	return out
}

func backendText(b mesh.Backend) string {
	if b.Invalid != "" {
		return fmt.Sprintf("nothing, weight %d: %s", b.Weight, b.Invalid)
	}
	return fmt.Sprintf("%s, weight %d", port(b.Service, b.Port), b.Weight)
}

func matchText(m mesh.RequestMatch) string {
	parts := []string{[...]string{"any path", "path", "prefix", "path ~"}[m.Path.Op] + " " + m.Path.Value}
	if m.Call != nil {
		parts = []string{fmt.Sprintf("call %q/%q", m.Call.Service, m.Call.Method)}
		if m.Call.Regex {
			parts[0] += " (RE2)"
		}
	}
	if m.Method != "" {
		parts = append(parts, m.Method)
	}
	for what, list := range [][]mesh.ValueMatch{m.Headers, m.Query} {
		for _, v := range list {
			parts = append(parts, fmt.Sprint([...]string{"header ", "query "}[what], v.Name, map[bool]string{false: "=", true: "~"}[v.Regex], v.Value))
		}
	}
	return strings.Join(parts, ", ")
}

func filterLines(f mesh.Filters) []string {
	var out []string
	if f.Request != nil {
		out = append(out, fmt.Sprintf("request headers set %v add %v remove %v", f.Request.Set, f.Request.Add, f.Request.Remove))
	}
	if f.Response != nil {
		out = append(out, fmt.Sprintf("response headers set %v add %v remove %v", f.Response.Set, f.Response.Add, f.Response.Remove))
	}
	if r := f.Redirect; r != nil {
		out = append(out, fmt.Sprintf("redirect %d scheme %q host %q port %d%s", r.Status, r.Scheme, r.Host, r.Port, editText(r.Path)))
	}
	if r := f.Rewrite; r != nil {
		out = append(out, fmt.Sprintf("rewrite host %q%s", r.Host, editText(r.Path)))
	}
	for _, m := range f.Mirrors {
		out = append(out, fmt.Sprintf("mirror %d/%d to %s", m.Numerator, m.Denominator, backendText(m.Backend)))
	}
	if f.CORS != nil {
		out = append(out, fmt.Sprintf("CORS %+v", *f.CORS))
	}
	return out
}

func editText(e *mesh.PathEdit) string {
	if e == nil {
		return ""
	}
	return fmt.Sprintf(" %s %q", [...]string{"path", "prefix"}[e.Op], e.Value)
}

func routeConditionLines(all []translate.Condition) string {
	var out strings.Builder
	last := ""
	for _, c := range all {
		if !strings.HasSuffix(string(c.Object.Kind), "Route") {
			continue
		}
		if head := fmt.Sprintf("%s at %s\n", c.Object, parentText(c.Parent)); head != last {
			out.WriteString(head)
			last = head
		}
		fmt.Fprintf(&out, "\t%s %v %s: %s\n", c.Type, c.Status, c.Reason, c.Message)
	}
	return out.String()
}

func parentText(p translate.Parent) string {
	out := strings.TrimPrefix(p.Group+"/"+p.Kind, "/") + " " + objects.Key{Namespace: p.Namespace, Name: p.Name}.String()
	if p.Port != 0 {
		out += fmt.Sprintf(" port %d", p.Port)
	}
	if p.SectionName != "" {
		out += fmt.Sprintf(" section %s", p.SectionName)
	}
	return out
}

func TestAChangedRouteIsMadeAloneAndKeepsTheOthers(t *testing.T) {
	const pods, routes = 100, 200
	set := translatetest.Cluster(pods)
	translatetest.AddRoutes(&set, pods, routes)
	tr := translate.New()
	before, told := tr.Update(set, nil)
	if len(before.Routes) != routes || len(told) < 3*routes {
		t.Fatalf("%d routes and %d conditions to begin with", len(before.Routes), len(told))
	}
	ref := translatetest.ShiftRoute(&set, pods, 42)
	after, _ := tr.Update(set, []objects.Ref{ref})
	for k, r := range after.Routes {
		if changed := k.Name == ref.Key.Name; (before.Routes[k] != r) != changed {
			t.Errorf("%s was made again: %v, want %v", k, before.Routes[k] != r, changed)
		}
	}
	// What only its status and metadata say is nothing new.
	again := set.HTTPRoutes[ref.Key].DeepCopy()
	again.ResourceVersion, again.Status.Parents = "7", nil
	if _, err := set.Put(again); err != nil {
		t.Fatal(err)
	}
	still, same := tr.Update(set, []objects.Ref{ref})
	if _, now := tr.Update(set, []objects.Ref{ref}); &same[0] != &now[0] || !maps.Equal(still.Routes, after.Routes) {
		t.Error("a written status was taken for a change")
	}
}
