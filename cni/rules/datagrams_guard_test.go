package rules_test

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/ambit-mesh/ambit/cni/netnstest"
	"github.com/ambit-mesh/ambit/cni/rules"
	"github.com/ambit-mesh/ambit/internal/linux"
)

// TestWhileARuleIsMissingNoDatagramPassesInClear does one damage after another
// and sends in each direction before it is mended. What is sent meanwhile may be
// lost, as datagrams may, or be carried by ztunnel; afterwards all is as before,
// for the same sockets.
func TestWhileARuleIsMissingNoDatagramPassesInClear(t *testing.T) {
	spec := rules.Spec{UDP: true}
	any := netnstest.New(t)
	apply(t, any, spec)
	for _, d := range slices.Concat(ruleDamages(t, any, rules.TableName), otherDamages(), datagramDamages()) {
		t.Run(d.what, func(t *testing.T) {
			t.Parallel()
			w := silent(t)
			programs := []*inClear{echo(t, w.pod.NS, 8080, "pod"), echo(t, w.peer.NS, 8080, "peer")}
			carry(t, w.pod.NS)
			apply(t, w.pod.NS, spec)
			type flow struct {
				c    *net.UDPConn
				want string
			}
			var flows []flow
			for _, f := range []struct{ pod, peer netip.Addr }{{w.pod.V4, w.peer.V4}, {w.pod.V6, w.peer.V6}} {
				flows = append(flows,
					flow{socket(t, w.pod.NS, at(f.peer, 8080), 0), fmt.Sprintf("by 15001 peer %s: ", f.pod)},
					flow{socket(t, w.peer.NS, at(f.pod, 8080), 0), fmt.Sprintf("by 15006 pod %s: ", f.peer)})
			}
			for _, f := range flows {
				if got := query(f.c, "before"); got != f.want+"before" {
					t.Fatalf("before: answer %q, want %q", got, f.want)
				}
			}
			hurt(t, w.pod.NS, d)
			for _, f := range flows {
				f.c.Write([]byte("meanwhile"))
			}
			if err := rules.Apply(w.pod.NS, spec); err != nil {
				t.Fatal(err)
			}
			for _, f := range flows {
				got := query(f.c, "after")
				if got == f.want+"meanwhile" {
					got = next(f.c)
				}
				if got != f.want+"after" {
					t.Errorf("after: answer %q, want %q", got, f.want)
				}
			}
			// What went in clear came before what was asked for after it.
			for _, c := range programs {
				if heard := c.all(); len(heard) > 0 {
					t.Errorf("heard in clear: %q", heard)
				}
			}
		})
	}
}

// next is the next answer.
func next(c *net.UDPConn) string {
	buf := make([]byte, 512)
	c.SetReadDeadline(time.Now().Add(netnstest.Patience))
	n, err := c.Read(buf)
	if err != nil {
		return err.Error()
	}
	return string(buf[:n])
}

// TestWithoutZtunnelNoDatagramPasses: what is captured and has nobody to take it
// is nobody else's, not even a program's that has the same port as whom it was
// for.
func TestWithoutZtunnelNoDatagramPasses(t *testing.T) {
	for _, spec := range []rules.Spec{{UDP: true}, {UDP: true, BypassInbound: true}} {
		w := silent(t)
		pod, peer := echo(t, w.pod.NS, 8080, "pod"), echo(t, w.peer.NS, 8080, "peer")
		apply(t, w.pod.NS, spec)
		for _, f := range []struct{ pod, peer, loopback netip.Addr }{{w.pod.V4, w.peer.V4, loopback4}, {w.pod.V6, w.peer.V6, loopback6}} {
			socket(t, w.pod.NS, at(f.peer, 8080), 0).Write([]byte("captured"))
			socket(t, w.peer.NS, at(f.pod, 8080), 0).Write([]byte("captured"))
			// What comes by the same ways afterwards has come.
			query(socket(t, w.pod.NS, at(f.peer, 8080), linux.Mark), "last")
			query(socket(t, w.pod.NS, at(f.loopback, 8080), 0), "last")
		}
		for name, heard := range map[string][]string{"pod": pod.all(), "peer": peer.all()} {
			want := 2 // the last, of each family
			if name == "pod" && spec.BypassInbound {
				want += 2
			}
			if len(heard) != want {
				t.Errorf("%+v: %s heard %q", spec, name, heard)
			}
		}
	}
}

// TestNobodyOutsideIsToldWhatReachedNoProgram: the kernel's message that nobody
// has a port quotes what was sent there. ztunnel may have had that by a tunnel,
// and the message would go to the network.
func TestNobodyOutsideIsToldWhatReachedNoProgram(t *testing.T) {
	w := exchanging(t)
	answers, err := linux.NewAnswers(t.Context(), w.pod.NS)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { answers.Close() })
	for _, mode := range []struct {
		what string
		spec rules.Spec
		told int
	}{
		{"datagrams are captured", rules.Spec{UDP: true}, 0},
		{"of a gateway as well", rules.Spec{UDP: true, BypassInbound: true}, 0},
		{"not captured: the test sees it", rules.Spec{}, 2},
	} {
		apply(t, w.pod.NS, mode.spec)
		before := unreachables(t, w.peer.NS)
		for _, f := range []struct{ pod, peer netip.Addr }{{w.pod.V4, w.peer.V4}, {w.pod.V6, w.peer.V6}} {
			c := socket(t, w.pod.NS, at(f.peer, 8080), 0)
			query(c, "hi")
			gone := c.LocalAddr().(*net.UDPAddr).AddrPort()
			c.Close()
			if err := answers.Send([]byte("secret"), at(f.peer, 8080), gone); err != nil {
				t.Fatal(err)
			}
			says(t, w.pod.NS, at(f.peer, 8080), "last")
		}
		if told := unreachables(t, w.peer.NS) - before; told != mode.told {
			t.Errorf("%s: the peer was told %d times, want %d", mode.what, told, mode.told)
		}
	}
}

var unreachable = regexp.MustCompile(`(?m)^Icmp6InDestUnreachs\s+(\d+)$|^Icmp: \d+ \d+ \d+ (\d+) `)

// unreachables is how many messages of ICMP said in ns that a destination cannot
// be reached.
func unreachables(t *testing.T, ns *linux.NetNS) (n int) {
	t.Helper()
	netnstest.Do(t, ns, func() error {
		for _, name := range []string{"/proc/thread-self/net/snmp", "/proc/thread-self/net/snmp6"} {
			b, err := os.ReadFile(name)
			if err != nil {
				return err
			}
			m := unreachable.FindSubmatch(b)
			if m == nil {
				return fmt.Errorf("%s does not tell:\n%s", name, b)
			}
			one, err := strconv.Atoi(string(m[1]) + string(m[2]))
			if err != nil {
				return err
			}
			n += one
		}
		return nil
	})
	return n
}
