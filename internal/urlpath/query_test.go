package urlpath

import (
	"net/url"
	"testing"
)

func TestQueriesStayWithinTheirBounds(t *testing.T) {
	for _, tt := range []struct{ sentence, raw, want string }{
		{"nothing", "", ""},
		{"a plain one", "a=b&c=%20d+e;f[]={|}'", "a=b&c=%20d+e;f[]={|}'"},
		{"a space", "a b HTTP/1.1", "a%20b%20HTTP/1.1"},
		{"a line end", "a\r\nX: y", "a%0D%0AX:%20y"},
		{"a fragment", "a#b", "a%23b"},
		{"beyond ASCII", "ä=\xff", "%C3%A4=%FF"},
		{"markup", `"<>`, "%22%3C%3E"},
		{"an escape that is none stays", "a=%zz&b=%", "a=%zz&b=%"},
	} {
		if got := Query(tt.raw); got != tt.want {
			t.Errorf("%s: %q is %q, want %q", tt.sentence, tt.raw, got, tt.want)
		}
	}
	if n := testing.AllocsPerRun(100, func() { Query("a=b&c=d") }); n != 0 {
		t.Errorf("a plain query costs %v allocations", n)
	}
}

// FuzzQuery holds it to saying the same in a form that is sent as it is.
func FuzzQuery(f *testing.F) {
	f.Add("a=b c&ä=#")
	f.Fuzz(func(t *testing.T, raw string) {
		got := Query(raw)
		if again := Query(got); again != got {
			t.Errorf("%q is %q, which is %q", raw, got, again)
		}
		before, err := url.QueryUnescape(raw)
		if after, err2 := url.QueryUnescape(got); after != before || (err == nil) != (err2 == nil) {
			t.Errorf("%q says %q, %q says %q", raw, before, got, after)
		}
	})
}
