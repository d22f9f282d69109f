package match

import (
	"testing"

	"github.com/ambit-mesh/ambit/internal/mesh"
)

// decided is the decision on a request for which one rule is compiled.
func decided(t *testing.T, rule mesh.RouteRule, q *Request) Decision {
	t.Helper()
	d := compiled(t, service("echo"), 80, httpRoute("route", "echo", 80, rule)).Find(q)
	if d.Outcome != Matched {
		t.Fatalf("%s %s: %v", q.Method, q.Path, d.Outcome)
	}
	return d
}

func prefixTo(value string) *mesh.PathEdit {
	return &mesh.PathEdit{Op: mesh.PathReplacePrefix, Value: value}
}
func fullTo(value string) *mesh.PathEdit {
	return &mesh.PathEdit{Op: mesh.PathReplaceFull, Value: value}
}

func TestRedirects(t *testing.T) {
	for _, tt := range []struct {
		sentence       string
		prefix         string
		redirect       mesh.Redirect
		path, query    string
		host, scheme   string
		port           uint16
		wantLocation   string
		wantStatusCode int
	}{
		{"another host", "/host", mesh.Redirect{Host: "example.org"}, "/host", "", "echo", "http", 80, "http://example.org/host", 302},
		{"another host and status", "/host", mesh.Redirect{Host: "example.org", Status: 301}, "/host", "", "echo", "http", 80, "http://example.org/host", 301},
		{"303 with everything kept", "/redirect", mesh.Redirect{Status: 303}, "/redirect", "", "echo", "http", 80, "http://echo/redirect", 303},
		{"307", "/temporary", mesh.Redirect{Status: 307}, "/temporary/x", "", "echo", "http", 80, "http://echo/temporary/x", 307},
		{"308", "/permanent", mesh.Redirect{Status: 308}, "/permanent", "", "echo", "http", 80, "http://echo/permanent", 308},

		{"an explicit port", "/port", mesh.Redirect{Port: 8083}, "/port", "", "echo", "http", 80, "http://echo:8083/port", 302},
		{"an explicit port and host", "/port", mesh.Redirect{Port: 8083, Host: "example.org"}, "/port", "", "echo:80", "http", 80, "http://example.org:8083/port", 302},
		{"a scheme has its own port", "/scheme", mesh.Redirect{Scheme: "https"}, "/scheme", "", "echo:8080", "http", 8080, "https://echo/scheme", 302},
		{"a scheme with a port", "/scheme", mesh.Redirect{Scheme: "https", Port: 8443}, "/scheme", "", "echo", "http", 80, "https://echo:8443/scheme", 302},
		{"without a scheme the parent's port stays", "/x", mesh.Redirect{Host: "example.org"}, "/x", "", "echo:9999", "http", 8080, "http://example.org:8080/x", 302},
		{"port 80 of http is left out", "/x", mesh.Redirect{Port: 80, Scheme: "http"}, "/x", "", "echo", "https", 443, "http://echo/x", 302},
		{"port 443 of https is left out", "/x", mesh.Redirect{Port: 443, Scheme: "https"}, "/x", "", "echo", "http", 80, "https://echo/x", 302},
		{"port 443 of http is named", "/x", mesh.Redirect{Port: 443}, "/x", "", "echo", "http", 80, "http://echo:443/x", 302},
		{"port 80 of https is named", "/x", mesh.Redirect{Port: 80, Scheme: "https"}, "/x", "", "echo", "http", 80, "https://echo:80/x", 302},
		{"the parent's port 443 of a client in https is left out", "/x", mesh.Redirect{Host: "example.org"}, "/x", "", "echo", "https", 443, "https://example.org/x", 302},

		{"path and query stay without a path", "/x", mesh.Redirect{Host: "example.org"}, "/x/y", "a=b&c", "echo", "http", 80, "http://example.org/x/y?a=b&c", 302},
		{"a replaced prefix", "/original-prefix", mesh.Redirect{Path: prefixTo("/replacement-prefix")}, "/original-prefix/lemon", "", "echo", "http", 80, "http://echo/replacement-prefix/lemon", 302},
		{"a replaced path", "/full", mesh.Redirect{Path: fullTo("/full-path-replacement")}, "/full/path/original", "", "echo", "http", 80, "http://echo/full-path-replacement", 302},
		{"a replaced path keeps the query", "/full", mesh.Redirect{Path: fullTo("/new")}, "/full", "a=b", "echo", "http", 80, "http://echo/new?a=b", 302},
		{"a query that would end the header", "/x", mesh.Redirect{Host: "example.org"}, "/x", "a b\r\nc#d", "echo", "http", 80, "http://example.org/x?a%20b%0D%0Ac%23d", 302},
		{"an IPv6 host keeps its brackets", "/x", mesh.Redirect{Scheme: "https"}, "/x", "", "[fd00::1]:8080", "http", 8080, "https://[fd00::1]/x", 302},
		{"an IPv6 host without a port", "/x", mesh.Redirect{Port: 8443}, "/x", "", "[fd00::1]", "http", 80, "http://[fd00::1]:8443/x", 302},
		{"no host gives a relative location", "/x", mesh.Redirect{Path: fullTo("/y")}, "/x", "", "", "http", 80, "/y", 302},
		{"a host that would end early gives a relative location", "/x", mesh.Redirect{Path: fullTo("/y")}, "/x", "", "evil/@echo", "http", 80, "/y", 302},
		{"a location never begins with two slashes", "/x", mesh.Redirect{Path: prefixTo("/")}, "/x//evil.example", "", "", "http", 80, "/evil.example", 302},
	} {
		redirect := tt.redirect
		rule := mesh.RouteRule{Matches: []mesh.RequestMatch{{Path: pathPrefix(tt.prefix)}}, Filters: mesh.Filters{Redirect: &redirect}}
		q := &Request{Method: "GET", Path: tt.path, Query: tt.query, Host: tt.host}
		location, status := decided(t, rule, q).Redirect(q, tt.scheme, tt.port)
		if location != tt.wantLocation || status != tt.wantStatusCode {
			t.Errorf("%s: %d %s, want %d %s", tt.sentence, status, location, tt.wantStatusCode, tt.wantLocation)
		}
	}
	q := &Request{Path: "/"}
	if location, status := decided(t, mesh.RouteRule{}, q).Redirect(q, "http", 80); status != 0 || location != "" {
		t.Errorf("a rule without a redirect answers %d %s", status, location)
	}
}

