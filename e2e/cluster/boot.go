package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ambit-mesh/ambit/e2e/cluster/machine"
)

// bootControl starts the control plane's machine unless it runs.
func (c *Cluster) bootControl(s *state, ca *pki) error {
	if s.alive(controlName) {
		return nil
	}
	spec, err := controlSpec(s, c.dir(), ca)
	if err != nil {
		return err
	}
	return c.boot(s, spec, controlNumber)
}

// bootNode starts a node's machine unless it runs.
func (c *Cluster) bootNode(s *state, ca *pki, n node) error {
	if s.alive(n.Name) {
		return nil
	}
	spec, err := workerSpec(s, c.dir(), ca, n, snapshotter(c.dir()))
	if err != nil {
		return err
	}
	if err := installCNI(s.plan(), n, spec); err != nil {
		return fmt.Errorf("install CNI plugins on %s: %w", n.Name, err)
	}
	return c.boot(s, spec, firstNode+n.Number)
}

// boot gives a machine a new network namespace and starts it. Whatever is left
// of its earlier life is removed first.
func (c *Cluster) boot(s *state, spec machine.Spec, number int) error {
	if err := c.halt(s, spec.Name); err != nil {
		return err
	}
	p := s.plan()
	if err := plug(p, spec.Name, number); err != nil {
		return err
	}
	if err := route(p, spec.Name, s.Nodes); err != nil {
		return err
	}
	proc, err := machine.Start(spec)
	if err != nil {
		return err
	}
	s.Procs[spec.Name] = proc
	c.log.Info("machine started", "machine", spec.Name, "pid", proc.PID)
	return s.save(c.dir())
}

// halt ends a machine at once and removes its network. Ended already is fine.
func (c *Cluster) halt(s *state, name string) error {
	p := s.plan()
	if err := machine.Kill(s.Procs[name], p.cgroupOf(name)); err != nil {
		return fmt.Errorf("stop %s: %w", name, err)
	}
	if err := unplug(p, name); err != nil {
		return err
	}
	delete(s.Procs, name)
	return s.save(c.dir())
}

// routeAll tells every machine and the host where the pods are.
func (c *Cluster) routeAll(s *state) error {
	if err := route(s.plan(), "", s.Nodes); err != nil {
		return err
	}
	for _, name := range s.machines() {
		if !s.alive(name) {
			continue
		}
		if err := route(s.plan(), name, s.Nodes); err != nil {
			return fmt.Errorf("routes of %s: %w", name, err)
		}
	}
	return nil
}

