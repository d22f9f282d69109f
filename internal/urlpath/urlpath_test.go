package urlpath

import (
	"net/url"
	"strings"
	"testing"
)

func TestPathsHaveOneForm(t *testing.T) {
	for _, tt := range []struct{ sentence, path, want string }{
		{"a plain path", "/a/b", "/a/b"},
		{"the root", "/", "/"},
		{"nothing is the root", "", "/"},
		{"the server itself", "*", "*"},
		{"a last slash stays", "/a/", "/a/"},
		{"delimiters stay", "/a;v=1,2/(b)!$&'*+:@", "/a;v=1,2/(b)!$&'*+:@"},

		{"an escaped letter", "/%61%5A%7e%2D", "/aZ~-"},
		{"escapes are upper case", "/a%c3%a4", "/a%C3%A4"},
		{"an escaped slash is data", "/a%2fb", "/a%2Fb"},
		{"an escaped backslash is data", "/a%5cb", "/a%5Cb"},
		{"an escaped percent sign is unescaped by nobody", "/%252e%252e/a", "/%252e%252e/a"},
		{"escaped delimiters stay escaped", "/a%3Bb%40", "/a%3Bb%40"},
		{"an escaped NUL stays escaped", "/a%00", "/a%00"},
		{"bytes beyond ASCII are escaped", "/ä", "/%C3%A4"},
		{"what has no place is escaped", `/{a}|"<>^` + "`[]", "/%7Ba%7D%7C%22%3C%3E%5E%60%5B%5D"},

		{"a dot", "/a/./b", "/a/b"},
		{"two dots", "/a/../b", "/b"},
		{"a last dot", "/a/.", "/a/"},
		{"two last dots", "/a/b/..", "/a/"},
		{"dots above the root", "/../../a", "/a"},
		{"dots up to the root", "/a/..", "/"},
		{"escaped dots", "/a/%2e%2E/b", "/b"},
		{"an escaped dot and a dot", "/a/.%2e/b", "/b"},
		{"three dots are a name", "/a/.../b", "/a/.../b"},
		{"a hidden name", "/.well-known/x", "/.well-known/x"},
		{"dots behind an escaped slash are a name", "/a%2F../b", "/a%2F../b"},
		{"dots behind a backslash", `/a/..\..\b`, "/b"},

		{"slashes in a row", "//a///b//", "/a/b/"},
		{"slashes and dots", "/a//../b", "/b"},
		{"a backslash", `/a\b`, "/a/b"},
		{"a backslash first", `\a`, "/a"},
		{"backslashes in a row", `/\\a`, "/a"},
	} {
		got, err := Normalize(tt.path)
		if err != nil || got != tt.want {
			t.Errorf("%s: %q is %q, %v; want %q", tt.sentence, tt.path, got, err, tt.want)
		}
	}
}

func TestPathsWithoutAForm(t *testing.T) {
	for sentence, path := range map[string]string{
		"no slash":                "a/b",
		"a host":                  "http://a/b",
		"a star and more":         "*a",
		"an escape that ends":     "/a%",
		"an escape of one digit":  "/a%2",
		"an escape of no digits":  "/a%zz",
		"a NUL":                   "/a\x00",
		"a line end":              "/a\r\nb",
		"a space":                 "/a b",
		"a delete character":      "/a\x7f",
		"a fragment":              "/a#b",
		"a query":                 "/a?b",
		"an escape over a border": "/a%/2e",
	} {
		if got, err := Normalize(path); err == nil {
			t.Errorf("%s: %q is %q, want an error", sentence, path, got)
		}
	}
}

func TestPatternsHaveTheFormOfPaths(t *testing.T) {
	for _, tt := range []struct{ sentence, text, want string }{
		{"a plain one", "/admin/", "/admin/"},
		{"nothing", "", ""},
		{"a part of a path", "min/x", "min/x"},
		{"escapes are upper case", "/a%2fb", "/a%2Fb"},
		{"an escaped letter", "/%61dmin", "/admin"},
		{"beyond ASCII", "/ä", "/%C3%A4"},
		{"slashes in a row", "/a///b//", "/a/b/"},
		{"a backslash", `/a\b`, "/a/b"},
		{"the beginning of a hidden name", "/a/.", "/a/."},
		{"the beginning of three dots", "/a/..", "/a/.."},
		{"the end of a name", "./x", "./x"},
		{"no dot", "/a/../b", ""},
		{"no dot either", "/a/%2e/b", ""},
		{"no query", "/a?b", ""},
		{"half an escape", "/a%2", ""},
	} {
		got, err := Pattern(tt.text)
		if got != tt.want || (err == nil) != (got != "" || tt.text == "") {
			t.Errorf("%s: %q is %q, %v; want %q", tt.sentence, tt.text, got, err, tt.want)
		}
	}
}

func TestNormalPathsCostNothing(t *testing.T) {
	if n := testing.AllocsPerRun(100, func() { _, _ = Normalize("/api/v1/users/17/") }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// FuzzNormalize holds the form to what it promises, whatever the path.
func FuzzNormalize(f *testing.F) {
	for _, path := range []string{"/a/%2e%2e//b\\c/.", "/%25%2f%00ä", "*", "", "/a?b"} {
		f.Add(path)
	}
	f.Fuzz(func(t *testing.T, path string) {
		got, err := Normalize(path)
		if err != nil || got == "*" {
			return
		}
		if again, err := Normalize(got); again != got || err != nil {
			t.Errorf("%q is %q, which is %q, %v", path, got, again, err)
		}
		if got[0] != '/' || strings.Contains(got, "//") || strings.ContainsAny(got, "\\ ?#\r\n") {
			t.Errorf("%q is %q", path, got)
		}
		if pattern, err := Pattern(got); pattern != got || err != nil {
			t.Errorf("%q is %q, which is the pattern %q, %v", path, got, pattern, err)
		}
		for _, segment := range strings.Split(got, "/") {
			if plain, err := url.PathUnescape(segment); err != nil || plain == "." || plain == ".." {
				t.Errorf("%q is %q with the segment %q, %v", path, got, segment, err)
			}
		}
	})
}
