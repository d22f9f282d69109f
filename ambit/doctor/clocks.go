package doctor

import (
	"fmt"
	"time"
)

// Heard is that a part was asked, and when.
type Heard struct {
	// Pod is "namespace/name".
	Pod, Node string
	// Why it did not answer, empty if it did.
	Why string
	// Off is how far its clock is ahead of the API server's, Doubt how wrong that
	// may be.
	Off, Doubt time.Duration
}

// The bounds of a clock. Certificates begin a tenth of their life before they are
// made, and at most 15 minutes: those of a day bear a clock that is 10 minutes
// behind, those of an hour one of 6.
const (
	clockNotice = 10 * time.Second
	clockBroken = time.Minute
)

// judgeClocks looks once at each node.
func judgeClocks(f Facts) []Finding {
	var all []Finding
	told := map[string]bool{}
	for _, h := range f.heard() {
		where := h.Node
		if where == "" {
			where = h.Pod
		}
		off := max(h.Off.Abs()-h.Doubt, 0)
		if h.Why != "" || told[where] || off < clockNotice {
			continue
		}
		told[where] = true
		direction := "ahead of"
		if h.Off < 0 {
			direction = "behind"
		}
		level := Warn
		if off >= clockBroken {
			level = Fail
		}
		all = append(all, Finding{level, "clock of " + where, fmt.Sprintf("is %s %s the API server's: certificates are refused before they begin and after they end, short-lived ones first", h.Off.Abs().Round(time.Second), direction), "synchronise the node's clock (NTP); timedatectl shows whether it is"})
	}
	return all
}

// heard is everybody who was asked, node agents first: theirs is the node.
func (f *Facts) heard() []Heard {
	var all []Heard
	for _, a := range f.Agents {
		all = append(all, a.Heard)
	}
	for _, p := range f.Proxies {
		all = append(all, p.Heard)
	}
	for _, p := range f.Planes {
		all = append(all, p.Heard)
	}
	return all
}
