package match

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ambit-mesh/ambit/internal/mesh"
)

func TestHeaderEdits(t *testing.T) {
	type headers = map[string][]string
	for _, tt := range []struct {
		sentence string
		edit     *mesh.HeaderEdit
		in, want headers
		wantHost string
	}{
		{"nothing", nil, headers{"A": {"1"}}, headers{"A": {"1"}}, "echo"},
		{"set a new one", &mesh.HeaderEdit{Set: []mesh.Header{{Name: "X-Header-Set", Value: "set-overwrites-values"}}},
			headers{"Some-Other-Header": {"val"}}, headers{"Some-Other-Header": {"val"}, "X-Header-Set": {"set-overwrites-values"}}, "echo"},
		{"set replaces all values", &mesh.HeaderEdit{Set: []mesh.Header{{Name: "X-Header-Set", Value: "set-overwrites-values"}}},
			headers{"X-Header-Set": {"some", "other"}}, headers{"X-Header-Set": {"set-overwrites-values"}}, "echo"},
		{"add a new one", &mesh.HeaderEdit{Add: []mesh.Header{{Name: "X-Header-Add", Value: "add-appends-values"}}},
			headers{}, headers{"X-Header-Add": {"add-appends-values"}}, "echo"},
		{"add to others", &mesh.HeaderEdit{Add: []mesh.Header{{Name: "X-Header-Add", Value: "add-appends-values"}}},
			headers{"X-Header-Add": {"some-other-value"}}, headers{"X-Header-Add": {"some-other-value", "add-appends-values"}}, "echo"},
		{"remove", &mesh.HeaderEdit{Remove: []string{"X-Header-Remove"}},
			headers{"X-Header-Remove": {"val", "val2"}, "Other": {"x"}}, headers{"Other": {"x"}}, "echo"},
		{"several at once", &mesh.HeaderEdit{
			Set:    []mesh.Header{{Name: "X-Header-Set-1", Value: "header-set-1"}, {Name: "X-Header-Set-2", Value: "header-set-2"}},
			Add:    []mesh.Header{{Name: "X-Header-Add-1", Value: "header-add-1"}, {Name: "X-Header-Add-2", Value: "header-add-2"}},
			Remove: []string{"X-Header-Remove-1", "X-Header-Remove-2"},
		},
			headers{"X-Header-Set-2": {"set-val-2"}, "X-Header-Add-2": {"add-val-2"}, "X-Header-Remove-2": {"remove-val-2"}, "Another-Header": {"another-header-val"}},
			headers{"X-Header-Set-1": {"header-set-1"}, "X-Header-Set-2": {"header-set-2"}, "X-Header-Add-1": {"header-add-1"}, "X-Header-Add-2": {"add-val-2", "header-add-2"}, "Another-Header": {"another-header-val"}}, "echo"},
		{"names are without case", &mesh.HeaderEdit{
			Set: []mesh.Header{{Name: "x-lowercase-set", Value: "header-set"}}, Add: []mesh.Header{{Name: "X-MIXEDCASE-ADD", Value: "header-add"}}, Remove: []string{"x-Lowercase-REMOVE"},
		},
			headers{"X-Lowercase-Set": {"a"}, "X-Mixedcase-Add": {"b"}, "X-Lowercase-Remove": {"c"}}, headers{"X-Lowercase-Set": {"header-set"}, "X-Mixedcase-Add": {"b", "header-add"}}, "echo"},
		{"set comes before add, and add before remove", &mesh.HeaderEdit{
			Set: []mesh.Header{{Name: "A", Value: "1"}, {Name: "B", Value: "1"}}, Add: []mesh.Header{{Name: "A", Value: "2"}, {Name: "B", Value: "2"}}, Remove: []string{"B"},
		}, headers{}, headers{"A": {"1", "2"}}, "echo"},
		{"of equal names the first counts", &mesh.HeaderEdit{
			Set: []mesh.Header{{Name: "a", Value: "1"}, {Name: "A", Value: "2"}}, Add: []mesh.Header{{Name: "B", Value: "1"}, {Name: "b", Value: "2"}},
		}, headers{}, headers{"A": {"1"}, "B": {"1"}}, "echo"},

		{"Host is set", &mesh.HeaderEdit{Set: []mesh.Header{{Name: "host", Value: "example.org"}}}, headers{}, headers{}, "example.org"},
		{"Host is not added a second time", &mesh.HeaderEdit{Add: []mesh.Header{{Name: "Host", Value: "example.org"}}}, headers{}, headers{}, "echo"},
		{"Host is not removed", &mesh.HeaderEdit{Remove: []string{"Host"}}, headers{}, headers{}, "echo"},
		{"what frames a message is not removed", &mesh.HeaderEdit{Remove: []string{"content-length", "Transfer-Encoding", "connection"}},
			headers{"Content-Length": {"3"}}, headers{"Content-Length": {"3"}}, "echo"},
	} {
		host := EditRequest(tt.edit, tt.in, "echo")
		if diff := cmp.Diff(tt.want, tt.in); diff != "" || host != tt.wantHost {
			t.Errorf("%s: host %s, want %s; headers (-want +got):\n%s", tt.sentence, host, tt.wantHost, diff)
		}
	}
}

