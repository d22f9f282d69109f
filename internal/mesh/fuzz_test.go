package mesh

import "testing"

// FuzzKeys: a key that is accepted has one text form, the one it was read from.
func FuzzKeys(f *testing.F) {
	f.Add("shop/allow")
	f.Add("HTTPRoute/shop/front")
	f.Add("/")
	f.Fuzz(func(t *testing.T, text string) {
		if k, err := ParsePolicyKey(text); err == nil && k.String() != text {
			t.Errorf("policy %q is %q", text, k)
		}
		if k, err := ParseServiceKey(text); err == nil && k.String() != text {
			t.Errorf("service %q is %q", text, k)
		}
		if k, err := ParseRouteKey(text); err == nil && k.String() != text {
			t.Errorf("route %q is %q", text, k)
		}
	})
}
