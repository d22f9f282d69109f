package cluster_test

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ambit-mesh/ambit/e2e/cluster"
	"github.com/ambit-mesh/ambit/e2e/stage"
)

var real = flag.Bool("cluster", false, "boot real clusters (root, build/bin and build/images are needed)")

// TestLifeOfARealCluster boots a cluster, does to it what the tool offers, and
// looks for traces at the end.
func TestLifeOfARealCluster(t *testing.T) {
	if !*real {
		t.Skip("boots a real cluster only with -cluster")
	}
	if stage.Foreign(os.Getenv("KUBECONFIG")) {
		t.Skip("KUBECONFIG names another cluster: none of our own is booted")
	}
	build, err := filepath.Abs("../../build")
	if err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	cfg := cluster.Config{
		Name: "unit-life", Family: cluster.Dual, Nodes: 2,
		Bin: filepath.Join(build, "bin"), Images: filepath.Join(build, "images"),
	}
	before := traces(t, cfg.Name)
	if len(before) > 0 {
		t.Logf("an earlier run left %v", before)
	}
	c, err := cluster.Up(ctx, cfg)
	t.Cleanup(func() {
		if c, err := cluster.Open(cfg); err == nil && c.Down() != nil {
			t.Error("the cluster does not go down")
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Run("everything is well", func(t *testing.T) { healthy(t, c) })
	t.Run("up again changes nothing", func(t *testing.T) {
		first := status(t, c)
		if _, err := cluster.Up(ctx, cfg); err != nil {
			t.Fatal(err)
		}
		for i, m := range status(t, c).Machines {
			if m.PID != first.Machines[i].PID {
				t.Errorf("%s was started anew", m.Name)
			}
		}
	})
	t.Run("another family is refused", func(t *testing.T) {
		other := cfg
		other.Family = cluster.IPv6
		if _, err := cluster.Up(ctx, other); err == nil || !strings.Contains(err.Error(), "down") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("nodes reach each other until the wire is cut", func(t *testing.T) { cutAndHeal(t, c) })
	t.Run("a capture sees what passes between nodes", func(t *testing.T) { capture(t, c) })
	t.Run("a reboot renews the network and empties /run", func(t *testing.T) { reboot(t, c) })
	t.Run("a node comes, stops and starts", func(t *testing.T) { comeAndGo(t, c) })
	t.Run("a cluster that was killed comes up again", func(t *testing.T) {
		for _, m := range status(t, c).Machines {
			if p, err := os.FindProcess(m.PID); err == nil {
				_ = p.Kill()
			}
		}
		if _, err := cluster.Up(ctx, cfg); err != nil {
			t.Fatal(err)
		}
		healthy(t, c)
	})
	t.Run("down leaves no trace", func(t *testing.T) {
		for range 2 { // the second time there is nothing to do
			if err := c.Down(); err != nil {
				t.Fatal(err)
			}
		}
		if left := traces(t, cfg.Name); len(left) > 0 {
			t.Errorf("left behind: %v", left)
		}
	})
}

func status(t *testing.T, c *cluster.Cluster) cluster.Status {
	t.Helper()
	st, err := c.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return st
}

func healthy(t *testing.T, c *cluster.Cluster) {
	t.Helper()
	deadline := time.Now().Add(60 * time.Second)
	for {
		st := status(t, c)
		if st.Healthy() {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("not well: %+v", st.Machines)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// machineOf finds a machine in the status.
func machineOf(t *testing.T, c *cluster.Cluster, name string) cluster.MachineStatus {
	t.Helper()
	for _, m := range status(t, c).Machines {
		if m.Name == name {
			return m
		}
	}
	t.Fatalf("there is no %s", name)
	return cluster.MachineStatus{}
}

// talk sends a line from one node to another and back.
func talk(t *testing.T, from, to cluster.MachineStatus, addr netip.Addr, line string) error {
	t.Helper()
	var l net.Listener
	err := cluster.InNetns(to.Netns, func() (err error) {
		l, err = net.Listen("tcp", netip.AddrPortFrom(addr, 0).String())
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		if conn, err := l.Accept(); err == nil {
			_, _ = io.Copy(conn, conn)
			conn.Close()
		}
	}()
	return cluster.InNetns(from.Netns, func() error {
		conn, err := net.DialTimeout("tcp", l.Addr().String(), time.Second)
		if err != nil {
			return err
		}
		defer conn.Close()
		if err := conn.SetDeadline(time.Now().Add(2 * time.Second)); err != nil {
			return err
		}
		if _, err := io.WriteString(conn, line); err != nil {
			return err
		}
		back := make([]byte, len(line))
		if _, err := io.ReadFull(conn, back); err != nil {
			return err
		}
		if string(back) != line {
			return fmt.Errorf("%q came back", back)
		}
		return nil
	})
}

func cutAndHeal(t *testing.T, c *cluster.Cluster) {
	n1, n2 := machineOf(t, c, "node1"), machineOf(t, c, "node2")
	for _, addr := range n2.Addresses {
		if err := talk(t, n1, n2, addr, "hello\n"); err != nil {
			t.Errorf("before: %s: %v", addr, err)
		}
	}
	if err := c.LinkCut("node2"); err != nil {
		t.Fatal(err)
	}
	if got := machineOf(t, c, "node2").Link; got != "cut" {
		t.Errorf("status says the link is %s", got)
	}
	if err := talk(t, n1, n2, n2.Addresses[0], "hello\n"); err == nil {
		t.Error("the cut wire carries data")
	}
	if err := c.LinkHeal("node2"); err != nil {
		t.Fatal(err)
	}
	for _, addr := range n2.Addresses {
		var err error
		for range 20 { // neighbours forget that one was unreachable
			if err = talk(t, n1, n2, addr, "hello\n"); err == nil {
				break
			}
		}
		if err != nil {
			t.Errorf("after: %s: %v", addr, err)
		}
	}
}

func capture(t *testing.T, c *cluster.Cluster) {
	n1, n2 := machineOf(t, c, "node1"), machineOf(t, c, "node2")
	for _, where := range []string{"", "node1"} {
		ctx, stop := context.WithCancel(t.Context())
		var seen atomic.Int32
		marker := []byte("marker of " + t.Name() + where)
		ready, done := make(chan struct{}), make(chan error, 1)
		go func() {
			missed, err := c.Capture(ctx, where, func() { close(ready) }, func(frame []byte) {
				if bytes.Contains(frame, marker) {
					seen.Add(1)
				}
			})
			if err == nil && missed > 0 {
				err = fmt.Errorf("%d frames of a quiet network were missed", missed)
			}
			done <- err
		}()
		select {
		case <-ready:
		case err := <-done:
			t.Fatal(err)
		}
		if err := talk(t, n1, n2, n2.Addresses[0], string(marker)); err != nil {
			t.Fatal(err)
		}
		// What was sent lies in the capture's buffer already.
		deadline := time.Now().Add(5 * time.Second)
		for seen.Load() == 0 && time.Now().Before(deadline) {
			time.Sleep(10 * time.Millisecond)
		}
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if seen.Load() == 0 {
			t.Errorf("the capture on %q has not seen what crossed the wire", where)
		}
	}
}

func reboot(t *testing.T, c *cluster.Cluster) {
	n := machineOf(t, c, "node2")
	root := fmt.Sprintf("/proc/%d/root", n.PID)
	for _, file := range []string{"/run/mark", "/etc/cni/net.d/zz-mark", "/var/lib/mark"} {
		if err := os.WriteFile(root+file, nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	nft := func(args ...string) (string, error) {
		out, err := exec.Command("nsenter", append([]string{"--net=" + n.Netns, "nft"}, args...)...).CombinedOutput()
		return string(out), err
	}
	if out, err := nft("add", "table", "inet", "left_over"); err != nil {
		t.Fatal(err, out)
	}
	if err := c.NodeReboot(t.Context(), "node2"); err != nil {
		t.Fatal(err)
	}
	root = fmt.Sprintf("/proc/%d/root", machineOf(t, c, "node2").PID)
	for file, persists := range map[string]bool{"/run/mark": false, "/etc/cni/net.d/zz-mark": true, "/var/lib/mark": true} {
		if _, err := os.Stat(root + file); (err == nil) != persists {
			t.Errorf("%s after a reboot: %v", file, err)
		}
	}
	for _, file := range []string{"/run/mark", "/var/lib/mark"} {
		if _, err := os.Stat(file); err == nil {
			t.Errorf("%s appeared on the host", file)
		}
	}
	if out, err := nft("list", "tables"); err != nil || strings.Contains(out, "left_over") {
		t.Errorf("rules outlived the reboot: %s %v", out, err)
	}
	healthy(t, c)
}

func comeAndGo(t *testing.T, c *cluster.Cluster) {
	ctx := t.Context()
	name, err := c.NodeAdd(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if out, err := c.Kubectl(ctx, "", "get", "node", name, "-o", "jsonpath={.spec.podCIDRs}"); err != nil || !strings.Contains(out, "/24") {
		t.Errorf("the node's ranges are %q, %v", out, err)
	}
	if err := c.NodeStop(ctx, name); err != nil {
		t.Fatal(err)
	}
	if m := machineOf(t, c, name); m.Running || m.Link != "none" {
		t.Errorf("a stopped node is %+v", m)
	}
	if err := c.NodeStart(ctx, name); err != nil {
		t.Fatal(err)
	}
	if err := c.NodeStop(ctx, "node77"); err == nil {
		t.Error("a node that does not exist was stopped")
	}
	healthy(t, c)
}

// traces lists what a cluster may leave on the host.
func traces(t *testing.T, name string) []string {
	t.Helper()
	var found []string
	for _, pattern := range []string{
		"/run/netns/ambit-" + name + "-*", "/sys/fs/cgroup/ambit-e2e/" + name, "/sys/fs/cgroup/*/ambit-e2e/" + name,
		filepath.Join(cluster.DefaultRoot, name),
	} {
		got, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		found = append(found, got...)
	}
	links, err := filepath.Glob("/sys/class/net/ambit*/ifalias")
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range links {
		if alias, err := os.ReadFile(l); err == nil && strings.TrimSpace(string(alias)) == "ambit-e2e "+name {
			found = append(found, l)
		}
	}
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, "/"+name+"/") || strings.Contains(line, "ambit-"+name+"-") {
			found = append(found, strings.TrimSpace(line))
		}
	}
	return found
}
