package inbound

import (
	"strings"
	"testing"
)

// FuzzForwarded: what a client says it dialled is a part of what it said.
func FuzzForwarded(f *testing.F) {
	f.Add("by=1;host=reviews.shop.svc.cluster.local;proto=http")
	f.Add(`for="[::1]:80";host="a b"`)
	f.Fuzz(func(t *testing.T, text string) {
		if host := forwardedHost(text); strings.Contains(host, ";") || !strings.Contains(text, host) {
			t.Errorf("%q gives %q", text, host)
		}
	})
}
