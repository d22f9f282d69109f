package scenario

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/internal/view"
	"github.com/ambit-mesh/ambit/ztunnel/route"
)

// connection is the part of a line of decide.txt before the arrow.
type connection struct {
	text string
	// pod is "namespace/name", or empty if from is set.
	pod  string
	from netip.Addr
	to   netip.AddrPort
}

func parseConnection(text string) (connection, error) {
	c := connection{text: strings.TrimSpace(text)}
	w := strings.Fields(text)
	if len(w) != 4 || w[0] != "from" || w[2] != "to" {
		return c, fmt.Errorf("%q: want from A to B", text)
	}
	var err error
	if c.to, err = netip.ParseAddrPort(w[3]); err != nil {
		return c, fmt.Errorf("%q: %w", text, err)
	}
	if c.from, err = netip.ParseAddr(w[1]); err == nil {
		return c, nil
	}
	c.pod = w[1]
	return c, nil
}

// answered is a file with every line answered, as "QUESTION -> ANSWER"; comments and
// empty lines stay.
func answered(text string, answer func(question string) (string, error)) (string, error) {
	var b strings.Builder
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\n")
		if line == "" || strings.HasPrefix(line, "#") {
			fmt.Fprintln(&b, line)
			continue
		}
		question, _, _ := strings.Cut(line, "->")
		question = strings.TrimSpace(question)
		a, err := answer(question)
		if err != nil {
			return "", err
		}
		fmt.Fprintf(&b, "%s -> %s\n", question, a)
	}
	return b.String(), nil
}

// decideFile answers every line of a decide.txt.
func decideFile(v *view.View, text string) (string, error) {
	return answered(text, func(question string) (string, error) {
		c, err := parseConnection(question)
		if err != nil {
			return "", err
		}
		fates, err := decide(v, c)
		return strings.Join(texts(fates), "\n\t| "), err
	})
}

// fate is one thing that may happen to a connection.
type fate struct {
	text string
	// open is whether the application at the other end sees it.
	open bool
}

func texts(fates []fate) []string {
	var out []string
	for _, f := range fates {
		out = append(out, f.text)
	}
	return out
}

// decide follows a connection to its end, once for every outcome of chance.
func decide(v *view.View, c connection) ([]fate, error) {
	if c.from.IsValid() {
		return []fate{arrive(v, nil, c.from, c.to, "plain "+c.to.String())}, nil
	}
	src, err := podNamed(v, c.pod)
	if err != nil {
		return nil, err
	}
	if src == nil {
		return []fate{{text: "refuse: " + c.pod + " is not known"}}, nil
	}
	if src.Tunnel != mesh.TunnelHBONE { // not captured: it goes where it says
		return []fate{arrive(v, nil, src.Addresses[0], c.to, "plain "+c.to.String())}, nil
	}
	var out []fate
	seen := map[string]bool{}
	for chance, n := 0, 1; chance < n; chance++ {
		d := route.Outbound(v, src, c.to, func(of int) int { n = max(n, of); return min(chance, of-1) }, nil)
		f := follow(v, src, d)
		if !seen[f.text] {
			seen[f.text] = true
			out = append(out, f)
		}
	}
	return out, nil
}

// follow takes an outbound decision to the other end.
func follow(v *view.View, src *mesh.Workload, d route.OutboundDecision) fate {
	switch d.Kind {
	case route.Passthrough:
		return fate{"passthrough " + d.Dial.String() + ": " + d.Reason, true}
	case route.Plain:
		if d.Host != "" {
			return fate{"plain " + d.At() + ": " + d.Reason, true}
		}
		return arrive(v, d.Workload, sourceOf(src, d.Dial), d.Dial, "plain "+d.Dial.String())
	case route.HBONE:
		var ids []string
		for _, id := range d.Accept {
			ids = append(ids, id.String())
		}
		as := fmt.Sprintf("hbone %s %s as %s", name(d.Workload), d.Authority, strings.Join(ids, " or "))
		if d.Waypoint {
			return fate{"waypoint " + as, true}
		}
		if d.Accept[0] != d.Workload.Identity() {
			return fate{text: as + ": the peer is not " + d.Accept[0].String()}
		}
		request := route.InboundRequest{Authority: d.Authority, ConnDst: d.Dial, Source: src.Identity(), SourceIP: sourceOf(src, d.Dial)}
		if d.Service != nil {
			request.Host = d.Service.Hostname
		}
		in := route.Inbound(v, d.Workload, request)
		return verdict(as, in)
	case route.Refuse:
	}
	return fate{text: "refuse: " + d.Reason}
}

// arrive is a plaintext connection at its destination. Only a pod whose
// connections are captured asks policy.
func arrive(v *view.View, w *mesh.Workload, from netip.Addr, to netip.AddrPort, as string) fate {
	if w == nil {
		w = v.WorkloadByAddress("", to.Addr())
	}
	if w == nil {
		return fate{as + ": nothing of the mesh is there", true}
	}
	as = fmt.Sprintf("plain %s %s", name(w), to)
	if w.Tunnel != mesh.TunnelHBONE || w.NativeTunnel {
		return fate{as + ": its connections are not captured", true}
	}
	return verdict(as, route.Inbound(v, w, route.InboundRequest{ConnDst: to, SourceIP: from}))
}

func verdict(as string, in route.InboundDecision) fate {
	text := fmt.Sprintf("%s: %d %s", as, in.Status, in.Reason)
	if in.Service != nil {
		as += " of " + in.Service.Name
		text = fmt.Sprintf("%s: %d %s", as, in.Status, in.Reason)
	}
	for _, r := range in.Verdict.DryRun {
		text += fmt.Sprintf(" (dry run %s would %s)", r.Policy, map[bool]string{true: "allow", false: "deny"}[r.Allow])
	}
	return fate{text, in.Status == 200}
}

func name(w *mesh.Workload) string { return w.Namespace + "/" + w.Name }

// sourceOf is the address of the same family as the one dialled.
func sourceOf(src *mesh.Workload, to netip.AddrPort) netip.Addr {
	for _, a := range src.Addresses {
		if a.Is4() == to.Addr().Is4() {
			return a
		}
	}
	return src.Addresses[0]
}

func podNamed(v *view.View, pod string) (*mesh.Workload, error) {
	ns, n, ok := strings.Cut(pod, "/")
	if !ok {
		return nil, fmt.Errorf("%q is neither namespace/pod nor an address", pod)
	}
	for _, w := range v.Workloads() {
		if w.Namespace == ns && w.Name == n {
			return w, nil
		}
	}
	return nil, nil
}
