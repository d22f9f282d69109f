package scenario

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/internal/spiffe"
	"github.com/ambit-mesh/ambit/internal/view"
	"github.com/ambit-mesh/ambit/internal/xds"
	"github.com/ambit-mesh/ambit/istiod-lite/snapshot"
	"github.com/ambit-mesh/ambit/waypoint/match"
	"github.com/ambit-mesh/ambit/waypoint/table"
)

// waypoints are the waypoints that services name, each with what it was sent.
type waypoints struct {
	sent *snapshot.Waypoints
	of   map[snapshot.Gateway]*waypoint
}

type waypoint struct {
	store *table.Store
	holds map[string]xds.Resources // by type
}

// follow gives every waypoint a step's changes, each as one response of its
// own resources after those of addresses.
func (w *waypoints) follow(m mesh.Model, addresses xds.Resources) error {
	w.sent = snapshot.ForWaypoints(w.sent, m)
	for _, s := range m.Services {
		if g := gatewayOf(s.Waypoint.Service); g.Name != "" && w.of[g] == nil {
			w.of[g] = &waypoint{store: table.NewStore(s.Waypoint.Service), holds: map[string]xds.Resources{}}
		}
	}
	for g, one := range w.of {
		for _, u := range []xds.Update{one.step(xds.TypeAddress, addresses), one.step(xds.TypeWaypoint, w.sent.Of(g))} {
			for _, r := range one.store.Receive(context.Background(), u) {
				return fmt.Errorf("waypoint %v rejects %s: %w", g, r.Name, r.Reason)
			}
		}
	}
	return nil
}

func gatewayOf(s mesh.ServiceKey) snapshot.Gateway {
	name, _, _ := strings.Cut(s.Hostname, ".")
	return snapshot.Gateway{Namespace: s.Namespace, Name: name}
}

// step is the response of one type that leads from what the waypoint holds to
// now.
func (w *waypoint) step(typ string, now xds.Resources) xds.Update {
	u := xds.Update{Type: typ}
	for name, r := range now {
		if w.holds[typ][name] != r {
			u.Upserts = append(u.Upserts, *r)
		}
	}
	for name := range w.holds[typ] {
		if now[name] == nil {
			u.Removed = append(u.Removed, name)
		}
	}
	w.holds[typ] = now
	return u
}

// requestFile answers every line of a requests.txt: "METHOD SERVICE.NAMESPACE:PORT/PATH
// from NAMESPACE/POD", or with a host of a ServiceEntry, then headers as "name=value" and tokens as "token={claims}".
// The method TCP is a connection that is not HTTP.
func (w *waypoints) requestFile(v *view.View, text string) (string, error) {
	return answered(text, func(question string) (string, error) { return w.request(v, question) })
}

func (w *waypoints) request(v *view.View, text string) (string, error) {
	words := strings.Fields(text)
	if len(words) < 4 || words[2] != "from" {
		return "", fmt.Errorf("%q: want METHOD SERVICE.NAMESPACE:PORT/PATH from NAMESPACE/POD", text)
	}
	host, path, _ := strings.Cut(words[1], "/")
	hostname, portText, _ := strings.Cut(host, ":")
	_, namespace, _ := strings.Cut(hostname, ".")
	port, err := strconv.ParseUint(portText, 10, 16)
	if err != nil {
		return "", fmt.Errorf("%q: %w", text, err)
	}
	client, err := podNamed(v, words[3])
	if err != nil || client == nil {
		return "", fmt.Errorf("%q: no such client: %w", text, err)
	}
	q := &match.Request{Method: words[0], Host: hostname, Header: http.Header{}, Client: client.Identity()}
	q.Path, q.Query, _ = strings.Cut("/"+path, "?")
	for _, h := range words[4:] {
		name, value, _ := strings.Cut(h, "=")
		if name == "token" {
			name = "Authorization"
			if value, err = sign(value); err != nil {
				return "", fmt.Errorf("%q: %w", text, err)
			}
			value = "Bearer " + value
		}
		http.Header(q.Header).Add(name, value)
	}
	k := mesh.ServiceKey{Namespace: namespace, Hostname: hostname + ".svc.cluster.local"}
	s := v.Service(k)
	if s == nil {
		if s = v.ServiceByHostname(hostname, client.Namespace); s != nil {
			k = s.Key()
		}
	}
	if s == nil || w.of[gatewayOf(s.Waypoint.Service)] == nil {
		return "no waypoint", nil
	}
	t := w.of[gatewayOf(s.Waypoint.Service)].store.Table()
	if q.Method == "TCP" {
		words, passes := guarded(t, s, uint16(port), client, nil)
		if passes {
			words += "bytes"
		}
		return words, nil
	}
	says, passes := guarded(t, s, uint16(port), client, q)
	if !passes {
		return says, nil
	}
	return says + found(t.Routes(k, uint16(port)), q, client.Identity()), nil
}

// found is what becomes of a request, in words.
func found(r *match.Routes, q *match.Request, client spiffe.ID) string {
	switch r.Protocol(client) {
	case match.ProtocolTCP, match.ProtocolTLS:
		return "bytes, not requests"
	case match.ProtocolUnknown, match.ProtocolHTTP, match.ProtocolGRPC:
	}
	d := r.Find(q)
	rule := d.Spec()
	if rule == nil {
		return map[match.Outcome]string{match.Default: "the service itself", match.NotFound: "404"}[d.Outcome]
	}
	out := fmt.Sprintf("%s rule %d:", d.Route.Key, d.Rule)
	if rule.Filters.Redirect != nil {
		return fmt.Sprintf("%s redirect %d", out, rule.Filters.Redirect.Status)
	}
	if len(rule.Backends) == 0 {
		return out + " 500"
	}
	for i, b := range rule.Backends {
		if i > 0 {
			out += ","
		}
		to := "500 " + b.Invalid
		if b.Invalid == "" {
			short, _, _ := strings.Cut(b.Service.Hostname, ".")
			to = fmt.Sprintf("%s/%s:%d", b.Service.Namespace, short, b.Port)
		}
		out += fmt.Sprintf(" %d %s", b.Weight, to)
	}
	return out
}
