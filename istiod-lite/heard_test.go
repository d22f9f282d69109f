package istiodlite

import (
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ambit-mesh/ambit/internal/heard"
	"github.com/ambit-mesh/ambit/internal/xds"
)

func TestAVersionIsHeardWhenEveryProxyHasIt(t *testing.T) {
	h := startHouse(t)
	_, c := h.connect(t)
	<-c.Synced()
	v := heard.Version{APIVersion: "security.istio.io/v1", Kind: "AuthorizationPolicy", Namespace: "shop", Name: "only-front", ResourceVersion: "7"}
	if yes, err := heard.Ask(t.Context(), h.http, v); yes || err != nil {
		t.Fatalf("before it is there: %v, %v", yes, err)
	}
	write(t, filepath.Join(h.dir, "policy.yaml"), strings.Replace(policyYAML, "name: only-front", `name: only-front, resourceVersion: "7"`, 1))
	for deadline := time.Now().Add(patience); ; time.Sleep(2 * time.Millisecond) {
		yes, err := heard.Ask(t.Context(), h.http, v)
		if err != nil {
			t.Fatal(err)
		}
		if yes {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("never heard")
		}
	}
	v.ResourceVersion = "8"
	if yes, err := heard.Ask(t.Context(), h.http, v); yes || err != nil {
		t.Errorf("a version that is not there yet: %v, %v", yes, err)
	}
	for _, body := range []string{"", "[]", `{"name":"` + strings.Repeat("x", heard.MaxBody) + `"}`} {
		resp, err := http.Post("http://"+h.http+heard.Path, "application/json", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusBadRequest {
			t.Errorf("%.20q…: status %d, want 400", body, resp.StatusCode)
		}
	}
}

func TestOneThatIsBehindHasNotHeard(t *testing.T) {
	client := func(acked ...uint64) (c xds.ClientStatus) {
		for _, a := range acked {
			c.Types = append(c.Types, xds.TypeStatus{Acked: a, Sent: 9})
		}
		return c
	}
	for _, c := range []struct {
		what    string
		clients []xds.ClientStatus
		want    bool
	}{
		{"nobody is connected", nil, true},
		{"all have it", []xds.ClientStatus{client(5, 6), client(7)}, true},
		{"one lacks one type", []xds.ClientStatus{client(5, 6), client(7, 4)}, false},
	} {
		if got := acknowledged(c.clients, 5); got != c.want {
			t.Errorf("%s: %v, want %v", c.what, got, c.want)
		}
	}
}
