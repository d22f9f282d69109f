package inspect

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Filter narrows the rows; empty fields narrow nothing.
type Filter struct {
	Namespace string
	// Node keeps workloads of one node.
	Node string
	// Address keeps workloads and services with this address.
	Address string
	// Direction keeps "inbound" or "outbound" connections.
	Direction string
}

// WorkloadTable is the instances the proxy knows: enrolled (HBONE) or not (TCP).
func WorkloadTable(d *Dump, f Filter) Table {
	t := Table{Header: []string{"NAMESPACE", "POD NAME", "ADDRESS", "NODE", "WAYPOINT", "PROTOCOL", "STATUS"}}
	for _, w := range d.Workloads {
		if !keep(f.Namespace, w.Namespace) || !keep(f.Node, w.Node) || f.Address != "" && !slices.Contains(w.IPs, f.Address) {
			continue
		}
		t.Rows = append(t.Rows, []string{
			w.Namespace, w.Name, cmp.Or(strings.Join(w.IPs, ","), w.Hostname), w.Node, w.Waypoint.text(),
			cmp.Or(w.Protocol, "TCP"), cmp.Or(w.Status, "Healthy"),
		})
	}
	return t.sorted()
}

// ServiceTable is the services the proxy knows, with their healthy endpoints.
func ServiceTable(d *Dump, f Filter) Table {
	t := Table{Header: []string{"NAMESPACE", "SERVICE NAME", "SERVICE VIP", "WAYPOINT", "ENDPOINTS"}}
	for _, s := range d.Services {
		vips := s.addresses()
		if !keep(f.Namespace, s.Namespace) || f.Address != "" && !slices.Contains(vips, f.Address) {
			continue
		}
		healthy := 0
		for _, e := range s.Endpoints {
			if e.Status == "" || strings.EqualFold(e.Status, "healthy") {
				healthy++
			}
		}
		t.Rows = append(t.Rows, []string{
			s.Namespace, s.Name, strings.Join(vips, ","), s.Waypoint.text(),
			fmt.Sprintf("%d/%d", healthy, len(s.Endpoints)),
		})
	}
	return t.sorted()
}

// PolicyTable is the policies the proxy enforces.
func PolicyTable(d *Dump, f Filter) Table {
	t := Table{Header: []string{"NAMESPACE", "POLICY NAME", "ACTION", "SCOPE", "RULES", "DRY RUN"}}
	for _, p := range d.Policies {
		if !keep(f.Namespace, p.Namespace) {
			continue
		}
		var rules []json.RawMessage
		if len(p.Rules) > 0 && json.Unmarshal(p.Rules, &rules) != nil {
			rules = nil
		}
		dry := "no"
		if p.DryRun {
			dry = "yes"
		}
		t.Rows = append(t.Rows, []string{p.Namespace, p.Name, p.Action, p.Scope, fmt.Sprint(len(rules)), dry})
	}
	return t.sorted()
}

// CertificateTable is every certificate of every identity, judged at now.
func CertificateTable(d *Dump, now time.Time) Table {
	t := Table{Header: []string{"CERTIFICATE NAME", "TYPE", "STATUS", "VALID CERT", "SERIAL NUMBER", "NOT AFTER", "NOT BEFORE"}}
	for _, c := range d.Certificates {
		if len(c.Chain) == 0 {
			t.Rows = append(t.Rows, []string{c.Identity, "Leaf", c.State, "false", "", "", ""})
		}
		for i, cert := range c.Chain {
			kind := "Intermediate"
			if i == 0 {
				kind = "Leaf"
			}
			t.Rows = append(t.Rows, cert.row(c, kind, now))
		}
		for _, cert := range c.Roots {
			t.Rows = append(t.Rows, cert.row(c, "Root", now))
		}
	}
	return t // the order of a chain has a meaning
}

func (c Cert) row(of Certificate, kind string, now time.Time) []string {
	return []string{of.Identity, kind, of.State, fmt.Sprint(c.validAt(now)), c.Serial, c.Expires, c.ValidFrom}
}

// validAt is false for dates that cannot be read: they prove nothing.
func (c Cert) validAt(now time.Time) bool {
	from, err1 := time.Parse(time.RFC3339, c.ValidFrom)
	until, err2 := time.Parse(time.RFC3339, c.Expires)
	return err1 == nil && err2 == nil && !now.Before(from) && now.Before(until)
}

// ConnectionTable is the open connections of the node's captured pods, from
// the view of each pod.
func ConnectionTable(d *Dump, f Filter) Table {
	t := Table{Header: []string{"WORKLOAD", "DIRECTION", "LOCAL", "REMOTE", "REMOTE TARGET", "PROTOCOL", "PEER", "REASON"}}
	for _, s := range d.WorkloadState {
		if !keep(f.Namespace, s.Info.Namespace) {
			continue
		}
		name := s.Info.Namespace + "/" + s.Info.Name
		if keep(f.Direction, "inbound") {
			for _, c := range s.Connections.Inbound {
				t.Rows = append(t.Rows, []string{name, "Inbound", c.ActualDst, c.Src, c.OriginalDst, c.Protocol, c.Peer, c.Reason})
			}
		}
		if keep(f.Direction, "outbound") {
			for _, c := range s.Connections.Outbound {
				t.Rows = append(t.Rows, []string{name, "Outbound", c.Src, c.ActualDst, c.OriginalDst, c.Protocol, c.Peer, c.Reason})
			}
		}
	}
	return t.sorted()
}

// Merge puts the rows of several proxies into one table, each row once.
func Merge(tables ...Table) Table {
	var all Table
	seen := map[string]bool{}
	for _, t := range tables {
		all.Header = t.Header
		for _, row := range t.Rows {
			if key := strings.Join(row, "\x00"); !seen[key] {
				seen[key] = true
				all.Rows = append(all.Rows, row)
			}
		}
	}
	return all
}

func keep(want, got string) bool { return want == "" || want == got }

func (w *Destination) text() string {
	if w == nil {
		return ""
	}
	return w.Destination
}

// addresses are the VIPs without the network that precedes them.
func (s Service) addresses() []string {
	var out []string
	for _, vip := range s.VIPs {
		_, address, ok := strings.Cut(vip, "/")
		if !ok {
			address = vip
		}
		out = append(out, address)
	}
	return out
}

func (t Table) sorted() Table {
	slices.SortFunc(t.Rows, slices.Compare[[]string])
	return t
}
