package decision

import (
	"encoding/json"
	"testing"
)

// FuzzQuestion: whatever is asked, the question is whole or refused.
func FuzzQuestion(f *testing.F) {
	f.Add([]byte(`{"Source":"spiffe://a/ns/b/sa/c","Destination":"x:80"}`))
	f.Add([]byte(`{"Source":"spiffe://a/ns/b/sa/c","Method":"GET","URL":"http://x:99999/y"}`))
	f.Fuzz(func(t *testing.T, in []byte) {
		var q Question
		if json.Unmarshal(in, &q) != nil {
			return
		}
		a, err := q.Read(t.Context())
		if err == nil && (a.Host == "" || a.Port == 0) {
			t.Errorf("%s is taken for %+v", in, a)
		}
		if id := Adopt(q.Source); id == "" {
			t.Errorf("%q is adopted as nothing", q.Source)
		}
	})
}
