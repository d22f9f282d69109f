package spiffe

import (
	"strings"
	"testing"
)

// FuzzParse: an identity that is accepted has one text form, which gives it back,
// and its parts cannot be taken for others.
func FuzzParse(f *testing.F) {
	f.Add("spiffe://cluster.local/ns/shop/sa/front")
	f.Add("spiffe://cluster.local/ns/shop/sa/front/x")
	f.Add("spiffe://a/ns/../sa/%2e")
	f.Fuzz(func(t *testing.T, text string) {
		id, err := Parse(text)
		if err != nil {
			return
		}
		for _, part := range []string{id.TrustDomain, id.Namespace, id.ServiceAccount} {
			if part == "" || strings.ContainsAny(part, "/%") {
				t.Errorf("%q has a part %q", text, part)
			}
		}
		if again, err := Parse(id.String()); err != nil || again != id {
			t.Errorf("%q came back as %v, %v", text, again, err)
		}
	})
}
