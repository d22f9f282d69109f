package inpod_test

import (
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/ambit-mesh/ambit/internal/hbone"
	"github.com/ambit-mesh/ambit/internal/linux/linuxtest"
	"github.com/ambit-mesh/ambit/internal/mesh"
)

// transportsEnv says what the pods of these tests accept: "h3" for all, "mixed"
// for those of the first node, the others having HTTP/2 alone. Nothing is nothing.
const transportsEnv = "INPOD_TRANSPORTS"

func transportOn(n *node) mesh.Transport {
	switch mode := os.Getenv(transportsEnv); {
	case mode == "h3", mode == "mixed" && n.n == 1:
		return mesh.TransportH3
	case mode == "mixed":
		return mesh.TransportH2
	}
	return mesh.TransportAuto
}

// modes are what is run again in each of them: what holds whatever carries
// tunnels, but for what takes long.
var modes = []struct{ mode, tests string }{
	{"h3", "TestConnectionsBetweenPods|TestAPodReachesItself|TestAPodWithoutIPv6IsServed|TestWhateverTheApplicationsDo|TestEnrolmentAndReleaseUnderLoadLoseNothing|" +
		"TestAReplacedZtunnelLosesNothing|TestAZtunnelThatEndsLetsConnectionsFinishUntilItsDeadline|TestServingGoesOnWithoutAgentAndControlPlane|" +
		"TestAPodThatIsTornDownLeavesNothingBehind|TestShortLivedCertificatesAreRenewedUnderLoad|TestPoliciesDecideWhoMayConnect|TestOpenConnectionsAreJudgedAgain|" +
		"TestPeersThatAreNotWhoTheySayAreRefused|TestRegistryOnlyClosesWhatTheMeshDoesNotKnow|TestATunnelledConnectionIsASpanAtEachEnd|TestAPodWhoseNetworkNamespaceVanishesIsLetGoOf"},
	{"mixed", "TestConnectionsBetweenPods|TestWhateverTheApplicationsDo|TestAReplacedZtunnelLosesNothing|TestShortLivedCertificatesAreRenewedUnderLoad|TestPoliciesDecideWhoMayConnect"},
}

// TestTheSameOverHTTP3 runs tests again, in a process of their own: with all pods
// on HTTP/3, and with those of one node while the other has HTTP/2 only.
func TestTheSameOverHTTP3(t *testing.T) {
	needsRoot(t)
	if os.Getenv(transportsEnv) != "" {
		t.Skip("this is the process of their own")
	}
	for _, m := range modes {
		// Megabytes through QUIC take the race detector a minute; e2e/suite sends them.
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^("+m.tests+")$", "-test.skip=/./megabytes", "-test.timeout=5m")
		cmd.Env = append(os.Environ(), transportsEnv+"="+m.mode)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", m.mode, err, out)
		}
	}
}

var madeOver = regexp.MustCompile(`(?m)^(ambit_tunnels_made_total\{transport="(h2|h3)"\}|ambit_http3_blocked_total) (\d+)$`)

// made is how many tunnels a ztunnel made over each transport, and how often it
// found HTTP/3 blocked.
func (z *runningZtunnel) made(t *testing.T) (h2, h3, blocked int) {
	t.Helper()
	r, err := http.Get(z.metrics)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	text, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	all := madeOver.FindAllSubmatch(text, -1)
	if len(all) != 3 {
		t.Fatalf("the metrics tell %d of 3 figures", len(all))
	}
	for _, m := range all {
		n, err := strconv.Atoi(string(m[3]))
		if err != nil {
			t.Fatal(err)
		}
		switch string(m[2]) {
		case "h2":
			h2 = n
		case "h3":
			h3 = n
		default:
			blocked = n
		}
	}
	return h2, h3, blocked
}

// mustCall is a connection that is answered.
func (p *pod) mustCall(t *testing.T, to netip.AddrPort) {
	t.Helper()
	if _, err := p.call(to); err != nil {
		t.Fatal(err)
	}
}

