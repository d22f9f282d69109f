package match

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ambit-mesh/ambit/internal/mesh"
)

func TestSharing(t *testing.T) {
	type headers = map[string][]string
	exact := mesh.CORS{
		AllowOrigins: []string{"https://www.foo.com", "https://*.bar.com"}, AllowMethods: []string{"GET", "OPTIONS"},
		AllowHeaders: []string{"x-header-1", "x-header-2"}, ExposeHeaders: []string{"x-header-3", "x-header-4"},
		AllowCredentials: true, MaxAge: time.Hour,
	}
	wild := mesh.CORS{AllowOrigins: []string{"*"}, AllowMethods: []string{"*"}, AllowHeaders: []string{"*"}, ExposeHeaders: []string{"*"}}
	wildWithCredentials := wild
	wildWithCredentials.AllowCredentials = true
	bare := mesh.CORS{AllowOrigins: []string{"https://www.foo.com"}}

	preflight := func(origin, method, ask string) headers {
		h := headers{"Origin": {origin}, "Access-Control-Request-Method": {method}}
		if ask != "" {
			h["Access-Control-Request-Headers"] = []string{ask}
		}
		return h
	}
	for _, tt := range []struct {
		sentence   string
		cors       *mesh.CORS
		method     string
		request    headers
		answer     headers
		wantStatus int
		want       headers
	}{
		{"no filter", nil, "GET", headers{"Origin": {"https://www.foo.com"}}, headers{"Access-Control-Allow-Origin": {"its own"}}, 0, headers{"Access-Control-Allow-Origin": {"its own"}}},
		{"a preflight of an exact origin", &exact, "OPTIONS", preflight("https://www.foo.com", "GET", "x-header-1, x-header-2"), headers{}, 204, headers{
			"Access-Control-Allow-Origin": {"https://www.foo.com"}, "Access-Control-Allow-Credentials": {"true"},
			"Access-Control-Allow-Methods": {"GET, OPTIONS"}, "Access-Control-Allow-Headers": {"x-header-1, x-header-2"},
			"Access-Control-Expose-Headers": {"x-header-3, x-header-4"}, "Access-Control-Max-Age": {"3600"}, "Vary": {"Origin"},
		}},
		{"a preflight of a wildcard's origin", &exact, "OPTIONS", preflight("https://a.b.bar.com", "GET", ""), headers{}, 204, headers{
			"Access-Control-Allow-Origin": {"https://a.b.bar.com"}, "Access-Control-Allow-Credentials": {"true"}, "Access-Control-Allow-Methods": {"GET, OPTIONS"},
			"Access-Control-Expose-Headers": {"x-header-3, x-header-4"}, "Access-Control-Max-Age": {"3600"}, "Vary": {"Origin"},
		}},
		{"a preflight of another origin is refused", &exact, "OPTIONS", preflight("https://foobar.com", "GET", ""), headers{}, 403, headers{"Vary": {"Origin"}}},
		{"OPTIONS without a method to ask about is no preflight", &exact, "OPTIONS", headers{"Origin": {"https://www.foo.com"}}, headers{}, 0, headers{
			"Access-Control-Allow-Origin": {"https://www.foo.com"}, "Access-Control-Allow-Credentials": {"true"}, "Access-Control-Expose-Headers": {"x-header-3, x-header-4"}, "Vary": {"Origin"},
		}},
		{"a request that only looks like a preflight", &exact, "GET", preflight("https://www.foo.com", "GET", "x"), headers{"Vary": {"Accept"}}, 0, headers{
			"Access-Control-Allow-Origin": {"https://www.foo.com"}, "Access-Control-Allow-Credentials": {"true"}, "Access-Control-Expose-Headers": {"x-header-3, x-header-4"}, "Vary": {"Accept", "Origin"},
		}},
		{"a request of another origin goes on, and its answer is not shared", &exact, "GET", headers{"Origin": {"https://foobar.com"}}, headers{"Access-Control-Allow-Origin": {"*"}, "A": {"1"}}, 0, headers{"A": {"1"}, "Vary": {"Origin"}}},
		{"a request without an origin", &exact, "GET", headers{}, headers{"A": {"1"}}, 0, headers{"A": {"1"}, "Vary": {"Origin"}}},

		{"wildcards are said as such", &wild, "OPTIONS", preflight("https://foobar.com:12345", "PUT", "x-a, x-b"), headers{}, 204, headers{
			"Access-Control-Allow-Origin": {"*"}, "Access-Control-Allow-Methods": {"*"}, "Access-Control-Allow-Headers": {"*"}, "Access-Control-Expose-Headers": {"*"}, "Access-Control-Max-Age": {"5"},
		}},
		{"beside credentials wildcards are never said", &wildWithCredentials, "OPTIONS", preflight("https://other.foo.com", "PUT", "x-a, x-b"), headers{}, 204, headers{
			"Access-Control-Allow-Origin": {"https://other.foo.com"}, "Access-Control-Allow-Credentials": {"true"}, "Access-Control-Allow-Methods": {"PUT"},
			"Access-Control-Allow-Headers": {"x-a, x-b"}, "Access-Control-Max-Age": {"5"}, "Vary": {"Origin"},
		}},
		{"beside credentials all exposed headers are named", &wildWithCredentials, "GET", headers{"Origin": {"https://other.foo.com"}}, headers{"X-B": {"1"}, "X-A": {"1"}}, 0, headers{
			"Access-Control-Allow-Origin": {"https://other.foo.com"}, "Access-Control-Allow-Credentials": {"true"}, "Access-Control-Expose-Headers": {"X-A, X-B"}, "X-A": {"1"}, "X-B": {"1"}, "Vary": {"Origin"},
		}},
		{"an age of five seconds, and nothing that was not asked for", &bare, "OPTIONS", preflight("https://www.foo.com", "POST", "x-a"), headers{}, 204, headers{
			"Access-Control-Allow-Origin": {"https://www.foo.com"}, "Access-Control-Max-Age": {"5"}, "Vary": {"Origin"},
		}},
		{"a filter without origins shares with nobody", &mesh.CORS{}, "OPTIONS", preflight("https://www.foo.com", "GET", ""), headers{}, 403, headers{"Vary": {"Origin"}}},
	} {
		q := &Request{Method: tt.method, Path: "/", Header: tt.request}
		s := decided(t, mesh.RouteRule{Filters: mesh.Filters{CORS: tt.cors}}, q).Share(q)
		s.Apply(tt.answer)
		if diff := cmp.Diff(tt.want, tt.answer); s.Status != tt.wantStatus || diff != "" {
			t.Errorf("%s: status %d, want %d; headers (-want +got):\n%s", tt.sentence, s.Status, tt.wantStatus, diff)
		}
	}
}

