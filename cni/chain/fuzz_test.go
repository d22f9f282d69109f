package chain

import (
	"maps"
	"testing"
)

// FuzzPlan: whatever stands in the node's directory, the plan is whole or there
// is none, what it writes is stable, and without us it can be undone.
func FuzzPlan(f *testing.F) {
	f.Add([]byte(`{"cniVersion":"1.0.0","name":"n","plugins":[{"type":"bridge"},{"type":"portmap"}]}`), []byte(`{"type":"bridge","name":"n"}`))
	f.Add([]byte(`{"name":"n","plugins":[{"type":"ambit-cni"},{"type":1}]}`), []byte(`[]`))
	f.Add([]byte(`{"plugins":null}`), []byte("{"))
	f.Fuzz(func(t *testing.T, list, conf []byte) {
		for _, files := range []map[string][]byte{{"10-a.conflist": list, "20-b.conf": conf}, {"10-a.conf": conf, OwnFile: list}} {
			entry := Entry{Type: "ambit-cni", ExcludeNamespaces: []string{"kube-system"}}
			before := maps.Clone(files)
			c, err := Plan(files, entry)
			if err != nil {
				if len(c.Write)+len(c.Remove) > 0 {
					t.Errorf("a plan beside %v", err)
				}
				continue
			}
			apply(files, c)
			if again, err := Plan(files, entry); err != nil || len(again.Write)+len(again.Remove) > 0 {
				t.Errorf("%q: the plan does not hold: %v, then %v, %v", before, c, again, err)
			}
			apply(files, Unplan(files, entry.Type))
			for name, b := range files {
				if _, had, err := withoutEntry(b, entry.Type); err == nil && had {
					t.Errorf("%s still has us: %s", name, b)
				}
			}
		}
	})
}

func apply(files map[string][]byte, c Change) {
	for _, name := range c.Remove {
		delete(files, name)
	}
	maps.Copy(files, c.Write)
}
