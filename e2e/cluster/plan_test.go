package cluster

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestAddressesFollowFromNameFamilyAndIndex(t *testing.T) {
	type row struct{ LAN, Pods, Node3, Services, API, DNS, Node string }
	for name, c := range map[string]struct {
		plan plan
		want row
	}{
		"the first IPv4 cluster": {plan{"a", 0, IPv4}, row{
			"10.231.0.0/24", "10.208.0.0/16", "10.208.3.0/24", "10.230.0.0/20", "10.230.0.1", "10.230.0.10", "10.231.0.13",
		}},
		"the last IPv6 cluster": {plan{"a", 15, IPv6}, row{
			"fd7a:ab17:f:1::/64", "fd7a:ab17:f:100::/56", "fd7a:ab17:f:103::/64", "fd7a:ab17:f:2::/112", "fd7a:ab17:f:2::1", "fd7a:ab17:f:2::a", "fd7a:ab17:f:1::d",
		}},
		"a dual-stack cluster speaks IPv4 first": {plan{"a", 1, Dual}, row{
			"10.231.1.0/24,fd7a:ab17:1:1::/64", "10.209.0.0/16,fd7a:ab17:1:100::/56", "10.209.3.0/24,fd7a:ab17:1:103::/64",
			"10.230.16.0/20,fd7a:ab17:1:2::/112", "10.230.16.1", "10.230.16.10", "10.231.1.13,fd7a:ab17:1:1::d",
		}},
	} {
		t.Run(name, func(t *testing.T) {
			p := c.plan
			got := row{
				joined(p.lan()), joined(p.pods()), joined(p.podsOf(3)), joined(p.services()),
				p.serviceAddr(1).String(), p.dnsAddr().String(), joined(p.nodeAddrs(3)),
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestNoTwoRangesOfAnyTwoClustersMeet(t *testing.T) {
	var all []netip.Prefix
	for i := range maxClusters {
		all = append(all, plan{"x", i, Dual}.ranges()...)
	}
	for i, a := range all {
		for _, b := range all[i+1:] {
			if a.Overlaps(b) {
				t.Errorf("%s overlaps %s", a, b)
			}
		}
	}
}

func TestEveryNodeLiesInItsClustersRanges(t *testing.T) {
	p := plan{"x", 15, Dual}
	for n := 1; n <= maxNodes; n++ {
		for i, pods := range p.podsOf(n) {
			if !p.pods()[i].Contains(pods.Addr()) || !p.lan()[i].Contains(p.nodeAddrs(n)[i]) {
				t.Errorf("node %d: pods %s or address %s is outside", n, pods, p.nodeAddrs(n)[i])
			}
		}
	}
}

func TestIndexAvoidsOtherClustersAndTheHostsRoutes(t *testing.T) {
	full := map[int]string{}
	for i := range maxClusters {
		full[i] = "other"
	}
	for name, c := range map[string]struct {
		taken map[int]string
		used  []string
		want  int
		err   string
	}{
		"the first one gets the first range":            {nil, nil, 0, ""},
		"ranges of other clusters are left out":         {map[int]string{0: "a", 1: "b"}, nil, 2, ""},
		"a hole is filled":                              {map[int]string{0: "a", 2: "b"}, nil, 1, ""},
		"a default route is no conflict":                {nil, []string{"0.0.0.0/0", "::/0"}, 0, ""},
		"a route inside a range is a conflict":          {nil, []string{"10.208.7.0/24"}, 1, ""},
		"a route around a range is a conflict":          {nil, []string{"10.208.0.0/14"}, 4, ""},
		"IPv6 counts":                                   {nil, []string{"fd7a:ab17:0:1::/64"}, 1, ""},
		"when all is taken the error says what to free": {full, nil, 0, "cluster list"},
		"a network that has everything is named":        {nil, []string{"10.0.0.0/8"}, 0, "10.0.0.0/8"},
	} {
		t.Run(name, func(t *testing.T) {
			var used []netip.Prefix
			for _, u := range c.used {
				used = append(used, netip.MustParsePrefix(u))
			}
			got, err := chooseIndex("x", c.taken, used)
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) {
					t.Fatalf("got error %v, want one with %q", err, c.err)
				}
				return
			}
			if err != nil || got != c.want {
				t.Errorf("got %d, %v; want %d", got, err, c.want)
			}
		})
	}
}

func TestNamesOfClusters(t *testing.T) {
	for name, good := range map[string]bool{
		"demo": true, "a-test": true, "x1": true,
		"": false, "1a": false, "A": false, "a_b": false, "../x": false, "a.b": false, "abcdefghijklmnopqrstu": false,
	} {
		if err := CheckName(name); (err == nil) != good {
			t.Errorf("%q: %v", name, err)
		}
	}
}
