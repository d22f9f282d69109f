package match

import (
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/ambit-mesh/ambit/internal/mesh"
)

// Session is what a client keeps, in a cookie or a header, to come back to the
// endpoint that it was with (GEP-1619). The zero value is none.
//
// Its text names nobody: it has the tags of a backend and of an endpoint, which
// are looked for among those of the matched rule and of the backend's service.
// So a client that makes one up reaches only who could have been chosen for it
// anyway. It is not signed, since the replicas of a waypoint share no secret:
// made up, it may outlive its time, for the client that made it up.
type Session struct {
	backend, endpoint uint64
	// begun and used are in seconds since 1970.
	begun, used int64
}

const (
	sessionVersion = 1
	sessionBytes   = 1 + 4*8
)

// String is the form that clients keep.
func (s Session) String() string {
	b := append(make([]byte, 0, sessionBytes), sessionVersion)
	for _, n := range []uint64{s.backend, s.endpoint, uint64(s.begun), uint64(s.used)} {
		b = binary.BigEndian.AppendUint64(b, n)
	}
	return base64.RawURLEncoding.EncodeToString(b)
}

// ParseSession reads what String wrote.
func ParseSession(text string) (Session, bool) {
	b, err := base64.RawURLEncoding.DecodeString(text)
	// The length of the text too, since line ends within it would be skipped.
	if err != nil || len(text) != base64.RawURLEncoding.EncodedLen(sessionBytes) || len(b) != sessionBytes || b[0] != sessionVersion {
		return Session{}, false
	}
	n := func(i int) uint64 { return binary.BigEndian.Uint64(b[1+8*i:]) }
	return Session{backend: n(0), endpoint: n(1), begun: int64(n(2)), used: int64(n(3))}, true
}

// With reports whether the session is with a workload of a service.
func (s Session) With(service mesh.ServiceKey, uid string) bool {
	return s != Session{} && s.endpoint == tag(service.String(), uid)
}

// alive reports whether neither end has come. A session of the future was made
// up, or by a clock that is wrong.
func (s Session) alive(p *mesh.Persistence, now time.Time) bool {
	begun, used := time.Unix(s.begun, 0), time.Unix(s.used, 0)
	if s.begun < 0 || s.used < s.begun || used.After(now.Add(time.Minute)) {
		return false
	}
	return (p.Absolute == 0 || now.Sub(begun) < p.Absolute) && (p.Idle == 0 || now.Sub(used) < p.Idle)
}

// Session is the one that a request comes with, if the rule keeps sessions and
// it has not ended. Of several cookies of the name, the first that can be read
// counts.
func (d Decision) Session(q *Request, now time.Time) (Session, bool) {
	rule := d.Spec()
	if rule == nil || rule.Persistence == nil {
		return Session{}, false
	}
	p := rule.Persistence
	if p.Header {
		text, _ := q.header(canonical(p.Name))
		s, ok := ParseSession(text)
		return s, ok && s.alive(p, now)
	}
	for _, line := range q.Header["Cookie"] {
		for pair := range strings.SplitSeq(line, ";") {
			name, value, _ := strings.Cut(strings.TrimSpace(pair), "=")
			if s, ok := ParseSession(value); name == p.Name && ok && s.alive(p, now) {
				return s, true
			}
		}
	}
	return Session{}, false
}

// Rejoin is the backend that a session is with. It comes before weights, even
// before a weight of 0, but not where the backend is gone.
func (d Decision) Rejoin(s Session) (mesh.Backend, bool) {
	rule := d.Spec()
	if rule == nil || s == (Session{}) {
		return mesh.Backend{}, false
	}
	for _, b := range rule.Backends {
		if b.Invalid == "" && backendTag(b) == s.backend {
			return b, true
		}
	}
	return mesh.Backend{}, false
}

// Keep gives the header by which the client learns of its session with the
// endpoint that answered: where that is another than the session it came with,
// or where the session ends by being idle. Secure is for clients in https.
func (d Decision) Keep(came Session, b mesh.Backend, uid string, now time.Time, secure bool) (mesh.Header, bool) {
	rule := d.Spec()
	if rule == nil || rule.Persistence == nil {
		return mesh.Header{}, false
	}
	p, s := rule.Persistence, came
	if !came.With(b.Service, uid) || came.backend != backendTag(b) {
		s = Session{backend: backendTag(b), endpoint: tag(b.Service.String(), uid), begun: now.Unix()}
	} else if p.Idle == 0 {
		return mesh.Header{}, false
	}
	s.used = now.Unix()
	if p.Header {
		return mesh.Header{Name: canonical(p.Name), Value: s.String()}, true
	}
	return mesh.Header{Name: "Set-Cookie", Value: d.cookie(p, s, now, secure)}, true
}

// cookie has the safest attributes that a mesh in plain HTTP lets work.
func (d Decision) cookie(p *mesh.Persistence, s Session, now time.Time, secure bool) string {
	text := p.Name + "=" + s.String() + "; Path=" + d.cookiePath() + "; HttpOnly; SameSite=Strict"
	if p.Permanent && p.Absolute > 0 {
		left := p.Absolute - now.Sub(time.Unix(s.begun, 0))
		text += "; Max-Age=" + strconv.FormatInt(int64(left/time.Second), 10)
	}
	if secure {
		text += "; Secure"
	}
	return text
}

// cookiePath is the path that the rule matched by, "/" if that is none.
func (d Decision) cookiePath() string {
	if d.Prefix == "" || strings.Contains(d.Prefix, ";") {
		return "/"
	}
	return d.Prefix
}

func checkPersistence(p *mesh.Persistence) error {
	switch {
	case p == nil:
		return nil
	case !isToken(p.Name):
		return fmt.Errorf("session %q: not a name", p.Name)
	case p.Header:
		return checkEdit(&mesh.HeaderEdit{Set: []mesh.Header{{Name: p.Name, Value: "session"}}})
	}
	return nil
}

func backendTag(b mesh.Backend) uint64 {
	return tag(b.Service.String(), strconv.Itoa(int(b.Port)))
}

// tag is FNV-1a of two texts, with a byte between them that is in neither.
func tag(a, b string) uint64 {
	h := uint64(14695981039346656037)
	for _, s := range [...]string{a, "\xff", b} {
		for i := range len(s) {
			h = (h ^ uint64(s[i])) * 1099511628211
		}
	}
	return h
}
