package waypoints

import (
	"cmp"
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/ambit-mesh/ambit/ambit/inspect"
)

// Serves reports whether a waypoint takes connections now, and what it says of
// that. What was said of an older generation of the Gateway does not count.
func Serves(g *unstructured.Unstructured) (bool, string) {
	for _, c := range conditions(g.Object, "status", "conditions") {
		if c["type"] == conditionServes {
			seen, _ := c["observedGeneration"].(int64)
			return c["status"] == "True" && seen >= g.GetGeneration(), text(c, "message")
		}
	}
	return false, ""
}

// ListTable is what `ambit waypoint list` shows. The traffic is what counts: a
// Gateway without the label is for services.
func ListTable(all []unstructured.Unstructured, withNamespace bool) inspect.Table {
	t := inspect.Table{Header: head(withNamespace, "NAME", "REVISION", "TRAFFIC TYPE", "PROGRAMMED", "ADDRESS")}
	for i := range all {
		g := &all[i]
		served, _ := Serves(g)
		var addresses []string
		list, _, _ := unstructured.NestedSlice(g.Object, "status", "addresses")
		for _, a := range list {
			if m, ok := a.(map[string]any); ok && m["type"] == "IPAddress" {
				addresses = append(addresses, text(m, "value"))
			}
		}
		programmed := "False"
		if served {
			programmed = "True"
		}
		row := []string{g.GetName(), cmp.Or(g.GetLabels()[labelRevision], "default"), cmp.Or(g.GetLabels()[labelFor], defaultTraffic), programmed, strings.Join(addresses, ",")}
		t.Rows = append(t.Rows, lead(withNamespace, g, row))
	}
	return t
}

// StatusTable is what `ambit waypoint status` shows: every condition.
func StatusTable(all []unstructured.Unstructured, withNamespace bool) inspect.Table {
	t := inspect.Table{Header: head(withNamespace, "NAME", "STATUS", "TYPE", "REASON", "MESSAGE")}
	for i := range all {
		g := &all[i]
		list := conditions(g.Object, "status", "conditions")
		for _, c := range list {
			t.Rows = append(t.Rows, lead(withNamespace, g, []string{g.GetName(), text(c, "status"), text(c, "type"), text(c, "reason"), text(c, "message")}))
		}
		if len(list) == 0 {
			t.Rows = append(t.Rows, lead(withNamespace, g, []string{g.GetName(), "Unknown", "", "", "the control plane has said nothing about it"}))
		}
	}
	return t
}

func head(withNamespace bool, columns ...string) []string {
	if withNamespace {
		return append([]string{"NAMESPACE"}, columns...)
	}
	return columns
}

func lead(withNamespace bool, g *unstructured.Unstructured, row []string) []string {
	if withNamespace {
		return append([]string{g.GetNamespace()}, row...)
	}
	return row
}

func conditions(of map[string]any, path ...string) []map[string]any {
	list, _, _ := unstructured.NestedSlice(of, path...)
	var out []map[string]any
	for _, e := range list {
		if c, ok := e.(map[string]any); ok {
			out = append(out, c)
		}
	}
	return out
}

func text(of map[string]any, field string) string {
	if s, ok := of[field].(string); ok {
		return s
	}
	return fmt.Sprint(of[field])
}