// accepts waits until the pod's proxy listens for HTTP/3.
func (p *pod) accepts(t *testing.T) {
	t.Helper()
	port := fmt.Sprintf(":%04X ", hbone.Port)
	eventually(t, func() error {
		for _, file := range []string{"udp", "udp6"} {
			var text []byte
			if err := p.ns.Do(func() (err error) { text, err = os.ReadFile("/proc/thread-self/net/" + file); return err }); err != nil {
				return err
			}
			if !strings.Contains(string(text), port) {
				return fmt.Errorf("nobody listens at UDP %d in %s: %s", hbone.Port, p.name, text)
			}
		}
		return nil
	})
}

// TestOverWhatTunnelsAreMade: what the destination accepts, unless the client
// refuses it.
func TestOverWhatTunnelsAreMade(t *testing.T) {
	needsRoot(t)
	w := newWorld(t, "n1", "n2")
	server := w.newPod(w.nodes[1], "server").enrolled()
	server.echo(8080)
	for _, tt := range []struct{ client, server, want string }{
		{"auto", "auto", "h2"}, {"h3", "auto", "h2"}, {"auto", "h2", "h2"}, {"h3", "h2", "h2"}, {"h2", "h3", "h2"},
		{"auto", "h3", "h3"}, {"h3", "h3", "h3"},
	} {
		is := func(name string) func(*mesh.Workload) {
			t, _ := mesh.ParseTransport(name)
			return func(x *mesh.Workload) { x.Settings.Transport = t }
		}
		server.edit(is(tt.server))
		client := w.newPod(w.nodes[0], fmt.Sprintf("%s-to-%s", tt.client, tt.server)).enrolled()
		client.edit(is(tt.client))
		w.settle()
		if tt.server == "h3" {
			server.accepts(t)
		}
		h2, h3, _ := w.nodes[0].ztunnels[0].made(t)
		client.mustCall(t, server.at(8080))
		client.mustCall(t, server.at6(8080))
		now2, now3, blocked := w.nodes[0].ztunnels[0].made(t)
		got := map[bool]string{now2-h2 == 2 && now3 == h3: "h2", now3-h3 == 2 && now2 == h2: "h3"}[true]
		if got != tt.want || blocked != 0 {
			t.Errorf("%s to %s: %d tunnels over HTTP/2 and %d over HTTP/3, blocked %d times, want two over %s", tt.client, tt.server, now2-h2, now3-h3, blocked, tt.want)
		}
	}
}

// TestHTTP3IsBlockedInTheMiddleOfTraffic: connections that come go over HTTP/2,
// none fails, and it is known of the address from then on.
func TestHTTP3IsBlockedInTheMiddleOfTraffic(t *testing.T) {
	needsRoot(t)
	w := newWorld(t, "n1", "n2")
	client, server := w.newPod(w.nodes[0], "client").enrolled(), w.newPod(w.nodes[1], "server").enrolled()
	server.echo(8080)
	server.edit(func(x *mesh.Workload) { x.Settings.Transport = mesh.TransportH3 })
	w.settle()
	server.accepts(t)
	for range 20 {
		client.mustCall(t, server.at(8080))
	}
	if h2, h3, _ := w.nodes[0].ztunnels[0].made(t); h2 != 0 || h3 != 1 {
		t.Fatalf("%d tunnels over HTTP/2, %d over HTTP/3, want one over HTTP/3", h2, h3)
	}
	linuxtest.Run(t, w.nodes[1].ns, "nft", "-f", "-", "table inet firewall { chain f { type filter hook forward priority 0; udp dport 15008 drop; udp sport 15008 drop; }; }")
	began := time.Now()
	for range 20 {
		client.mustCall(t, server.at(8080))
	}
	t.Logf("20 connections one after another took %v", time.Since(began))
	if h2, _, blocked := w.nodes[0].ztunnels[0].made(t); h2 != 1 || blocked != 1 {
		t.Errorf("%d tunnels over HTTP/2 after HTTP/3 was found blocked %d times, want one of each", h2, blocked)
	}
}
