package decision

import (
	"cmp"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
)

// Write writes the story for people: what happened, line by line, in its order.
func (s *Story) Write(w io.Writer) error {
	var by string
	if s.Proxy != "" {
		by = ", decided by " + s.Proxy
	}
	if s.Generation != 0 {
		by += fmt.Sprintf(" with configuration %d", s.Generation)
	}
	head := fmt.Sprintf("%s %s at %s%s", s.Kind, s.ID, s.At.UTC().Format(time.RFC3339Nano), by)
	if s.ID == "" {
		head = fmt.Sprintf("%s that nobody has sent%s", s.Kind, by)
	}
	if _, err := fmt.Fprintln(w, head); err != nil {
		return err
	}
	tw := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	for _, part := range s.parts() {
		for i, line := range part.lines {
			about := ""
			if i == 0 {
				about = part.about
			}
			fmt.Fprintf(tw, "  %s\t%s\n", about, clean(line))
		}
	}
	return tw.Flush()
}

// clean lets no text of a client's move the reader's cursor.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 {
			return '�'
		}
		return r
	}, s)
}

// part is the lines about one thing.
type part struct {
	about string
	lines []string
}

func (s *Story) parts() []part {
	asked := s.Asked
	if s.Service != "" {
		asked += " of service " + s.Service
	}
	client := cmp.Or(s.Source.String(), "unknown")
	if s.Source.Identity == "" {
		client += ", without an identity"
	}
	return []part{
		{"client", []string{client}},
		{"asked", []string{asked}},
		{"tokens", texts(s.Tokens, func(l Line) string { return l.About + ": " + l.Says })},
		{"policies", texts(s.Policies, Verdict.String)},
		{"ruling", one(s.Ruling)},
		{"routes", texts(s.Routes, Match.String)},
		{"backend", one(s.Backend)},
		{"endpoint", one(join(s.Destination.String(), s.Choice))},
		{"attempts", s.attempts()},
		{"outcome", s.outcome()},
		{"trace", one(s.Trace)},
	}
}

// outcome is that of what has happened.
func (s *Story) outcome() []string {
	if s.ID == "" {
		return nil
	}
	return []string{s.Outcome.String()}
}

func one(line string) []string {
	if line == "" {
		return nil
	}
	return []string{line}
}

func texts[T any](all []T, text func(T) string) []string {
	var out []string
	for _, x := range all {
		out = append(out, text(x))
	}
	return out
}

// attempts are told if there was more than the outcome says.
func (s *Story) attempts() []string {
	if len(s.Attempts) == 1 && s.Attempts[0].Error == "" {
		return nil
	}
	var out []string
	for i, a := range s.Attempts {
		out = append(out, fmt.Sprintf("%d. %s", i+1, a))
	}
	return out
}

// String is one line.
func (e End) String() string {
	place := e.Workload
	if e.Address != "" {
		place = strings.TrimSpace(place + " " + e.Address)
	}
	switch {
	case e.Identity == "":
		return place
	case place == "":
		return e.Identity
	}
	return e.Identity + " (" + place + ")"
}

// String is one line.
func (v Verdict) String() string {
	mark := ""
	if v.DryRun {
		mark = " (dry run)"
	}
	if v.Decided {
		mark += " ←"
	}
	return v.Action + " " + v.Policy + ": " + v.Says + mark
}

// String is one line.
func (m Match) String() string {
	if m.Route == "" {
		return m.Says
	}
	about := m.Route
	if m.Rule != "" {
		about += " rule " + m.Rule
	}
	if m.Taken {
		return about + " taken: " + m.Says
	}
	return about + " not taken: " + m.Says
}

// String is one line.
func (a Attempt) String() string {
	end := a.Error
	if end == "" {
		end = fmt.Sprintf("answered %d", a.Status)
	}
	return fmt.Sprintf("%s %s after %s", strings.TrimSpace(a.Workload+" "+a.Address), end, round(a.Duration))
}

// String is one line.
func (o Outcome) String() string {
	var words []string
	if o.Status != 0 {
		words = append(words, fmt.Sprintf("status %d", o.Status))
	}
	if o.GRPCStatus != nil {
		words = append(words, fmt.Sprintf("gRPC status %d", *o.GRPCStatus))
	}
	if o.Flag != "" && o.Flag != "-" {
		words = append(words, "flag "+o.Flag)
	}
	words = append(words, fmt.Sprintf("%d bytes received and %d sent in %s", o.Received, o.Sent, round(o.Duration)))
	return join(join(strings.Join(words, ", "), o.Reason), o.Error)
}

func join(a, b string) string {
	if a == "" || b == "" || a == b {
		return cmp.Or(a, b)
	}
	return a + "; " + b
}

func round(d time.Duration) time.Duration {
	if d < time.Millisecond {
		return d.Round(time.Microsecond)
	}
	return d.Round(10 * time.Microsecond)
}
