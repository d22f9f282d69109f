package bench

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ambit-mesh/ambit/cni/rules"
	"github.com/ambit-mesh/ambit/internal/linux"
)

// pair is two pods: network namespaces joined by a veth, without names, so that
// nothing is left behind when the processes in them have ended.
type pair struct {
	client, server         *linux.NetNS
	clientAddr, serverAddr netip.Addr
}

// newPair makes two pods on net, a /30.
func newPair(net string) (*pair, error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("measuring needs root, to make network namespaces")
	}
	p := &pair{
		clientAddr: netip.MustParseAddr(net + ".1"),
		serverAddr: netip.MustParseAddr(net + ".2"),
	}
	var err error
	if p.client, err = newNetNS(); err != nil {
		return nil, err
	}
	if p.server, err = newNetNS(); err != nil {
		p.close()
		return nil, err
	}
	if err := p.wire(); err != nil {
		p.close()
		return nil, err
	}
	return p, nil
}

func newNetNS() (*linux.NetNS, error) {
	type result struct {
		ns  *linux.NetNS
		err error
	}
	made := make(chan result)
	go func() {
		runtime.LockOSThread() // for good: the thread ends with the goroutine
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			made <- result{err: fmt.Errorf("making a network namespace: %w", err)}
			return
		}
		ns, err := linux.OpenNetNS("/proc/thread-self/ns/net")
		made <- result{ns, err}
	}()
	r := <-made
	return r.ns, r.err
}

// wire joins the two.
func (p *pair) wire() error {
	other := fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), p.server.File().Fd())
	steps := []struct {
		ns   *linux.NetNS
		args string
	}{
		{p.client, "link set lo up"},
		{p.server, "link set lo up"},
		{p.client, "link add eth0 type veth peer name eth0 netns " + other},
		{p.client, "addr add " + p.clientAddr.String() + "/30 dev eth0"},
		{p.server, "addr add " + p.serverAddr.String() + "/30 dev eth0"},
		{p.client, "link set eth0 up"},
		{p.server, "link set eth0 up"},
	}
	for _, s := range steps {
		if err := s.ns.Do(func() error { return ip(s.args) }); err != nil {
			return err
		}
	}
	return nil
}

func ip(args string) error {
	if out, err := exec.Command("ip", strings.Fields(args)...).CombinedOutput(); err != nil {
		return fmt.Errorf("ip %s: %w: %s", args, err, out)
	}
	return nil
}

// enrol gives both pods the rules that the node agent gives.
func (p *pair) enrol(s rules.Spec) error {
	return errors.Join(rules.Apply(p.client, s), rules.Apply(p.server, s))
}

func (p *pair) close() {
	for _, ns := range []*linux.NetNS{p.client, p.server} {
		if ns != nil {
			ns.Close()
		}
	}
}
