package soak

import "strings"

// Figure is one thing that a test counted or measured.
type Figure struct {
	Test string `json:"test"`
	Name string `json:"name"`
	Text string `json:"text"`
}

const mark = "figure: "

// Line is the figure as the tests print it.
func (f Figure) Line() string { return mark + f.Test + ": " + f.Name + ": " + f.Text }

// parseFigure reads a line of the tests' output.
func parseFigure(line string) (Figure, bool) {
	rest, ok := strings.CutPrefix(line, mark)
	if !ok {
		return Figure{}, false
	}
	parts := strings.SplitN(rest, ": ", 3)
	if len(parts) != 3 {
		return Figure{}, false
	}
	return Figure{Test: parts[0], Name: parts[1], Text: parts[2]}, true
}