func TestRewrites(t *testing.T) {
	for _, tt := range []struct {
		sentence           string
		match              mesh.PathMatch
		rewrite            *mesh.Rewrite
		path               string
		wantHost, wantPath string
	}{
		{"nothing", pathPrefix("/"), nil, "/a/b", "echo", "/a/b"},
		{"nothing but the normal form", pathPrefix("/"), nil, "/a/%62//c/../d", "echo", "/a/b/d"},
		{"the host", pathPrefix("/"), &mesh.Rewrite{Host: "example.org"}, "/a", "example.org", "/a"},
		{"a prefix", pathPrefix("/prefix/one"), &mesh.Rewrite{Path: prefixTo("/one")}, "/prefix/one/two", "echo", "/one/two"},
		{"a prefix stripped", pathPrefix("/strip-prefix"), &mesh.Rewrite{Path: prefixTo("/")}, "/strip-prefix/three", "echo", "/three"},
		{"a prefix stripped whole is the root", pathPrefix("/strip-prefix"), &mesh.Rewrite{Path: prefixTo("/")}, "/strip-prefix", "echo", "/"},
		{"the path", pathPrefix("/full/one"), &mesh.Rewrite{Path: fullTo("/one")}, "/full/one/two", "echo", "/one"},
		{"host and path", pathPrefix("/full"), &mesh.Rewrite{Host: "h", Path: fullTo("/one")}, "/full", "h", "/one"},

		// The table of the Gateway API's ReplacePrefixMatch.
		{"a replacement and what follows", pathPrefix("/foo"), &mesh.Rewrite{Path: prefixTo("/xyz")}, "/foo/bar", "echo", "/xyz/bar"},
		{"a replacement with a slash", pathPrefix("/foo"), &mesh.Rewrite{Path: prefixTo("/xyz/")}, "/foo/bar", "echo", "/xyz/bar"},
		{"a prefix with a slash", pathPrefix("/foo/"), &mesh.Rewrite{Path: prefixTo("/xyz")}, "/foo/bar", "echo", "/xyz/bar"},
		{"both with a slash", pathPrefix("/foo/"), &mesh.Rewrite{Path: prefixTo("/xyz/")}, "/foo/bar", "echo", "/xyz/bar"},
		{"all of the path", pathPrefix("/foo"), &mesh.Rewrite{Path: prefixTo("/xyz")}, "/foo", "echo", "/xyz"},
		{"all of the path but the slash", pathPrefix("/foo"), &mesh.Rewrite{Path: prefixTo("/xyz")}, "/foo/", "echo", "/xyz/"},
		{"nothing as replacement", pathPrefix("/foo"), &mesh.Rewrite{Path: prefixTo("")}, "/foo/bar", "echo", "/bar"},
		{"nothing for all but the slash", pathPrefix("/foo"), &mesh.Rewrite{Path: prefixTo("")}, "/foo/", "echo", "/"},
		{"nothing for all", pathPrefix("/foo"), &mesh.Rewrite{Path: prefixTo("")}, "/foo", "echo", "/"},
		{"a slash for all but the slash", pathPrefix("/foo"), &mesh.Rewrite{Path: prefixTo("/")}, "/foo/", "echo", "/"},
		{"a slash for all", pathPrefix("/foo"), &mesh.Rewrite{Path: prefixTo("/")}, "/foo", "echo", "/"},

		{"the root as prefix is put before", pathPrefix("/"), &mesh.Rewrite{Path: prefixTo("/xyz")}, "/foo", "echo", "/xyz/foo"},
		{"the root as prefix and path", pathPrefix("/"), &mesh.Rewrite{Path: prefixTo("/xyz")}, "/", "echo", "/xyz"},
		{"an exact path is its whole prefix", pathExact("/foo"), &mesh.Rewrite{Path: prefixTo("/xyz")}, "/foo", "echo", "/xyz"},
		{"a replacement without its slash gets one", pathPrefix("/foo"), &mesh.Rewrite{Path: prefixTo("xyz")}, "/foo/bar", "echo", "/xyz/bar"},
		{"an escaped prefix", pathPrefix("/foo"), &mesh.Rewrite{Path: prefixTo("/xyz")}, "/%66oo/b%20r", "echo", "/xyz/b%20r"},
		{"no path to edit", mesh.PathMatch{}, &mesh.Rewrite{Path: prefixTo("/xyz")}, "*", "echo", "*"},
	} {
		q := &Request{Method: "GET", Path: tt.path, Host: "echo"}
		rule := mesh.RouteRule{Matches: []mesh.RequestMatch{{Path: tt.match}}, Filters: mesh.Filters{Rewrite: tt.rewrite}}
		host, path := decided(t, rule, q).Rewrite(q)
		if host != tt.wantHost || path != tt.wantPath {
			t.Errorf("%s: %s becomes %s%s, want %s%s", tt.sentence, tt.path, host, path, tt.wantHost, tt.wantPath)
		}
	}
}
