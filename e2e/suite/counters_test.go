package suite

import "testing"

func TestSeriesAreSummedByTheirLabels(t *testing.T) {
	text := "# TYPE x counter\n" + `x{a="1",b="2"} 3
x{a="1",b="3"} 4
x{ba="1",b="2"} 100
xy{a="1"} 100
x 100
`
	for _, tt := range []struct {
		sentence string
		labels   []string
		want     float64
	}{
		{"one label", []string{`a="1"`}, 7},
		{"two labels in any order", []string{`b="2"`, `a="1"`}, 3},
		{"no such label", []string{`c="1"`}, 0},
		{"no label: all that have some", nil, 107},
	} {
		t.Run(tt.sentence, func(t *testing.T) {
			if got := sumSeries(text, "x", tt.labels...); got != tt.want {
				t.Errorf("sum %v, want %v", got, tt.want)
			}
		})
	}
}
