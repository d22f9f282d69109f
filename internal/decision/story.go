package decision

import (
	"strings"
	"time"
)

// Kind is what was decided on.
type Kind string

// The kinds.
const (
	Request    Kind = "request"
	Connection Kind = "connection"
)

// Story is one decision from its beginning to its end. Parts that did not
// happen are empty; they are listed in the order in which they happen.
type Story struct {
	ID   string `json:"id"`
	Kind Kind   `json:"kind"`
	// Proxy is who decided, as "waypoint shop/waypoint-7d9".
	Proxy string    `json:"proxy,omitempty"`
	At    time.Time `json:"at"`
	// Generation is the configuration that decided, as `ambit status` counts.
	Generation uint64 `json:"generation,omitempty"`
	Source     End    `json:"source"`
	// Asked is the request line, or the address that was dialled.
	Asked string `json:"asked"`
	// Service is what was asked for, as "namespace/hostname:port".
	Service  string    `json:"service,omitempty"`
	Tokens   []Line    `json:"tokens,omitempty"`
	Policies []Verdict `json:"policies,omitempty"`
	// Ruling is what the policies say together.
	Ruling string  `json:"ruling,omitempty"`
	Routes []Match `json:"routes,omitempty"`
	// Backend is what the route chose.
	Backend     string `json:"backend,omitempty"`
	Destination End    `json:"destination"`
	// Choice is why this endpoint.
	Choice   string    `json:"choice,omitempty"`
	Attempts []Attempt `json:"attempts,omitempty"`
	Outcome  Outcome   `json:"outcome"`
	Trace    string    `json:"trace,omitempty"`
}

// End is a client or an endpoint.
type End struct {
	// Identity is from the certificate; empty is none.
	Identity string `json:"identity,omitempty"`
	// Workload is "namespace/name".
	Workload string `json:"workload,omitempty"`
	Address  string `json:"address,omitempty"`
}

// Line is a step that has no form of its own.
type Line struct {
	About string `json:"about"`
	Says  string `json:"says"`
}

// Verdict is what one policy says.
type Verdict struct {
	Policy string `json:"policy"`
	Action string `json:"action"`
	DryRun bool   `json:"dryRun,omitempty"`
	// Decided marks the policy that settled it.
	Decided bool `json:"decided,omitempty"`
	// Says is why it matched or did not.
	Says string `json:"says"`
}

// Match is what one rule of a route has to do with the request.
type Match struct {
	// Route is empty in what is said of all routes, and Rule in what is said of
	// a whole route.
	Route string `json:"route,omitempty"`
	Rule  string `json:"rule,omitempty"`
	Taken bool   `json:"taken,omitempty"`
	// Says is why it was taken or not.
	Says string `json:"says"`
}

// Attempt is one try at an endpoint.
type Attempt struct {
	Workload string        `json:"workload,omitempty"`
	Address  string        `json:"address"`
	Status   int           `json:"status,omitempty"`
	Error    string        `json:"error,omitempty"`
	Duration time.Duration `json:"duration"`
}

// Outcome is how it ended.
type Outcome struct {
	// Status is HTTP's, 0 for a connection or an answer that never came.
	Status     int    `json:"status,omitempty"`
	GRPCStatus *int   `json:"grpcStatus,omitempty"`
	Flag       string `json:"flag"`
	Policy     string `json:"policy,omitempty"`
	Reason     string `json:"reason,omitempty"`
	Error      string `json:"error,omitempty"`
	// Sent and Received are bytes to and from the client.
	Sent     uint64        `json:"sent"`
	Received uint64        `json:"received"`
	Duration time.Duration `json:"duration"`
}

func (e End) mentions(part string) bool {
	return part == "" || containsFold(e.Identity, part) || containsFold(e.Workload, part) || containsFold(e.Address, part)
}

func containsFold(s, part string) bool {
	return part == "" || strings.Contains(strings.ToLower(s), strings.ToLower(part))
}