// installCNI puts the plugins on the node's disk and, if the disk is new, the
// node's network configuration.
func installCNI(p plan, n node, spec machine.Spec) error {
	dir, _ := spec.HostPath("/opt/cni/bin")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for _, name := range cniPlugins {
		if err := copyProgram(filepath.Join(spec.Bin, name), filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	conf, _ := spec.HostPath(cniConfigFile)
	if _, err := os.Stat(filepath.Dir(conf)); err == nil {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(conf), 0o755); err != nil {
		return err
	}
	content, err := cniConfig(p, n)
	if err != nil {
		return err
	}
	return os.WriteFile(conf, []byte(content), 0o644)
}

func copyProgram(from, to string) error {
	data, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	// Renamed into place: the old one may be running.
	tmp := to + ".new"
	if err := os.WriteFile(tmp, data, 0o755); err != nil {
		return err
	}
	return os.Rename(tmp, to)
}

// snapshotter is overlayfs where the file system below dir can hold one (not on
// an overlay itself, as in a container), else plain copies.
func snapshotter(dir string) string {
	probe := filepath.Join(dir, "overlay-probe")
	defer os.RemoveAll(probe)
	for _, d := range []string{"lower", "upper", "work", "merged"} {
		if err := os.MkdirAll(filepath.Join(probe, d), 0o755); err != nil {
			return "native"
		}
	}
	options := fmt.Sprintf("lowerdir=%s/lower,upperdir=%s/upper,workdir=%s/work", probe, probe, probe)
	merged := filepath.Join(probe, "merged")
	if err := unix.Mount("overlay", merged, "overlay", 0, options); err != nil {
		return "native"
	}
	_ = unix.Unmount(merged, unix.MNT_DETACH)
	return "overlayfs"
}

// NodeAdd makes one more node and returns its name when it is Ready.
func (c *Cluster) NodeAdd(ctx context.Context) (name string, err error) {
	err = c.change(func(s *state) error {
		n, err := s.addNode()
		if err != nil {
			return err
		}
		name = n.Name
		if err := s.save(c.dir()); err != nil {
			return err
		}
		return c.startNode(ctx, s, n)
	})
	return name, err
}

// NodeStart boots a node (or "control") that was stopped or killed, and waits
// until it is Ready. One that runs is left alone.
func (c *Cluster) NodeStart(ctx context.Context, name string) error {
	return c.change(func(s *state) error {
		if name == controlName {
			return c.startControl(ctx, s)
		}
		n, err := s.node(name)
		if err != nil {
			return err
		}
		return c.startNode(ctx, s, n)
	})
}

// NodeStop shuts a node (or "control") down in good order.
func (c *Cluster) NodeStop(_ context.Context, name string) error {
	return c.change(func(s *state) error {
		if err := s.checkMachine(name); err != nil {
			return err
		}
		if err := machine.Stop(s.Procs[name], s.plan().cgroupOf(name), 15*time.Second); err != nil {
			return fmt.Errorf("stop %s: %w", name, err)
		}
		return c.halt(s, name)
	})
}

// NodeKill pulls a node's (or "control"'s) plug.
func (c *Cluster) NodeKill(_ context.Context, name string) error {
	return c.change(func(s *state) error {
		if err := s.checkMachine(name); err != nil {
			return err
		}
		return c.halt(s, name)
	})
}

// NodeReboot pulls the plug and boots again: the network namespace is a new one
// and /run is empty, the disk is as it was. It waits until the node is Ready.
func (c *Cluster) NodeReboot(ctx context.Context, name string) error {
	if err := c.NodeKill(ctx, name); err != nil {
		return err
	}
	return c.NodeStart(ctx, name)
}

// LinkCut takes a node's wire out, LinkHeal puts it back.
func (c *Cluster) LinkCut(name string) error { return c.link(name, false) }

// LinkHeal undoes LinkCut.
func (c *Cluster) LinkHeal(name string) error { return c.link(name, true) }

func (c *Cluster) link(name string, up bool) error {
	return c.change(func(s *state) error {
		if err := s.checkMachine(name); err != nil {
			return err
		}
		return setLink(s.plan(), name, up)
	})
}

func (s *state) checkMachine(name string) error {
	if name == controlName {
		return nil
	}
	_, err := s.node(name)
	return err
}

func (c *Cluster) startControl(ctx context.Context, s *state) error {
	ca, err := openPKI(filepath.Join(c.dir(), "pki"))
	if err != nil {
		return err
	}
	if err := c.bootControl(s, ca); err != nil {
		return err
	}
	api, err := c.newAPI()
	if err != nil {
		return err
	}
	return api.awaitReady(ctx, 90*time.Second)
}

func (c *Cluster) startNode(ctx context.Context, s *state, n node) error {
	if !s.alive(controlName) {
		return errors.New("the control plane does not run: start it first, `cluster node start control`")
	}
	ca, err := openPKI(filepath.Join(c.dir(), "pki"))
	if err != nil {
		return err
	}
	api, err := c.newAPI()
	if err != nil {
		return err
	}
	// A node that went without a word still counts as Ready for a while: what
	// is waited for is a sign of life after this moment.
	began := time.Now()
	if s.alive(n.Name) {
		began = time.Time{}
	}
	if err := c.bootNode(s, ca, n); err != nil {
		return err
	}
	if err := c.routeAll(s); err != nil {
		return err
	}
	if err := c.loadSystem(ctx, s, n); err != nil {
		return err
	}
	return c.awaitNodesSince(ctx, api, s, []node{n}, began)
}
