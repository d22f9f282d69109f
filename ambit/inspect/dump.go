// Package inspect turns a node proxy's state dump into rows for people and for
// programs. It owns the columns of `ambit ztunnel …`; it refuses to fetch a
// dump (ambit/reach) and to judge it (ambit/doctor). Pure.
package inspect

import (
	"encoding/json"
	"fmt"
)

// Dump is what is read of a node proxy's /config_dump (dataplane spec 7.7).
// Fields that an upstream proxy adds are ignored.
type Dump struct {
	Workloads     []Workload       `json:"workloads"`
	Services      []Service        `json:"services"`
	Policies      []Policy         `json:"policies"`
	Certificates  []Certificate    `json:"certificates"`
	WorkloadState map[string]State `json:"workloadState"`
}

// Workload is one instance the proxy knows.
type Workload struct {
	UID            string       `json:"uid"`
	Name           string       `json:"name"`
	Namespace      string       `json:"namespace"`
	ServiceAccount string       `json:"serviceAccount"`
	TrustDomain    string       `json:"trustDomain"`
	IPs            []string     `json:"workloadIps"`
	Hostname       string       `json:"hostname"`
	Protocol       string       `json:"protocol"`
	Node           string       `json:"node"`
	Status         string       `json:"status"`
	Waypoint       *Destination `json:"waypoint"`
	Policies       []string     `json:"authorizationPolicies"`
}

// Destination is a reference to a waypoint.
type Destination struct {
	Destination string `json:"destination"`
}

// Service is one service the proxy knows.
type Service struct {
	Name      string              `json:"name"`
	Namespace string              `json:"namespace"`
	Hostname  string              `json:"hostname"`
	VIPs      []string            `json:"vips"`
	Waypoint  *Destination        `json:"waypoint"`
	Endpoints map[string]Endpoint `json:"endpoints"`
}

// Endpoint is one workload behind a service.
type Endpoint struct {
	WorkloadUID string `json:"workloadUid"`
	Status      string `json:"status"`
}

// Policy is one authorization policy the proxy enforces.
type Policy struct {
	Name      string          `json:"name"`
	Namespace string          `json:"namespace"`
	Scope     string          `json:"scope"`
	Action    string          `json:"action"`
	DryRun    bool            `json:"dryRun"`
	Rules     json.RawMessage `json:"rules"`
}

// Certificate is one identity the proxy holds, or tries to.
type Certificate struct {
	Identity string `json:"identity"`
	State    string `json:"state"`
	Chain    []Cert `json:"certChain"`
	Roots    []Cert `json:"rootCerts"`
}

// Cert is one X.509 certificate.
type Cert struct {
	Serial    string `json:"serialNumber"`
	ValidFrom string `json:"validFrom"`
	Expires   string `json:"expirationTime"`
}

// State is one captured pod.
type State struct {
	State string `json:"state"`
	// Error is why it is pending; ours, absent from an upstream proxy.
	Error       string      `json:"error,omitempty"`
	Connections Connections `json:"connections"`
	Info        struct {
		Name           string `json:"name"`
		Namespace      string `json:"namespace"`
		ServiceAccount string `json:"serviceAccount"`
	} `json:"info"`
}

// Connections are the open connections of a captured pod.
type Connections struct {
	Inbound  []Connection `json:"inbound"`
	Outbound []Connection `json:"outbound"`
}

// Connection is one open connection.
type Connection struct {
	Src         string `json:"src"`
	OriginalDst string `json:"originalDst"`
	ActualDst   string `json:"actualDst"`
	Protocol    string `json:"protocol"`
	// Peer and Reason are ours, absent from an upstream proxy: the identity at
	// the other end, and the rule that let the connection pass.
	Peer   string `json:"peer,omitempty"`
	Reason string `json:"reason,omitempty"`
}

// Parse reads a dump.
func Parse(b []byte) (*Dump, error) {
	var d Dump
	if err := json.Unmarshal(b, &d); err != nil {
		return nil, fmt.Errorf("reading a ztunnel state dump: %w", err)
	}
	return &d, nil
}
