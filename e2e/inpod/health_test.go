package inpod_test

import (
	"bytes"
	"encoding/json"
	"net/http"
	"testing"

	"github.com/ambit-mesh/ambit/internal/health"
	"github.com/ambit-mesh/ambit/internal/linux/linuxtest"
)

// ask reads a page of a ztunnel's administration; post is sent if there is any.
func (z *runningZtunnel) ask(t *testing.T, path string, post, answer any) {
	t.Helper()
	var resp *http.Response
	var err error
	if post == nil {
		resp, err = http.Get(z.admin + path)
	} else {
		body, _ := json.Marshal(post)
		resp, err = http.Post(z.admin+path, "application/json", bytes.NewReader(body))
	}
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(answer); err != nil {
		t.Fatalf("%s: %d, %v", path, resp.StatusCode, err)
	}
}

func TestAZtunnelTellsHowItIsAndWhomItReaches(t *testing.T) {
	needsRoot(t)
	w := newWorld(t, "one", "two")
	w.newPod(w.nodes[0], "client").enrolled()
	z := w.nodes[0].ztunnels[0]
	reach := func() (found []health.Reach) { z.ask(t, health.ReachPath, struct{}{}, &found); return found }
	if found := reach(); len(found) != 0 {
		t.Errorf("nobody is on the other node, yet %+v", found)
	}
	w.newPod(w.nodes[1], "web").enrolled()
	found := reach()
	if len(found) != 1 || found[0].Node != "two" || found[0].From != "shop/client" || found[0].To != "shop/web" || found[0].Error != "" {
		t.Errorf("an open way: %+v", found)
	}
	var h health.Proxy
	z.ask(t, health.Path, nil, &h)
	if h.Node != "one" || !h.ControlPlane.Connected || len(h.Roots) != 1 || len(h.Identities) != 1 || h.Identities[0].TrustDomain != "cluster.local" || h.Identities[0].State != "Available" || h.Now.IsZero() {
		t.Errorf("it says %+v", h)
	}
	w.mu.Lock()
	newest := w.version
	w.mu.Unlock()
	if h.Configuration != newest {
		t.Errorf("it decides with %d, want %d", h.Configuration, newest)
	}
	linuxtest.Run(t, w.nodes[1].ns, "nft", "-f", "-", "table inet firewall { chain f { type filter hook forward priority 0; tcp dport 15008 drop; }; }")
	if found = reach(); len(found) != 1 || !found[0].Silent {
		t.Errorf("a blocked way: %+v", found)
	}
	for _, r := range w.nodes[1].ztunnels[0].log.records() {
		if r["component"] == "access" {
			t.Errorf("a probe is recorded as a connection: %v", r)
		}
	}
}
