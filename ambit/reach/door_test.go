package reach_test

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/ambit-mesh/ambit/ambit/reach"
)

func TestDoors(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.Method + " " + r.URL.RequestURI() {
		case "GET /text?a=b":
			io.WriteString(w, "hello")
		case "POST /echo":
			io.Copy(w, r.Body)
		case "GET /broken":
			io.WriteString(w, "<html>")
		default:
			http.Error(w, "no such page "+strings.Repeat("x", 1000), http.StatusNotFound)
		}
	}))
	defer s.Close()
	d := &reach.Door{Name: "shop/w-1", URL: s.URL}
	defer d.Close()
	if b, err := d.Get(t.Context(), "/text?a=b"); string(b) != "hello" || err != nil {
		t.Errorf("got %q, %v", b, err)
	}
	var out []int
	if err := d.Post(t.Context(), "/echo", []int{1, 2}, &out); err != nil || len(out) != 2 {
		t.Errorf("got %v, %v", out, err)
	}
	if err := d.GetJSON(t.Context(), "/broken", &out); err == nil || !strings.Contains(err.Error(), "reading /broken of shop/w-1") {
		t.Errorf("an answer that is no JSON: %v", err)
	}
	_, err := d.Get(t.Context(), "/missing")
	status, ok := errors.AsType[*reach.StatusError](err)
	if !ok || status.Status != 404 || len(err.Error()) > 500 || !strings.Contains(err.Error(), "shop/w-1 answered 404 Not Found to /missing: no such page") {
		t.Errorf("a missing page: %v", err)
	}
	s.Close()
	if _, err := d.Get(t.Context(), "/text?a=b"); err == nil || !strings.Contains(err.Error(), "asking shop/w-1") {
		t.Errorf("a server that is away: %v", err)
	}
	d.Close()
}
