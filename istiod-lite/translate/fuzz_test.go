package translate

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/tools/txtar"

	"github.com/ambit-mesh/ambit/istiod-lite/objects"
)

// FuzzObjects: whatever users apply, what can be read of it has a meaning, the
// same one each time.
func FuzzObjects(f *testing.F) {
	files, err := filepath.Glob("../../e2e/scenario/testdata/*.txtar")
	if err != nil {
		f.Fatal(err)
	}
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		for _, part := range txtar.Parse(b).Files {
			if part.Name == "objects.yaml" && len(part.Data) < 4<<10 {
				f.Add(part.Data)
			}
		}
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		set, _ := objects.Parse(text)
		one, told := Translate(set)
		two, again := Translate(set)
		if len(one.Workloads) != len(two.Workloads) || len(one.Policies) != len(two.Policies) || len(told) != len(again) {
			t.Error("the same objects mean something else the second time")
		}
	})
}
