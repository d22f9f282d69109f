package waypoint

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/ambit-mesh/ambit/internal/decision"
	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/internal/spiffe"
	"github.com/ambit-mesh/ambit/waypoint/backendtest"
)

func (r *running) can(q decision.Question) (f decision.Forecast, refused string) {
	r.t.Helper()
	body, _ := json.Marshal(q)
	resp, err := http.Post(fmt.Sprintf("http://127.0.0.1:%d/can", r.config.AdminPort), "application/json", bytes.NewReader(body))
	if err != nil {
		r.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, _ := io.ReadAll(resp.Body)
	if resp.StatusCode != 200 {
		return f, string(b)
	}
	if err := json.Unmarshal(b, &f); err != nil {
		r.t.Fatal(err)
	}
	return f, ""
}

func TestItTellsWhatItDecidedAndWhatItWould(t *testing.T) {
	r := run(t)
	r.knows(r.mesh.Pod("web-1", spiffe.ID{}, backendtest.Named("web-1")))
	other := *r.model.Services[key("web")]
	other.Name, other.Hostname, other.Waypoint, other.Addresses = "other", key("other").Hostname, mesh.GatewayAddress{}, nil
	r.model.Services[key("other")] = &other
	r.config.Store.Replace(r.model)
	r.until(r.config.ReadyPort, "/healthz/ready", 200, "")
	q := decision.Question{Source: "spiffe://cluster.local/ns/shop/sa/client", Method: "GET", URL: "http://web/path"}
	f, refused := r.can(q)
	if !f.Allowed || refused != "" || f.Story.Proxy != "waypoint shop/wp-1" || !strings.Contains(f.Says, "it would reach one of 1 endpoints") {
		t.Errorf("forecast %+v %s", f, refused)
	}
	q.URL = "http://other/path"
	if f, refused = r.can(q); !strings.Contains(refused, "does not use this waypoint") {
		t.Errorf("a service of nobody's: %+v %q", f, refused)
	}
	r.until(r.config.AdminPort, "/decisions", 200, "[]")
	resp, err := r.client().Get("http://web/asked")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	var stories []decision.Story
	if err := json.Unmarshal([]byte(r.until(r.config.AdminPort, "/decisions?source=client&destination=web", 200, "/asked")), &stories); err != nil || len(stories) != 1 {
		t.Fatalf("stories %+v, %v", stories, err)
	}
	if got := r.until(r.config.AdminPort, "/decisions/"+stories[0].ID, 200, "GET web/asked"); !strings.Contains(got, "waypoint shop/wp-1") {
		t.Errorf("the story does not say who decided: %s", got)
	}
}
