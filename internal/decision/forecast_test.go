package decision

import (
	"context"
	"encoding/json"
	"errors"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/internal/view"
)

func TestNamesOfServicesAsDNSKnowsThem(t *testing.T) {
	s := view.NewStore()
	services := map[mesh.ServiceKey]*mesh.Service{}
	for _, x := range []mesh.Service{
		{Name: "web", Namespace: "shop", Hostname: "web.shop.svc.cluster.local"}, {Name: "web", Namespace: "bank", Hostname: "web.bank.svc.cluster.local"},
		{Name: "api", Namespace: "shop", Hostname: "api.example.com"},
	} {
		services[x.Key()] = &x
	}
	s.Replace(mesh.Model{Services: services})
	for _, tt := range []struct{ host, from, want string }{
		{"web", "shop", "web.shop.svc.cluster.local"},
		{"web", "bank", "web.bank.svc.cluster.local"},
		{"web", "elsewhere", ""},
		{"web.shop", "bank", "web.shop.svc.cluster.local"},
		{"WEB.shop.svc", "bank", "web.shop.svc.cluster.local"},
		{"web.shop.svc.cluster.local.", "bank", "web.shop.svc.cluster.local"},
		{"web.shop.svc.other", "bank", ""},
		{"api.example.com", "bank", "api.example.com"},
		{"api", "shop", ""},
		{"", "shop", ""},
	} {
		got := ""
		if x := Service(s.View(), tt.host, tt.from); x != nil {
			got = x.Hostname
		}
		if got != tt.want {
			t.Errorf("%q from %s means %q, want %q", tt.host, tt.from, got, tt.want)
		}
	}
}

func TestQuestions(t *testing.T) {
	var asked *Asked
	page := CanPage(func(_ context.Context, a *Asked) (Forecast, error) {
		if asked = a; a.Host == "nowhere" {
			return Forecast{}, errors.New("no service nowhere is known here")
		}
		return Forecast{Allowed: true, Says: "it would", Story: Story{ID: "abcdefgh"}}, nil
	}, "waypoint shop/w")
	const id = `"source":"spiffe://cluster.local/ns/shop/sa/client"`
	for _, tt := range []struct {
		body string
		says string // empty if it is answered
		port uint16
	}{
		{`{` + id + `,"method":"GET","url":"http://web/x?a=b"}`, "", 80},
		{`{` + id + `,"method":"GET","url":"http://web:8080/","address":"10.1.0.5","header":{"Host":"other","X-A":"b"}}`, "", 8080},
		{`{` + id + `,"method":"GET","url":"https://web"}`, "", 443},
		{`{` + id + `,"method":"GET","url":"web/x"}`, "no URL with http and a host", 0},
		{`{` + id + `,"method":"GET","url":"http:///x"}`, "no URL with http and a host", 0},
		{`{` + id + `,"method":"GET","url":"http://web:99999/"}`, "no valid port", 0},
		{`{` + id + `,"method":"G T","url":"http://web/"}`, "the request", 0},
		{`{"source":"client","method":"GET","url":"http://web/"}`, "parsing identity", 0},
		{`{` + id + `,"method":"GET","url":"http://web/","address":"here"}`, "the client's address", 0},
		{`{` + id + `,"method":"GET","url":"http://nowhere/"}`, "no service nowhere", 0},
		{`[]`, "cannot unmarshal", 0},
		{`{"url":"` + strings.Repeat("x", maxQuestion) + `"}`, "too large", 0},
	} {
		w := httptest.NewRecorder()
		page.ServeHTTP(w, httptest.NewRequest("POST", "/can", strings.NewReader(tt.body)))
		if tt.says != "" {
			if w.Code != 400 || !strings.Contains(w.Body.String(), tt.says) {
				t.Errorf("%.90s: %d %q, want 400 with %q", tt.body, w.Code, w.Body, tt.says)
			}
			continue
		}
		var f Forecast
		if err := json.Unmarshal(w.Body.Bytes(), &f); err != nil || !f.Allowed || f.Story.Proxy != "waypoint shop/w" || f.Story.ID != "" || asked.Port != tt.port {
			t.Errorf("%s: %+v, %v, port %d", tt.body, f, err, asked.Port)
		}
	}
	if asked == nil || asked.Source.ServiceAccount != "client" {
		t.Errorf("asked %+v", asked)
	}
}
