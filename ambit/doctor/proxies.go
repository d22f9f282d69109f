package doctor

import (
	"cmp"
	"fmt"
	"strings"

	"github.com/ambit-mesh/ambit/internal/health"
)

// judgeProxies tells what node proxies and waypoints know, and who is silent.
func judgeProxies(f Facts) []Finding {
	var all []Finding
	for _, p := range f.Planes {
		if p.Why != "" {
			all = append(all, Finding{Fail, "istiod", "could not ask " + p.Pod + ": " + p.Why, "kubectl -n istio-system logs " + short(p.Pod)})
		}
	}
	for _, p := range f.Proxies {
		check := p.Kind + " " + p.Heard.Pod
		if p.Kind == "ztunnel" {
			check = "ztunnel on " + p.Heard.Node
		}
		if p.Why != "" {
			all = append(all, Finding{Fail, check, "could not be asked: " + p.Why, "kubectl -n " + strings.Replace(p.Heard.Pod, "/", " logs ", 1)})
			continue
		}
		if c := p.ControlPlane; c.Address != "" && !c.Connected && p.refusal() == "" {
			all = append(all, Finding{Fail, check, "is not connected to the control plane and serves what it had: " + cmp.Or(c.Error, "no attempt has ended yet"), "see that istiod runs and that its Service is reached from the node: port 15012"})
		}
		all = append(all, judgeCertificates(check, &p)...)
		for _, u := range p.Unserved {
			all = append(all, judgeUnserved(p.Heard.Node, u))
		}
	}
	return all
}

func judgeCertificates(check string, p *Proxy) []Finding {
	var without []string
	var reason string
	for _, i := range p.Identities {
		if i.State != "Available" && i.Error != "" {
			without, reason = append(without, i.ID), i.Error
		}
	}
	if len(without) == 0 || p.refusal() != "" {
		return nil
	}
	return []Finding{{Fail, check, fmt.Sprintf("has no certificate for %s: %s", shorten(without), reason), "istiod's log says why it does not sign: kubectl -n istio-system logs -l app=istiod"}}
}

// dnsPort is where ztunnel answers the pods' DNS.
const dnsPort = "15053"

func judgeUnserved(node string, u health.Unserved) Finding {
	if strings.Contains(u.Error, dnsPort) {
		return Finding{Fail, "DNS proxy of " + u.Pod, "cannot listen: " + u.Error, "a program of the pod has port " + dnsPort + ": give it another, or take the pod out of DNS capture (annotation ambient.istio.io/dns-capture: \"false\")"}
	}
	return Finding{Fail, "pod " + u.Pod, "is not served by ztunnel on " + node + ": " + u.Error, "a program of the pod may have one of the ports 15001, 15006 and 15008; kubectl -n istio-system logs -l app=ztunnel"}
}

// judgeReach tells between which nodes no tunnel is made.
func judgeReach(f Facts) []Finding {
	var all []Finding
	for _, p := range f.Proxies {
		for _, r := range p.Reach {
			check := fmt.Sprintf("tunnel %s → %s", p.Heard.Node, r.Node)
			switch {
			case r.Error == "":
				all = append(all, ok(check, "made, from "+r.From+" to "+r.To))
			case r.Silent:
				all = append(all, Finding{Fail, check, fmt.Sprintf("port 15008 is blocked: nothing comes back from %s (%s to %s)", r.Address, r.From, r.To), "let TCP port 15008 pass between the nodes' pods: firewalls, security groups, and NetworkPolicies of both pods"})
			default:
				all = append(all, Finding{Fail, check, fmt.Sprintf("cannot be made from %s to %s at %s: %s", r.From, r.To, r.Address, r.Error), "compare the roots and clocks of both nodes above; kubectl -n istio-system logs -l app=ztunnel"})
			}
		}
	}
	return all
}
