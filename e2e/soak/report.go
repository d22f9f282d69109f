package soak

import (
	"fmt"
	"io"
	"time"
)

// Report writes the results as a page of Markdown.
func Report(w io.Writer, results []Result) error {
	p := &page{w: w}
	p.printf("# Soak report\n\n`make soak` runs the long form, `make soak FORM=short` the short one, which is part of `make test`.\n")
	for _, r := range results {
		verdict := "FAILED"
		if r.Passed {
			verdict = "passed"
		}
		p.printf("\n## %s\n\n%s in %s (`%s`; %s).\n", r.Story.Promise, verdict, r.Took.Round(time.Second), r.Story.Test, r.Run)
		if len(r.Figures) > 0 {
			p.printf("\n| figure | |\n|---|---|\n")
		}
		for _, f := range r.Figures {
			p.printf("| %s | %s |\n", f.Name, f.Text)
		}
	}
	return p.err
}

// page keeps the first error of many writes.
type page struct {
	w   io.Writer
	err error
}

func (p *page) printf(format string, args ...any) {
	if p.err == nil {
		_, p.err = fmt.Fprintf(p.w, format, args...)
	}
}
