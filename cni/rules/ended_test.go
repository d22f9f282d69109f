package rules_test

import (
	"bufio"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/ambit-mesh/ambit/cni/netnstest"
	"github.com/ambit-mesh/ambit/cni/rules"
	"github.com/ambit-mesh/ambit/internal/linux"
)

// TestWhoWasRefusedAndComesAgainFromTheSamePortFollowsTheRules: a proxy resets
// what is captured, as it does with plaintext under STRICT; then nothing that
// comes in is captured any more.
func TestWhoWasRefusedAndComesAgainFromTheSamePortFollowsTheRules(t *testing.T) {
	node := netnstest.Node(t)
	pod, peer := netnstest.NewPod(t, node, 1), netnstest.NewPod(t, node, 2)
	netnstest.Serve(t, pod.NS, 8080, "pod", linux.ListenOptions{})
	proxy, err := linux.ListenTCP(t.Context(), pod.NS, netip.MustParseAddrPort("[::]:15006"), linux.ListenOptions{Mark: linux.Mark})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := proxy.AcceptTCP()
			if err != nil {
				return
			}
			c.SetLinger(0)
			c.Close()
		}
	}()
	t.Cleanup(func() { proxy.Close(); <-done })
	for i, f := range []struct{ pod, peer netip.Addr }{{pod.V4, peer.V4}, {pod.V6, peer.V6}} {
		asks := func() (string, error) {
			var c *net.TCPConn
			var err error
			netnstest.Do(t, peer.NS, func() error {
				c, err = net.DialTCP("tcp", net.TCPAddrFromAddrPort(at(f.peer, uint16(40000+i))), net.TCPAddrFromAddrPort(at(f.pod, 8080)))
				return nil
			})
			if err != nil {
				return "", err // the reset may come before the call returns
			}
			defer c.Close()
			c.SetDeadline(time.Now().Add(netnstest.Patience))
			fmt.Fprintln(c, "hi")
			return bufio.NewReader(c).ReadString('\n')
		}
		apply(t, pod.NS, rules.Spec{})
		if got, err := asks(); err == nil {
			t.Fatalf("captured: answer %q, want none", got)
		}
		apply(t, pod.NS, rules.Spec{BypassInbound: true})
		if err := rules.ForgetEnded(pod.NS); err != nil {
			t.Fatal(err)
		}
		if got, err := asks(); got != fmt.Sprintf("pod %s: hi\n", f.peer) {
			t.Errorf("not captured any more: answer %q, %v", got, err)
		}
	}
}