func TestAPreflightIsAnsweredWhereItsRequestWouldGo(t *testing.T) {
	rule := func(path, method string, cors *mesh.CORS) mesh.RouteRule {
		return mesh.RouteRule{Matches: []mesh.RequestMatch{{Path: pathPrefix(path), Method: method}}, Filters: mesh.Filters{CORS: cors}, Backends: to("echo-v1", 80)}
	}
	cors := &mesh.CORS{AllowOrigins: []string{"*"}}
	r := compiled(t, service("echo"), 80, httpRoute("route", "echo", 80, rule("/", "PUT", cors), rule("/", "GET", nil)))
	asks := func(method, path, about string, origin bool) *Request {
		q := &Request{Method: method, Path: path, Header: header("Access-Control-Request-Method", about)}
		if origin {
			q.Header["Origin"] = []string{"https://a.b"}
		}
		return q
	}
	for _, tt := range []struct {
		sentence string
		q        *Request
		want     Outcome
	}{
		{"a preflight about the method of a rule that shares", asks("OPTIONS", "/", "PUT", true), Matched},
		{"about another method", asks("OPTIONS", "/", "DELETE", true), NotFound},
		{"about the method of a rule that does not share", asks("OPTIONS", "/", "GET", true), NotFound},
		{"without an origin it is no preflight", asks("OPTIONS", "/", "PUT", false), NotFound},
		{"nor by another method", asks("POST", "/", "PUT", true), NotFound},
	} {
		d := r.Find(tt.q)
		if d.Outcome != tt.want || d.Outcome == Matched && d.Share(tt.q).Status != 204 {
			t.Errorf("%s: %v, answered %d", tt.sentence, d.Outcome, d.Share(tt.q).Status)
		}
	}
}

func TestOrigins(t *testing.T) {
	for _, tt := range []struct {
		sentence, allowed, origin string
		want                      bool
	}{
		{"the same", "https://foo.com", "https://foo.com", true},
		{"case does not matter", "https://Foo.com", "HTTPS://foo.COM", true},
		{"another scheme", "https://foo.com", "http://foo.com", false},
		{"another port", "https://foo.com", "https://foo.com:8443", false},
		{"the scheme's own port", "https://foo.com", "https://foo.com:443", true},
		{"the scheme's own port, written by the author", "http://foo.com:80", "http://foo.com", true},
		{"everything", "*", "https://foo.com:1", true},
		{"everything is also the origin of a sandbox", "*", "null", true},
		{"a sandbox is no host", "https://*", "null", false},
		{"every host of a scheme", "https://*", "https://a.b", true},
		{"every host of a scheme and port", "http://*:8080", "http://a.b:8080", true},
		{"a label", "https://*.foo.com", "https://a.foo.com", true},
		{"many labels", "https://*.foo.com", "https://a.b.c.foo.com", true},
		{"no label", "https://*.foo.com", "https://foo.com", false},
		{"a dot alone is no label", "https://*.foo.com", "https://.foo.com", false},
		{"part of a label", "https://*.foo.com", "https://evilfoo.com", false},
		{"a path in disguise", "https://*.foo.com", "https://evil.com/.foo.com", false},
		{"a user in disguise", "https://*.foo.com", "https://evil.com@a.foo.com", false},
		{"an IPv6 host", "http://[fd00::1]", "http://[fd00::1]", true},
		{"no scheme", "https://foo.com", "foo.com", false},
		{"nothing", "https://foo.com", "", false},
	} {
		if got := originMatches(tt.allowed, tt.origin); got != tt.want {
			t.Errorf("%s: %s for %s is %v", tt.sentence, tt.origin, tt.allowed, got)
		}
	}
}