func TestAnAddedHeaderNeverWritesIntoItsNeighbour(t *testing.T) {
	shared := []string{"mine", "neighbour"}
	header := map[string][]string{"A": shared[:1], "B": shared[1:]}
	EditResponse(&mesh.HeaderEdit{Add: []mesh.Header{{Name: "A", Value: "added"}}}, header)
	if header["B"][0] != "neighbour" {
		t.Errorf("B became %q", header["B"][0])
	}
}

func TestFiltersThatNoRequestMayBeGivenMakeARouteUnusable(t *testing.T) {
	set := func(name, value string) mesh.Filters {
		return mesh.Filters{Request: &mesh.HeaderEdit{Set: []mesh.Header{{Name: name, Value: value}}}}
	}
	for _, tt := range []struct {
		sentence string
		filters  mesh.Filters
		want     string
	}{
		{"a header value with a line end", set("A", "x\r\nB: y"), "control character"},
		{"a header value with a NUL", set("A", "x\x00"), "control character"},
		{"a header name with a colon", set(":path", "/"), "not a name"},
		{"a header name with a space", set("A B", "x"), "not a name"},
		{"no header name", set("", "x"), "not a name"},
		{"a header that frames the message", set("transfer-encoding", "chunked"), "belongs to the connection"},
		{"a host that is none", set("Host", "a/b"), "no host"},
		{"an added header of an answer", mesh.Filters{Response: &mesh.HeaderEdit{Add: []mesh.Header{{Name: "Content-Length", Value: "1"}}}}, "belongs to the connection"},
		{"an unknown scheme", mesh.Filters{Redirect: &mesh.Redirect{Scheme: "javascript"}}, "scheme"},
		{"an unknown status", mesh.Filters{Redirect: &mesh.Redirect{Status: 200}}, "status"},
		{"a redirect to no host", mesh.Filters{Redirect: &mesh.Redirect{Host: "a b"}}, "no host"},
		{"a redirect to a path with a line end", mesh.Filters{Redirect: &mesh.Redirect{Path: fullTo("/a\r\nb")}}, "control character"},
		{"a rewrite to no host", mesh.Filters{Rewrite: &mesh.Rewrite{Host: "a?b"}}, "no host"},
		{"a rewrite to a path with a query", mesh.Filters{Rewrite: &mesh.Rewrite{Path: fullTo("/a?b")}}, "path"},
	} {
		for place, rule := range map[string]mesh.RouteRule{
			"rule":    {Filters: tt.filters, Backends: to("echo-v1", 80)},
			"backend": {Backends: []mesh.Backend{{Service: service("echo-v1"), Port: 80, Weight: 1, Filters: tt.filters}}},
		} {
			r, err := Compile(service("echo"), 80, []*mesh.Route{httpRoute("bad", "echo", 80, rule), httpRoute("good", "echo", 80, mesh.RouteRule{
				Matches: []mesh.RequestMatch{{Path: pathPrefix("/good")}}, Backends: to("echo-v2", 80),
			})})
			if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), "gateway-conformance-mesh/bad") {
				t.Errorf("%s (%s): error %v, want %q", tt.sentence, place, err, tt.want)
			}
			if got := leadsTo(r.Find(&Request{Path: "/"})); got != "404" {
				t.Errorf("%s (%s): what the route would match leads to %s, want 404", tt.sentence, place, got)
			}
			if got := leadsTo(r.Find(&Request{Path: "/good"})); got != "echo-v2" {
				t.Errorf("%s (%s): another route leads to %s", tt.sentence, place, got)
			}
		}
	}
}
