package cluster

import (
	"fmt"
	"net/netip"
	"regexp"
)

// Family is which IP families a cluster speaks.
type Family string

// The families, named as kind names them.
const (
	IPv4 Family = "ipv4"
	IPv6 Family = "ipv6"
	Dual Family = "dual" // IPv4 first
)

// ParseFamily reads the name of a family.
func ParseFamily(s string) (Family, error) {
	switch f := Family(s); f {
	case IPv4, IPv6, Dual:
		return f, nil
	}
	return "", fmt.Errorf("ip family %q: want ipv4, ipv6 or dual", s)
}

func (f Family) has4() bool { return f != IPv6 }
func (f Family) has6() bool { return f != IPv4 }

// maxClusters is how many clusters fit the address ranges, side by side.
const maxClusters = 16

// maxNodes is how many nodes fit one cluster.
const maxNodes = 99

var nameForm = regexp.MustCompile(`^[a-z][a-z0-9-]{0,19}$`)

// CheckName says whether a cluster may have this name.
func CheckName(name string) error {
	if !nameForm.MatchString(name) {
		return fmt.Errorf("cluster name %q: want a letter, then up to 19 letters, digits and dashes, all lower case", name)
	}
	return nil
}

// plan is every address and name of a cluster; it follows from name, family
// and index alone, so two clusters with different indexes never meet.
type plan struct {
	name   string
	index  int
	family Family
}

// prefixes returns, in the order of the cluster's families, what v4 and v6 say.
func (p plan) prefixes(v4, v6 string) []netip.Prefix {
	var out []netip.Prefix
	if p.family.has4() {
		out = append(out, netip.MustParsePrefix(v4))
	}
	if p.family.has6() {
		out = append(out, netip.MustParsePrefix(v6))
	}
	return out
}

// lan is the range of the machines' own addresses.
func (p plan) lan() []netip.Prefix {
	return p.prefixes(fmt.Sprintf("10.231.%d.0/24", p.index), fmt.Sprintf("fd7a:ab17:%x:1::/64", p.index))
}

// pods is the range of all pods' addresses.
func (p plan) pods() []netip.Prefix {
	return p.prefixes(fmt.Sprintf("10.%d.0.0/16", 208+p.index), fmt.Sprintf("fd7a:ab17:%x:100::/56", p.index))
}

// services is the range of ClusterIPs.
func (p plan) services() []netip.Prefix {
	return p.prefixes(fmt.Sprintf("10.230.%d.0/20", 16*p.index), fmt.Sprintf("fd7a:ab17:%x:2::/112", p.index))
}

// ranges is everything the cluster occupies.
func (p plan) ranges() []netip.Prefix {
	return append(append(p.lan(), p.pods()...), p.services()...)
}

// podsOf is the range of the pods on one node.
func (p plan) podsOf(number int) []netip.Prefix {
	return p.prefixes(fmt.Sprintf("10.%d.%d.0/24", 208+p.index, number),
		fmt.Sprintf("fd7a:ab17:%x:%x::/64", p.index, 0x100+number))
}

// Host numbers on the LAN.
const (
	hostNumber    = 1
	controlNumber = 2
	firstNode     = 10 // node1 is 11
)

// onLAN returns the addresses, with the LAN's prefix length, of one host number.
func (p plan) onLAN(number int) []netip.Prefix {
	return p.prefixes(fmt.Sprintf("10.231.%d.%d/24", p.index, number),
		fmt.Sprintf("fd7a:ab17:%x:1::%x/64", p.index, number))
}

func (p plan) control() netip.Addr { return p.onLAN(controlNumber)[0].Addr() }

// nodeAddrs are a node's addresses, main family first.
func (p plan) nodeAddrs(number int) []netip.Addr {
	return addrs(p.onLAN(firstNode + number))
}

// serviceAddr is the nth address of the main service range: the API server's is the first.
func (p plan) serviceAddr(n int) netip.Addr {
	a := p.services()[0].Addr()
	for range n {
		a = a.Next()
	}
	return a
}

// dnsAddr is the address of the cluster's DNS service.
func (p plan) dnsAddr() netip.Addr { return p.serviceAddr(10) }

// mac is a machine's hardware address: the same after a reboot, so that
// neighbours need not learn it again.
func (p plan) mac(number int) string {
	return fmt.Sprintf("02:ab:17:%02x:00:%02x", p.index, number)
}

func (p plan) hostInterface() string       { return fmt.Sprintf("ambit%d", p.index) }
func (p plan) netns(machine string) string { return "ambit-" + p.name + "-" + machine }
func (p plan) lanNetns() string            { return p.netns("lan") }
func (p plan) cgroup() string              { return cgroupParent + "/" + p.name }
func (p plan) cgroupOf(m string) string    { return p.cgroup() + "/" + m }
func (p plan) server() string              { return "https://" + netip.AddrPortFrom(p.control(), 6443).String() }

// conflict returns the first of the cluster's ranges that overlaps one of used.
func (p plan) conflict(used []netip.Prefix) (own, other netip.Prefix, clash bool) {
	for _, o := range p.ranges() {
		for _, u := range used {
			if u.Bits() > 0 && o.Overlaps(u) {
				return o, u, true
			}
		}
	}
	return own, other, false
}

func addrs(in []netip.Prefix) []netip.Addr {
	out := make([]netip.Addr, len(in))
	for i, p := range in {
		out[i] = p.Addr()
	}
	return out
}
