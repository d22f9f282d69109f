package match

import (
	"strconv"
	"strings"

	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/internal/urlpath"
)

// defaultRedirect is the status of a redirect that names none.
const defaultRedirect = 302

// wellKnown are the ports that a Location need not name.
var wellKnown = map[string]uint16{"http": 80, "https": 443}

// Redirect gives the Location and the status that the rule answers with; a
// status of 0 means that it does not redirect. The client's scheme and the
// parent's port are what the request came by.
func (d Decision) Redirect(q *Request, scheme string, port uint16) (location string, status int) {
	rule := d.Spec()
	if rule == nil || rule.Filters.Redirect == nil {
		return "", 0
	}
	r := rule.Filters.Redirect
	if status = r.Status; status == 0 {
		status = defaultRedirect
	}
	if r.Scheme != "" {
		scheme, port = r.Scheme, wellKnown[r.Scheme]
	}
	if r.Port != 0 {
		port = r.Port
	}
	location = editPath(r.Path, normal(q.Path), d.Prefix)
	if host := redirectHost(r, q.Host); host != "" {
		if port != 0 && port != wellKnown[scheme] {
			host += ":" + strconv.Itoa(int(port))
		}
		location = scheme + "://" + host + location
	}
	if q.Query != "" {
		location += "?" + urlpath.Query(q.Query)
	}
	return location, status
}

// redirectHost is without a port: that of the request is none of the rules for
// a redirect's port. A host that would end early in a URL is left out, and the
// Location is relative.
func redirectHost(r *mesh.Redirect, host string) string {
	if r.Host != "" {
		return r.Host
	}
	if i := strings.LastIndexByte(host, ':'); i >= 0 && !strings.HasSuffix(host, "]") {
		host = host[:i]
	}
	if !isAuthority(host) {
		return ""
	}
	return host
}

// Rewrite gives the host and the path that the backend is asked for: those of
// the request, the path in its normal form, as far as no filter changes them.
func (d Decision) Rewrite(q *Request) (host, path string) {
	host, path = q.Host, normal(q.Path)
	rule := d.Spec()
	if rule == nil || rule.Filters.Rewrite == nil {
		return host, path
	}
	r := rule.Filters.Rewrite
	if r.Host != "" {
		host = r.Host
	}
	return host, editPath(r.Path, path, d.Prefix)
}

// normal is for paths that were checked before: what has no normal form is
// never matched.
func normal(path string) string {
	path, err := Normalize(path)
	if err != nil {
		return "/"
	}
	return path
}

func rooted(path string) string {
	if strings.HasPrefix(path, "/") {
		return path
	}
	return "/" + path
}

// editPath applies an edit to a path in normal form. The result is in normal
// form too: a replacement's last slash never meets the next one, and what
// replaces a whole path stands as it is written.
func editPath(e *mesh.PathEdit, path, prefix string) string {
	if e == nil || path == "*" {
		return path
	}
	with := normal(rooted(e.Value))
	if e.Op == mesh.PathReplaceFull {
		return with
	}
	rest := strings.TrimPrefix(path, prefix)
	if rest == "" || path == "/" {
		return with
	}
	return strings.TrimSuffix(with, "/") + rest
}
