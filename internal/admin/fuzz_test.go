package admin

import "testing"

// FuzzLevels: what is taken for levels can be said again and is taken for the
// same.
func FuzzLevels(f *testing.F) {
	f.Add("info,access=debug")
	f.Add("=,")
	f.Fuzz(func(t *testing.T, text string) {
		l, err := ParseLevels(text)
		if err != nil {
			return
		}
		if again, err := ParseLevels(l.String()); err != nil || again.String() != l.String() {
			t.Errorf("%q is %q, which is not read as itself: %v", text, l, err)
		}
	})
}
