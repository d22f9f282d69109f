package inspect

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
)

// Table is rows under a header. Its JSON form is a list of objects keyed by
// the header in camel case.
type Table struct {
	Header []string
	Rows   [][]string
}

// Write prints the table as text, or says that it is empty.
func (t Table) Write(w io.Writer) error {
	if len(t.Rows) == 0 {
		_, err := fmt.Fprintln(w, "nothing found")
		return err
	}
	tw := tabwriter.NewWriter(w, 0, 8, 3, ' ', 0)
	for _, row := range append([][]string{t.Header}, t.Rows...) {
		cells := make([]string, len(row))
		for i, c := range row {
			if cells[i] = c; c == "" {
				cells[i] = "-"
			}
		}
		if _, err := fmt.Fprintln(tw, strings.Join(cells, "\t")); err != nil {
			return err
		}
	}
	return tw.Flush()
}

// MarshalJSON gives a list of objects; an empty table is [], not null.
func (t Table) MarshalJSON() ([]byte, error) {
	list := make([]map[string]string, 0, len(t.Rows))
	for _, row := range t.Rows {
		m := map[string]string{}
		for i, c := range row {
			m[camel(t.Header[i])] = c
		}
		list = append(list, m)
	}
	return json.Marshal(list)
}

// camel turns "REMOTE TARGET" into "remoteTarget".
func camel(header string) string {
	words := strings.Fields(strings.ToLower(header))
	for i, w := range words {
		if i > 0 {
			words[i] = strings.ToUpper(w[:1]) + w[1:]
		}
	}
	return strings.Join(words, "")
}
