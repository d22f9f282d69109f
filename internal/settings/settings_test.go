package settings

import (
	"strings"
	"testing"
	"time"
)

// all are the ways to read a setting, by name.
var all = map[string]func(r *Reader) any{
	"number":   func(r *Reader) any { return r.Number("X") },
	"port":     func(r *Reader) any { return r.Port("X") },
	"share":    func(r *Reader) any { return r.Share("X") },
	"boolean":  func(r *Reader) any { return r.Boolean("X", false) },
	"duration": func(r *Reader) any { return r.Duration("X") },
}

func TestWhatIsSetIsRead(t *testing.T) {
	for _, c := range []struct {
		name, kind, text string
		base             int
		want             any
	}{
		{"a number", "number", "40", 0, 40},
		{"a number by its prefix", "number", "0x539", 0, 0x539},
		{"a decimal number with a zero in front", "number", "010", 10, 10},
		{"the last port", "port", "65535", 0, uint16(65535)},
		{"a share", "share", "0.25", 0, 0.25},
		{"a boolean", "boolean", "true", 0, true},
		{"a duration", "duration", "1m30s", 0, 90 * time.Second},
		{"a number that is not set", "number", "", 0, 0},
		{"a port that is not set", "port", "", 0, uint16(0)},
		{"a share that is not set", "share", "", 0, 0.0},
		{"a boolean that is not set", "boolean", "", 0, false},
		{"a duration that is not set", "duration", "", 0, time.Duration(0)},
	} {
		r := &Reader{Lookup: func(string) string { return c.text }, Base: c.base}
		if got := all[c.kind](r); got != c.want || r.Err() != nil {
			t.Errorf("%s: %v, %v, want %v", c.name, got, r.Err(), c.want)
		}
	}
	r := &Reader{Lookup: func(string) string { return "" }}
	if !r.Boolean("X", true) {
		t.Error("a boolean that is not set does not keep its default")
	}
}

func TestWhatIsWrongIsNamedAndNotTaken(t *testing.T) {
	for _, c := range []struct {
		kind, text, want string
		base             int
	}{
		{"number", "x", "invalid syntax", 0},
		{"number", "-1", "is negative", 0},
		{"number", "4294967296", "out of range", 0},
		{"number", "0x10", "invalid syntax", 10},
		{"port", "65536", "is no port", 0},
		{"share", "1.5", "is no share", 0},
		{"share", "NaN", "is no share", 0},
		{"boolean", "perhaps", "invalid syntax", 0},
		{"duration", "soon", "invalid duration", 0},
		{"duration", "0s", "is not positive", 0},
		{"duration", "-1s", "is not positive", 0},
	} {
		r := &Reader{Lookup: func(string) string { return c.text }, Base: c.base}
		got := all[c.kind](r)
		if err := r.Err(); err == nil || !strings.HasPrefix(err.Error(), "X: ") || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s %q: %v, want %q", c.kind, c.text, err, c.want)
		}
		if unset := all[c.kind](&Reader{Lookup: func(string) string { return "" }}); got != unset {
			t.Errorf("%s %q is wrong and yet %v", c.kind, c.text, got)
		}
	}
}

func TestAllThatIsWrongIsToldTogether(t *testing.T) {
	r := &Reader{Lookup: func(string) string { return "x" }}
	r.Number("FIRST")
	r.Duration("SECOND")
	if err := r.Err(); err == nil || !strings.Contains(err.Error(), "FIRST") || !strings.Contains(err.Error(), "SECOND") {
		t.Errorf("error %v", err)
	}
}
