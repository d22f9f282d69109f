package admin

import (
	"net/http"
	"net/netip"
)

// Page serves a value as JSON, made anew for each who asks.
func Page(value func(*http.Request) any) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { writeJSON(w, value(r)) })
}

// Local admits only callers from the same network namespace, such as a
// port-forward.
func Local(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		from, err := netip.ParseAddrPort(r.RemoteAddr)
		if err != nil || !from.Addr().Unmap().IsLoopback() {
			http.Error(w, "only through a port-forward", http.StatusForbidden)
			return
		}
		h.ServeHTTP(w, r)
	})
}
