package decision

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"

	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/internal/spiffe"
	"github.com/ambit-mesh/ambit/internal/view"
)

// Question asks what would become of a request that nobody sends, or of a
// connection that nobody makes.
type Question struct {
	// Source is the client's identity, as a SPIFFE id.
	Source string `json:"source"`
	// Address is the client's, if it is known.
	Address string `json:"address,omitempty"`
	Method  string `json:"method,omitempty"`
	// URL names a service by any name that the client's DNS would know.
	URL    string            `json:"url,omitempty"`
	Header map[string]string `json:"header,omitempty"`
	// Destination, in place of Method and URL, is whom a connection is made to:
	// "host:port", where host is such a name or an address.
	Destination string `json:"destination,omitempty"`
}

// Forecast is the answer.
type Forecast struct {
	// Allowed says that the request would reach a backend, or get the answer that
	// a route has for it.
	Allowed bool `json:"allowed"`
	// Says is why, in one line.
	Says string `json:"says"`
	// Waypoint is set in place of everything else if a waypoint decides and not
	// who was asked: "namespace/hostname".
	Waypoint string `json:"waypoint,omitempty"`
	Story    Story  `json:"story"`
}

// Asked is a Question that has been read.
type Asked struct {
	Source  spiffe.ID
	Address netip.AddrPort
	// Host is the URL's or the destination's, and Port its own or its scheme's.
	Host string
	Port uint16
	// Request is nil if a connection is asked about.
	Request *http.Request
}

// Read checks a question.
func (q *Question) Read(ctx context.Context) (*Asked, error) {
	a := &Asked{}
	var err error
	if a.Source, err = spiffe.Parse(q.Source); err != nil {
		return nil, err
	}
	if q.Address != "" {
		ip, err := netip.ParseAddr(q.Address)
		if err != nil {
			return nil, fmt.Errorf("the client's address: %w", err)
		}
		a.Address = netip.AddrPortFrom(ip, 0)
	}
	if q.Destination != "" {
		return a, a.readDestination(q)
	}
	return a, a.readRequest(ctx, q)
}

func (a *Asked) readDestination(q *Question) error {
	host, text, err := net.SplitHostPort(q.Destination)
	if err != nil || host == "" {
		return fmt.Errorf("%q is no destination: want host:port", q.Destination)
	}
	port, err := strconv.ParseUint(text, 10, 16)
	if err != nil || port == 0 {
		return fmt.Errorf("%q has no valid port", q.Destination)
	}
	if q.Method != "" || q.URL != "" {
		return errors.New("a question is about a connection or about a request, not both")
	}
	a.Host, a.Port = host, uint16(port)
	return nil
}

func (a *Asked) readRequest(ctx context.Context, q *Question) error {
	u, err := url.Parse(q.URL)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return fmt.Errorf("%q is no URL with http and a host", q.URL)
	}
	if a.Request, err = http.NewRequestWithContext(ctx, q.Method, q.URL, nil); err != nil {
		return fmt.Errorf("the request: %w", err)
	}
	a.Host, a.Port = u.Hostname(), map[string]uint16{"http": 80, "https": 443}[u.Scheme]
	if text := u.Port(); text != "" {
		port, err := net.LookupPort("tcp", text)
		if err != nil || port == 0 {
			return fmt.Errorf("%q has no valid port", q.URL)
		}
		a.Port = uint16(port)
	}
	for k, v := range q.Header {
		a.Request.Header.Set(k, v)
		if strings.EqualFold(k, "host") {
			a.Request.Host = v
		}
	}
	return nil
}

// Service is what a host means to a client of a namespace: the host itself, or
// what a search list would make of "name", "name.namespace" and
// "name.namespace.svc". Nil is none.
func Service(v *view.View, host, namespace string) *mesh.Service {
	host = strings.TrimSuffix(strings.ToLower(host), ".")
	if s := v.ServiceByHostname(host, namespace); s != nil {
		return s
	}
	parts := strings.Split(host, ".")
	if len(parts) > 3 || len(parts) == 3 && parts[2] != "svc" {
		return nil
	}
	name, in := parts[0], namespace
	if len(parts) > 1 {
		in = parts[1]
	}
	for _, s := range v.Services() {
		if s.Name == name && s.Namespace == in && strings.HasPrefix(s.Hostname, name+"."+in+".svc.") {
			return s
		}
	}
	return nil
}

// maxQuestion bounds the body of a question.
const maxQuestion = 64 << 10

// Forecaster answers questions. An error says that the question makes no sense.
type Forecaster func(context.Context, *Asked) (Forecast, error)

// CanPage serves POST /can, as proxy's own words.
func CanPage(f Forecaster, proxy string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var q Question
		err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxQuestion)).Decode(&q)
		var answer Forecast
		if err == nil {
			var asked *Asked
			if asked, err = q.Read(r.Context()); err == nil {
				answer, err = f(r.Context(), asked)
			}
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		answer.Story.Proxy, answer.Story.ID = proxy, ""
		w.Header().Set("Content-Type", "application/json")
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		_ = e.Encode(answer) // the client has gone
	})
}
