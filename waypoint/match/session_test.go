package match

import (
	"strings"
	"testing"
	"time"

	"github.com/ambit-mesh/ambit/internal/mesh"
)

var noon = time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)

func persistent(p *mesh.Persistence) mesh.RouteRule {
	return mesh.RouteRule{Matches: []mesh.RequestMatch{{Path: pathPrefix("/shop")}}, Persistence: p, Backends: []mesh.Backend{
		{Service: service("echo-v1"), Port: 80, Weight: 1}, {Service: service("echo-v2"), Port: 80},
		{Service: service("echo-v3"), Port: 80, Weight: 1, Invalid: "gone"},
	}}
}

// kept is the session that a client has of an answer at noon.
func kept(t *testing.T, p *mesh.Persistence, backend int) string {
	t.Helper()
	q := &Request{Path: "/shop"}
	d := decided(t, persistent(p), q)
	h, ok := d.Keep(Session{}, d.Spec().Backends[backend], "uid-1", noon, false)
	if !ok {
		t.Fatal("the client does not learn of its session")
	}
	if p.Header {
		return h.Value
	}
	text, _, _ := strings.Cut(strings.TrimPrefix(h.Value, p.Name+"="), ";")
	return text
}

func TestSessionsComeBack(t *testing.T) {
	cookie := &mesh.Persistence{Name: "sid"}
	timed := &mesh.Persistence{Name: "sid", Absolute: time.Hour, Idle: 10 * time.Minute}
	inHeader := &mesh.Persistence{Name: "x-session", Header: true}
	sentCookie := func(p *mesh.Persistence, before, behind string) Request {
		return Request{Header: map[string][]string{"Cookie": {"a=b; c", before + "sid=" + kept(t, p, 0) + behind}}}
	}
	for _, tt := range []struct {
		sentence string
		p        *mesh.Persistence
		q        Request
		after    time.Duration
		want     bool
	}{
		{"a cookie", cookie, sentCookie(cookie, "", ""), 0, true},
		{"a cookie among others", cookie, sentCookie(cookie, "x=y; ", ";z"), 0, true},
		{"a second cookie of the name", cookie, sentCookie(cookie, "sid=other; ", ""), 0, true},
		{"a cookie of another name", cookie, sentCookie(cookie, "my", ""), 0, false},
		{"without ends it lasts for ever", cookie, sentCookie(cookie, "", ""), 1e6 * time.Hour, true},
		{"a header", inHeader, Request{Header: header("X-Session", kept(t, inHeader, 0))}, 0, true},
		{"a cookie where a header is asked for", inHeader, sentCookie(cookie, "", ""), 0, false},
		{"before it is idle for long", timed, sentCookie(timed, "", ""), 10*time.Minute - time.Second, true},
		{"after it was idle for long", timed, sentCookie(timed, "", ""), 10 * time.Minute, false},
		{"a little of the future, by another clock", timed, sentCookie(timed, "", ""), -time.Minute, true},
		{"more of the future", timed, sentCookie(timed, "", ""), -2 * time.Minute, false},
		{"no session", cookie, Request{}, 0, false},
		{"nonsense", cookie, Request{Header: header("Cookie", "sid=nonsense")}, 0, false},
		{"a longer text", cookie, sentCookie(cookie, "", "AAAA"), 0, false},
		{"a rule without sessions", nil, sentCookie(cookie, "", ""), 0, false},
	} {
		tt.q.Path = "/shop"
		d := decided(t, persistent(tt.p), &tt.q)
		s, ok := d.Session(&tt.q, noon.Add(tt.after))
		if ok != tt.want {
			t.Errorf("%s: %v, want %v", tt.sentence, ok, tt.want)
		}
		if ok && (!s.With(service("echo-v1"), "uid-1") || s.With(service("echo-v1"), "uid-2") || s.With(service("echo-v2"), "uid-1")) {
			t.Errorf("%s: it is not with the one it was with, or with others too", tt.sentence)
		}
	}
}

func TestSessionsComeBeforeWeights(t *testing.T) {
	p := &mesh.Persistence{Name: "sid"}
	d := decided(t, persistent(p), &Request{Path: "/shop"})
	for backend, want := range []string{"echo-v1", "echo-v2", ""} {
		s, ok := ParseSession(kept(t, p, backend))
		b, rejoined := d.Rejoin(s)
		if !ok || rejoined != (want != "") || rejoined && b.Service != service(want) {
			t.Errorf("backend %d: rejoined %v %v, want %s", backend, rejoined, b.Service, want)
		}
	}
	if _, ok := d.Rejoin(Session{}); ok {
		t.Error("no session rejoins a backend")
	}
	another := decided(t, mesh.RouteRule{Persistence: p, Backends: to("echo", 80)}, &Request{Path: "/shop"})
	s, _ := ParseSession(kept(t, p, 0))
	if b, ok := another.Rejoin(s); ok {
		t.Errorf("a session of another rule reaches %s", b.Service)
	}
	if (Session{}).With(service("echo"), "uid-1") {
		t.Error("no session is with somebody")
	}
}

