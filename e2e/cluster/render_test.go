package cluster

import (
	"encoding/json"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/yaml"
)

func TestNetworkConfigurationOfANodeNamesItsRanges(t *testing.T) {
	for family, want := range map[Family][]string{
		IPv4: {"10.211.2.0/24"},
		IPv6: {"fd7a:ab17:3:102::/64"},
		Dual: {"10.211.2.0/24", "fd7a:ab17:3:102::/64"},
	} {
		content, err := cniConfig(plan{"x", 3, family}, node{"node2", 2})
		if err != nil {
			t.Fatal(err)
		}
		var conf struct {
			Plugins []struct {
				Type string
				IPAM struct {
					Ranges [][]struct{ Subnet string }
					Routes []struct{ Dst netip.Prefix }
				}
			}
		}
		if err := json.Unmarshal([]byte(content), &conf); err != nil {
			t.Fatalf("%s: %v in\n%s", family, err, content)
		}
		var got []string
		for _, r := range conf.Plugins[0].IPAM.Ranges {
			got = append(got, r[0].Subnet)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: %s", family, diff)
		}
		if routes := conf.Plugins[0].IPAM.Routes; len(routes) != len(want) || routes[0].Dst.Bits() != 0 {
			t.Errorf("%s: default routes are %v", family, routes)
		}
	}
}

func TestEveryFileOfAMachineIsWellFormed(t *testing.T) {
	ca := newCA(t)
	for _, family := range []Family{IPv4, IPv6, Dual} {
		p := plan{"x", 3, family}
		files, err := workerFiles(p, ca, node{"node1", 1}, "overlayfs")
		if err != nil {
			t.Fatal(err)
		}
		control, err := controlFiles(p, ca)
		if err != nil {
			t.Fatal(err)
		}
		for path, f := range control {
			files[path] = f
		}
		for path, f := range files {
			if strings.HasSuffix(path, ".key") && f.Mode != 0o600 {
				t.Errorf("%s has mode %o, so everybody reads it", path, f.Mode)
			}
			if !strings.HasSuffix(path, ".yaml") && !strings.HasSuffix(path, ".kubeconfig") {
				continue
			}
			var any map[string]any
			if err := yaml.UnmarshalStrict([]byte(f.Content), &any); err != nil || any["kind"] == nil {
				t.Errorf("%s %s: %v in\n%s", family, path, err, f.Content)
			}
		}
	}
}

func TestProxyListensOnAnAddressThatItUnderstands(t *testing.T) {
	for family, want := range map[Family]string{IPv4: "0.0.0.0:10256", IPv6: "[::]:10256", Dual: "0.0.0.0:10256"} {
		content, err := render("kube-proxy.yaml", plan{"x", 0, family}.facts("node1"))
		if err != nil {
			t.Fatal(err)
		}
		var conf struct{ HealthzBindAddress string }
		if err := yaml.Unmarshal([]byte(content), &conf); err != nil {
			t.Fatal(err)
		}
		if conf.HealthzBindAddress != want {
			t.Errorf("%s: %s, want %s", family, conf.HealthzBindAddress, want)
		}
		if _, err := netip.ParseAddrPort(conf.HealthzBindAddress); err != nil {
			t.Errorf("%s: %v", family, err)
		}
	}
}

func TestDNSManifestIsWellFormed(t *testing.T) {
	f := plan{"x", 0, Dual}.facts(controlName)
	f.Replicas = 2
	manifest, err := render("coredns.yaml", f)
	if err != nil {
		t.Fatal(err)
	}
	kinds := map[string]int{}
	for doc := range strings.SplitSeq(manifest, "\n---\n") {
		var obj struct{ Kind string }
		if err := yaml.Unmarshal([]byte(doc), &obj); err != nil {
			t.Fatalf("%v in\n%s", err, doc)
		}
		kinds[obj.Kind]++
	}
	want := map[string]int{"ServiceAccount": 1, "ClusterRole": 1, "ClusterRoleBinding": 1, "ConfigMap": 1, "Deployment": 1, "Service": 1}
	if diff := cmp.Diff(want, kinds); diff != "" {
		t.Error(diff)
	}
	if !strings.Contains(manifest, "clusterIP: "+f.DNS.String()) {
		t.Error("the service has not the address that kubelets are told")
	}
}
