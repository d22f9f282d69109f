package scenario

import (
	"fmt"
	"slices"
	"strings"

	"github.com/ambit-mesh/ambit/internal/view"
	"github.com/ambit-mesh/ambit/istiod-lite/objects"
	"github.com/ambit-mesh/ambit/istiod-lite/translate"
	"github.com/ambit-mesh/ambit/ztunnel/names"
)

// namesFile answers every line of a names.txt: "NAMESPACE/POD asks NAME".
func namesFile(v *view.View, text string) (string, error) {
	return answered(text, func(question string) (string, error) {
		words := strings.Fields(question)
		if len(words) != 3 || words[1] != "asks" {
			return "", fmt.Errorf("%q: want NAMESPACE/POD asks NAME", question)
		}
		client, err := podNamed(v, words[0])
		if err != nil || client == nil {
			return "", fmt.Errorf("%q: no such client: %w", question, err)
		}
		answer := "not of the mesh"
		for _, v6 := range []bool{false, true} {
			a, known := names.Resolve(v, names.Question{Client: client, Domain: "cluster.local", Name: words[2], V6: v6})
			switch {
			case known && !v6:
				answer = strings.Trim(fmt.Sprint(a.Addresses), "[]")
			case known:
				answer = strings.TrimSpace(answer + " " + strings.Trim(fmt.Sprint(a.Addresses), "[]"))
			}
		}
		return answer, nil
	})
}

// virtualLines is the text of virtual.txt.
func virtualLines(all map[objects.Ref]*translate.Detail) string {
	var lines []string
	for ref, d := range all {
		for _, a := range d.Virtual {
			lines = append(lines, fmt.Sprintf("%s: %s %s\n", ref, a.Host, a.Value))
		}
	}
	slices.Sort(lines)
	return strings.Join(lines, "")
}
