package soak

// Story is one test of e2e/suite that has a long form.
type Story struct {
	// Test is its name in e2e/suite.
	Test string
	// Promise says what must hold.
	Promise string
	// Lane is the cluster on which it runs: what harms the whole mesh must not
	// run beside what watches it for hours.
	Lane int
}

// The lanes run at the same time, each on a cluster of its own.
const (
	disturbing = iota
	watching
	lanes
)

// Vigil is the name under which e2e/suite tells what was heard between the nodes
// while its tests ran.
const Vigil = "TheVigil"

// vigilOf is the story of what was heard on the cluster of a lane.
func vigilOf(lane int) Story {
	where := [lanes]string{disturbing: "while everything is disturbed", watching: "for hours"}[lane]
	return Story{Vigil, where + ", nothing that two pods of the mesh say to each other is heard between the nodes", lane}
}

// Table is every story. A test of e2e/suite that calls Lasts or Times and is
// not here, or the other way round, is noticed by a test of this package.
func Table() []Story {
	return []Story{
		{"TestWithoutTheNodeAgentEverythingKnownKeepsWorking", "the node agents are away: everything known goes on, and nothing is left of what went meanwhile", disturbing},
		{"TestPodsThatComeAndGoLeaveNothing", "pods come and go: rules and descriptors are as many as before", disturbing},
		{"TestJoiningAndLeavingUnderLoadLosesNothing", "a namespace joins and leaves under 200 requests a second: nothing is lost", disturbing},
		{"TestALinkThatIsCutAndHealed", "the link between two nodes is cut and healed: nothing goes in clear", disturbing},
		{"TestReplacingTheNodeProxiesUnderLoadLosesNothing", "node proxies are replaced under 200 requests a second: no new connection fails, what must end is counted", disturbing},
		{"TestCertificatesOfMinutesAreRenewedUnderLoad", "certificates of minutes are renewed under load: no request fails, no connection ends", disturbing},
		{"TestWithoutIstiodEverythingKnownKeepsWorking", "the control plane is away: everything known goes on", disturbing},
		{"TestChurnLeaksNoMemory", "100 workloads, one change a second: the heap of istiod-lite grows by at most 1 MB in an hour, of a ztunnel by 0.5", watching},
	}
}

// everything is the table, and what is heard beside it.
func everything() []Story {
	all := Table()
	for lane := range lanes {
		all = append(all, vigilOf(lane))
	}
	return all
}
