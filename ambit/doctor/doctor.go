// Package doctor judges the health of an installation: from facts about a
// cluster to findings, each with what to do about it. Judge is pure; Gather
// reads the facts. It refuses to change anything. Called by `ambit check`.
package doctor

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
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
	ServerVersion string
	Nodes         []Node
	CRDs          map[string]bool // kind → served
	Parts         []Part
	Namespaces    []Namespace
	Policies      []PolicyStatus
	Waypoints     []WaypointStatus
	// Unbound are services that name a waypoint which does not serve them.
	Unbound []PolicyStatus
	// Foreign are other meshes' parts that were found.
	Foreign []string
}

// Node is one node.
type Node struct {
	Name, Kernel, OS, Runtime string
	Ready                     bool
}

// Part is one workload of the installation. Want is 0 when it is absent.
type Part struct {
	Name        string
	Want, Ready int
	Images      []string
}

// Namespace is one namespace whose pods belong to the mesh.
type Namespace struct {
	Name        string
	HasRootCert bool
	// Enrolled of the Pods are captured; Left are the names of those that
	// should be and are not, HostNetwork of those that cannot be.
	Pods, Enrolled    int
	Left, HostNetwork []string
	// Blocking are network policies that admit only listed ports without 15008.
	Blocking []string
}

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
	installed := slices.ContainsFunc(f.Parts, func(p Part) bool { return p.Want > 0 })
	if !installed {
		return append(all, Finding{Warn, "installation", "the mesh is not installed", "run: ambit install"})
	}
	all = append(all, judgeCRDs(f.CRDs)...)
	all = append(all, judgeParts(f.Parts)...)
	all = append(all, judgeNamespaces(f.Namespaces)...)
	all = append(all, judgeWaypoints(f.Waypoints, f.Unbound)...)
	return append(all, judgePolicies(f.Policies)...)
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

// judgeNodes wants Linux with nftables as we use it (kernel 5.4) and says what
// an older kernel than 5.14 costs.
func judgeNodes(nodes []Node) []Finding {
	var all []Finding
	for _, n := range nodes {
		check := "node " + n.Name
		major, minor, ok := leadingVersion(n.Kernel)
		switch {
		case n.OS != "linux":
			all = append(all, Finding{Warn, check, "runs " + n.OS, "its pods cannot be captured; schedule the mesh's pods on Linux nodes"})
		case !n.Ready:
			all = append(all, Finding{Fail, check, "is not Ready", "kubectl describe node " + n.Name})
		case !ok:
			all = append(all, Finding{Warn, check, "kernel " + n.Kernel + " could not be read", "check that it is 5.4 or newer"})
		case older(major, minor, 5, 4):
			all = append(all, Finding{Fail, check, "kernel " + n.Kernel + " is too old", "5.4 or newer is needed for nftables redirection of both address families"})
		case older(major, minor, 5, 14):
			all = append(all, Finding{Warn, check, "kernel " + n.Kernel + " cannot hand over queued connections", "from 5.14 on, replacing ztunnel loses no new connection"})
		default:
			all = append(all, Finding{Level: OK, Check: check, Detail: "kernel " + n.Kernel + ", " + n.Runtime})
		}
	}
	if len(nodes) == 0 {
		all = append(all, Finding{Fail, "nodes", "there is none", "join a node"})
	}
	return all
}

func judgeForeign(foreign []string) []Finding {
	var all []Finding
	for _, part := range foreign {
		all = append(all, Finding{Fail, "other mesh", part + " is not ours", "two meshes cannot share istio-system; remove the other one first"})
	}
	return all
}

func judgeCRDs(served map[string]bool) []Finding {
	var all []Finding
	for _, kind := range slices.Sorted(maps.Keys(served)) {
		if served[kind] {
			all = append(all, Finding{Level: OK, Check: "definition", Detail: kind})
		} else {
			all = append(all, Finding{Warn, "definition", kind + " is missing", "its objects cannot be written; run: ambit install"})
		}
	}
	return all
}

func judgeParts(parts []Part) []Finding {
	var all []Finding
	tags := map[string]bool{}
	for _, p := range parts {
		for _, image := range p.Images {
			tags[image[strings.LastIndex(image, ":")+1:]] = true
		}
		switch {
		case p.Want == 0:
			all = append(all, Finding{Fail, p.Name, "is not installed", "run: ambit install"})
		case p.Ready < p.Want:
			all = append(all, Finding{Fail, p.Name, fmt.Sprintf("%d of %d ready", p.Ready, p.Want), "kubectl -n istio-system get pods; kubectl -n istio-system describe pod …"})
		default:
			all = append(all, Finding{Level: OK, Check: p.Name, Detail: fmt.Sprintf("%d of %d ready", p.Ready, p.Want)})
		}
	}
	if len(tags) > 1 {
		all = append(all, Finding{Warn, "versions", "parts run different versions: " + strings.Join(slices.Sorted(maps.Keys(tags)), ", "), "finish the upgrade: ambit install"})
	}
	return all
}

func judgeNamespaces(namespaces []Namespace) []Finding {
	var all []Finding
	for _, n := range namespaces {
		check := "namespace " + n.Name
		if !n.HasRootCert {
			all = append(all, Finding{Warn, check, "has no ConfigMap istio-ca-root-cert", "istiod writes it; see its log"})
		}
		for _, np := range n.Blocking {
			all = append(all, Finding{Warn, check, "NetworkPolicy " + np + " admits ports without 15008", "encrypted connections arrive on 15008; admit it from the mesh's pods"})
		}
		if len(n.Left) > 0 {
			all = append(all, Finding{Fail, check, fmt.Sprintf("%d of %d pods captured; not: %s", n.Enrolled, n.Pods, shorten(n.Left)), "kubectl -n istio-system logs -l k8s-app=istio-cni-node"})
		} else {
			all = append(all, Finding{Level: OK, Check: check, Detail: fmt.Sprintf("%d of %d pods captured", n.Enrolled, n.Pods)})
		}
		if len(n.HostNetwork) > 0 {
			all = append(all, Finding{Warn, check, "pods on the host network are never captured: " + shorten(n.HostNetwork), "their traffic stays in clear and has no identity"})
		}
	}
	return all
}

func judgePolicies(policies []PolicyStatus) []Finding {
	var all []Finding
	for _, p := range policies {
		all = append(all, Finding{Warn, "policy " + p.Namespace + "/" + p.Name, p.Condition + ": " + p.Message, "correct the policy; what could not be expressed is closed, not open"})
	}
	return all
}

func shorten(names []string) string {
	if len(names) > 5 {
		return strings.Join(names[:5], ", ") + fmt.Sprintf(" and %d more", len(names)-5)
	}
	return strings.Join(names, ", ")
}

func older(major, minor, wantMajor, wantMinor int) bool {
	return major < wantMajor || major == wantMajor && minor < wantMinor
}

// leadingVersion reads "v1.37.2" or "6.1.0-18-amd64".
func leadingVersion(s string) (major, minor int, ok bool) {
	first, rest, ok1 := strings.Cut(strings.TrimPrefix(s, "v"), ".")
	end := strings.IndexFunc(rest, func(r rune) bool { return r < '0' || r > '9' })
	if end < 0 {
		end = len(rest)
	}
	major, err1 := strconv.Atoi(first)
	minor, err2 := strconv.Atoi(rest[:end])
	return major, minor, ok1 && err1 == nil && err2 == nil
}