func TestSessionsAreKept(t *testing.T) {
	q := &Request{Path: "/shop/cart"}
	for _, tt := range []struct {
		sentence string
		p        mesh.Persistence
		uid      string
		after    time.Duration
		secure   bool
		want     string // with * for the session
	}{
		{"a cookie of the client's session", mesh.Persistence{Name: "sid"}, "uid-2", 0, false, "Set-Cookie: sid=*; Path=/shop; HttpOnly; SameSite=Strict"},
		{"a client in https", mesh.Persistence{Name: "sid"}, "uid-2", 0, true, "Set-Cookie: sid=*; Path=/shop; HttpOnly; SameSite=Strict; Secure"},
		{"a permanent cookie", mesh.Persistence{Name: "sid", Permanent: true, Absolute: time.Hour}, "uid-2", 0, false, "Set-Cookie: sid=*; Path=/shop; HttpOnly; SameSite=Strict; Max-Age=3600"},
		{"a permanent cookie, renewed", mesh.Persistence{Name: "sid", Permanent: true, Absolute: time.Hour, Idle: time.Hour}, "uid-1", 10 * time.Minute, false, "Set-Cookie: sid=*; Path=/shop; HttpOnly; SameSite=Strict; Max-Age=3000"},
		{"a header", mesh.Persistence{Name: "x-session", Header: true}, "uid-2", 0, false, "X-Session: *"},
		{"the same endpoint need not be told again", mesh.Persistence{Name: "sid"}, "uid-1", time.Minute, false, ""},
		{"unless idleness counts", mesh.Persistence{Name: "sid", Idle: time.Hour}, "uid-1", time.Minute, false, "Set-Cookie: sid=*; Path=/shop; HttpOnly; SameSite=Strict"},
	} {
		came, _ := ParseSession(kept(t, &tt.p, 0))
		d := decided(t, persistent(&tt.p), q)
		now := noon.Add(tt.after)
		h, ok := d.Keep(came, d.Spec().Backends[0], tt.uid, now, tt.secure)
		got := ""
		if ok {
			text, _, _ := strings.Cut(h.Value[strings.Index(h.Value, "=")+1:], ";")
			got = strings.Replace(h.Name+": "+h.Value, text, "*", 1)
			s, ok := ParseSession(text)
			if !ok || !s.With(service("echo-v1"), tt.uid) || s.used != now.Unix() || (tt.uid == "uid-1") != (s.begun == noon.Unix() && tt.after > 0) {
				t.Errorf("%s: the session is %+v", tt.sentence, s)
			}
		}
		if got != tt.want {
			t.Errorf("%s: %s, want %s", tt.sentence, got, tt.want)
		}
	}
	d := decided(t, persistent(&mesh.Persistence{Name: "sid"}), q)
	came, _ := ParseSession(kept(t, &mesh.Persistence{Name: "sid"}, 0))
	if _, ok := d.Keep(came, mesh.Backend{Service: service("echo-v1"), Port: 81}, "uid-1", noon, false); !ok {
		t.Error("the client does not learn of another port of the same service")
	}
	if _, ok := decided(t, mesh.RouteRule{}, q).Keep(Session{}, mesh.Backend{}, "uid", noon, false); ok {
		t.Error("a rule without sessions keeps one")
	}
}

func TestThePathOfACookieIsWhatTheRuleMatchedBy(t *testing.T) {
	for _, tt := range []struct {
		sentence string
		match    mesh.PathMatch
		want     string
	}{
		{"a prefix", pathPrefix("/shop/"), "/shop"},
		{"an exact path", pathExact("/shop/a;b"), "/"}, // it would end the attribute
		{"an exact path without a semicolon", pathExact("/shop"), "/shop"},
		{"the root", pathPrefix("/"), "/"},
		{"no path", mesh.PathMatch{}, "/"},
		{"an expression", mesh.PathMatch{Op: mesh.PathRegex, Value: ".*"}, "/"},
	} {
		q := &Request{Path: tt.match.Value}
		if tt.match.Op == mesh.PathRegex {
			q.Path = "/shop"
		}
		d := decided(t, mesh.RouteRule{Matches: []mesh.RequestMatch{{Path: tt.match}}, Persistence: &mesh.Persistence{Name: "sid"}}, q)
		h, _ := d.Keep(Session{}, mesh.Backend{}, "uid", noon, false)
		if !strings.Contains(h.Value, "; Path="+tt.want+"; ") {
			t.Errorf("%s: %s, want the path %s", tt.sentence, h.Value, tt.want)
		}
	}
}

func TestSessionsThatNoClientMayBeGivenMakeARouteUnusable(t *testing.T) {
	for sentence, p := range map[string]mesh.Persistence{
		"a cookie's name with an end": {Name: "a;b"},
		"no name":                     {},
		"a header that frames":        {Name: "Content-Length", Header: true},
	} {
		if _, err := Compile(service("echo"), 80, []*mesh.Route{httpRoute("bad", "echo", 80, persistent(&p))}); err == nil {
			t.Errorf("%s is taken", sentence)
		}
	}
}

// FuzzSession holds texts of clients to reading back as what they are.
func FuzzSession(f *testing.F) {
	text := Session{backend: 1, endpoint: 2, begun: 3, used: 4}.String()
	f.Add(text)
	f.Add(text[:4] + "\n" + text[4:])
	f.Add(text + "\n")
	f.Fuzz(func(t *testing.T, text string) {
		if s, ok := ParseSession(text); ok && s.String() != text {
			t.Errorf("%q is %+v, which is %q", text, s, s)
		}
	})
}
