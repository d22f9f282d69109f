// Package doctor judges the health of an installation: from facts about a
// cluster to findings, each with what to do about it. Judge is pure; Gather
// reads the facts, from the API server and from the running parts themselves.
// It refuses to change anything, and to stop at what does not answer: that is a
// finding too. Called by `ambit check`.
package doctor

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Level is how bad a finding is.
type Level string

// The levels. Only Fail makes the command fail.
const (
	OK   Level = "ok"
	Warn Level = "warn"
	Fail Level = "fail"
)

// Finding is one thing looked at.
type Finding struct {
	Level  Level  `json:"level"`
	Check  string `json:"check"`
	Detail string `json:"detail"`
	// Fix says what to do; empty when all is well.
	Fix string `json:"fix,omitempty"`
}

// Facts are what Judge looks at.
type Facts struct {
	// Now is the API server's time, against which all others are held.
	Now           time.Time
	ServerVersion string
	Nodes         []Node
	CRDs          map[string]bool // kind → served
	Parts         []Part
	Mesh          Mesh
	Namespaces    []Namespace
	Policies      []PolicyStatus
	Waypoints     []WaypointStatus
	// Unbound are services that name a waypoint which does not serve them.
	Unbound []PolicyStatus
	// Foreign are other meshes' parts that were found.
	Foreign []string

	Signing Signing
	// Strangers are policies that name principals of unknown trust domains.
	Strangers []Stranger
	Audiences []Audience
	Rights    []Right
	Denials   []Denial
	Stuck     []Stuck

	Planes  []Plane
	Agents  []Agent
	Proxies []Proxy
	// Unread is what could not be looked at.
	Unread []Unread
}

// Unread is something that could not be looked at, and why.
type Unread struct{ What, Why string }

// PolicyStatus is a policy or a service with a condition that is not true.
type PolicyStatus struct {
	Namespace, Name, Condition, Message string
}

// Judge gives the findings in the order in which a human would look.
func Judge(f Facts) []Finding {
	var all []Finding
	all = append(all, judgeServer(f.ServerVersion))
	all = append(all, judgeNodes(f.Nodes)...)
	all = append(all, judgeForeign(f.Foreign)...)
	if !f.installed() {
		all = append(all, Finding{Warn, "installation", "the mesh is not installed", "run: ambit install"})
		return append(all, judgeUnread(f.Unread)...)
	}
	for _, judge := range []func(Facts) []Finding{
		judgeCRDs, judgeParts, judgeCoverage, judgeRights, judgeDenials, judgeAudiences, judgeClocks, judgeTrust, judgeDomain,
		judgeAgents, judgeStuck, judgeProxies, judgeReach, judgeNamespaces, judgeWaypoints, judgePolicies,
	} {
		all = append(all, judge(f)...)
	}
	return append(all, judgeUnread(f.Unread)...)
}

func (f *Facts) installed() bool {
	return slices.ContainsFunc(f.Parts, func(p Part) bool { return p.Want > 0 })
}

// Failed reports whether a finding is a failure.
func Failed(findings []Finding) bool {
	return slices.ContainsFunc(findings, func(f Finding) bool { return f.Level == Fail })
}

func judgeServer(version string) Finding {
	major, minor, ok := leadingVersion(version)
	switch {
	case !ok:
		return Finding{Warn, "kubernetes", "version " + version + " could not be read", "check that it is 1.30 or newer"}
	case major == 1 && minor < 30:
		return Finding{Fail, "kubernetes", "version " + version + " is too old", "1.30 or newer is needed"}
	}
	return Finding{Level: OK, Check: "kubernetes", Detail: "version " + version}
}

func judgePolicies(f Facts) []Finding {
	var all []Finding
	for _, p := range f.Policies {
		all = append(all, Finding{Warn, "policy " + p.Namespace + "/" + p.Name, p.Condition + ": " + p.Message, "correct the policy; what could not be expressed is closed, not open"})
	}
	return all
}

// judgeUnread fails: a check that looks away proves nothing.
func judgeUnread(unread []Unread) []Finding {
	var all []Finding
	for _, u := range unread {
		all = append(all, Finding{Fail, u.What, "could not be looked at: " + u.Why, "look at it by hand, or ask again as somebody who may read it"})
	}
	return all
}

// recent is how long what has happened is worth telling.
const recent = 15 * time.Minute

func (f *Facts) recently(at time.Time) bool { return !at.IsZero() && f.Now.Sub(at) < recent }

func ok(check, detail string) Finding { return Finding{Level: OK, Check: check, Detail: detail} }

func shorten(names []string) string {
	if len(names) > 5 {
		return strings.Join(names[:5], ", ") + fmt.Sprintf(" and %d more", len(names)-5)
	}
	return strings.Join(names, ", ")
}
