package inpod_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/ambit-mesh/ambit/internal/mesh"
)

// keptState is what a ztunnel's dump says of the age of its state.
type keptState struct {
	Kept  bool
	Files struct {
		State, Certificates struct {
			Written   time.Time
			Complaint string
		}
		Restored *struct{ Resources int }
	}
}

func keptOf(t *testing.T, z *runningZtunnel) (k keptState) {
	t.Helper()
	r, err := http.Get(z.admin + "/config_dump")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	var d struct{ Kept keptState }
	if err := json.NewDecoder(r.Body).Decode(&d); err != nil {
		t.Fatal(err)
	}
	return d.Kept
}

// keeps gives every node a directory in memory.
func (w *world) keeps() {
	w.t.Helper()
	for _, n := range w.nodes {
		dir, err := os.MkdirTemp("/dev/shm", "ambit")
		if err != nil {
			w.t.Skip("nothing in memory to keep state in: ", err)
		}
		w.t.Cleanup(func() { os.RemoveAll(dir) })
		n.kept = filepath.Join(dir, "kept")
	}
}

// restart ends the node's newest ztunnel and begins another.
func (n *node) restart(w *world) *runningZtunnel {
	n.ztunnels[len(n.ztunnels)-1].end(w.t)
	return n.start(w)
}

// TestAZtunnelStartedWhileTheControlPlaneIsAwayGoesOnAsBefore: what it knew it
// knows, and denies what it denied; what changed meanwhile it learns later.
func TestAZtunnelStartedWhileTheControlPlaneIsAwayGoesOnAsBefore(t *testing.T) {
	needsRoot(t)
	w := bare(t, "one", "two")
	w.keeps()
	w.boot()
	client := w.newPod(w.nodes[0], "client").enrolled()
	denied := w.newPod(w.nodes[0], "denied").enrolled()
	server := w.newPod(w.nodes[1], "server").enrolled()
	server.echo(8080)
	w.apply(policy("not-denied", mesh.ScopeNamespace, mesh.ActionDeny, mesh.Match{Principals: principal(denied)}))
	if err := errors.Join(second(client.call(server.at(8080))), refused(second(denied.call(server.at(8080))))); err != nil {
		t.Fatal(err)
	}

	w.away()
	for _, n := range w.nodes {
		z := n.restart(w)
		if k := keptOf(t, z); !k.Kept || k.Files.Restored == nil || k.Files.Restored.Resources != 4 {
			t.Errorf("%s: %+v; want three workloads and a policy restored", n.name, k)
		}
	}
	for range 3 {
		if _, err := client.call(server.at(8080)); err != nil {
			t.Errorf("without control plane: %v", err)
		}
		if err := refused(second(denied.call(server.at(8080)))); err != nil {
			t.Errorf("without control plane, who is denied: %v", err)
		}
	}
	client.node.logged(t, map[string]any{"direction": "outbound", "src.workload": "client", "dst.identity": server.identity().String()})

	w.change(func(m *mesh.Model) { // while nobody hears of it
		delete(m.Policies, key("not-denied"))
		delete(m.Workloads, client.workload)
	})
	w.back()
	w.settle()
	eventually(t, func() error { return second(denied.call(server.at(8080))) })
	for _, n := range w.nodes {
		z := n.ztunnels[len(n.ztunnels)-1]
		eventually(t, func() error {
			if k := keptOf(t, z); k.Kept {
				return fmt.Errorf("it still says that its state is kept: %+v", k)
			}
			return nil
		})
		if have := workloadsOf(t, z); have[client.workload] || !have[server.workload] {
			t.Errorf("%s knows %v: what was removed meanwhile must go", n.name, have)
		}
	}
}

func workloadsOf(t *testing.T, z *runningZtunnel) map[string]bool {
	t.Helper()
	r, err := http.Get(z.admin + "/config_dump")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	var d struct{ Workloads []struct{ UID string } }
	if err := json.NewDecoder(r.Body).Decode(&d); err != nil {
		t.Fatal(err)
	}
	out := map[string]bool{}
	for _, x := range d.Workloads {
		out[x.UID] = true
	}
	return out
}

// TestAKeptStateThatWasTamperedWithIsNotUsed: the proxy waits for the control
// plane, and says why.
func TestAKeptStateThatWasTamperedWithIsNotUsed(t *testing.T) {
	needsRoot(t)
	w := bare(t, "one")
	w.keeps()
	w.boot()
	n := w.nodes[0]
	w.newPod(n, "client").enrolled()
	n.ztunnels[0].end(t)
	path := filepath.Join(n.kept, "state")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	text[len(text)/2] ^= 1
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	z := n.start(w) // the control plane is there
	k := keptOf(t, z)
	if k.Files.Restored != nil {
		t.Errorf("restored: %+v", k)
	}
	n.logged(t, map[string]any{"msg": "what was kept is not used", "file": "state"})
}
