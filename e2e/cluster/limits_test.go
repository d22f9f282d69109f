package cluster

import (
	"os"
	"path/filepath"
	"testing"
)

func TestLimitsOfTheHostAreRaisedAndPutBack(t *testing.T) {
	type step struct {
		do    string // raise, restore, or admin: somebody else sets the value to 300
		value int    // afterwards
		saved bool
	}
	for name, c := range map[string]struct {
		have  int
		steps []step
	}{
		"a low limit goes up and down again":         {128, []step{{"raise", 1000, true}, {"restore", 128, false}}},
		"the first value is kept over many raises":   {128, []step{{"raise", 1000, true}, {"raise", 1000, true}, {"restore", 128, false}}},
		"a limit that is high enough stays":          {5000, []step{{"raise", 5000, false}, {"restore", 5000, false}}},
		"what an administrator set since then stays": {128, []step{{"raise", 1000, true}, {"admin", 300, true}, {"restore", 300, false}}},
		"nothing to restore is fine":                 {128, []step{{"restore", 128, false}}},
	} {
		t.Run(name, func(t *testing.T) {
			l := limits{dir: t.TempDir(), file: filepath.Join(t.TempDir(), "saved")}
			want := map[string]int{"limit": 1000, "unknown/to/this/kernel": 5}
			set := func(v int) {
				if err := l.set("limit", v); err != nil {
					t.Fatal(err)
				}
			}
			set(c.have)
			for i, s := range c.steps {
				var err error
				switch s.do {
				case "raise":
					err = l.raise(want)
				case "restore":
					err = l.restore(want)
				case "admin":
					set(300)
				}
				got, _ := l.get("limit")
				_, statErr := os.Stat(l.file)
				if err != nil || got != s.value || (statErr == nil) != s.saved {
					t.Errorf("step %d, %s: limit is %d, remembered %v, error %v", i+1, s.do, got, statErr == nil, err)
				}
			}
		})
	}
}
