package cluster

import (
	"errors"
	"fmt"
	"os"
	"regexp"
	"time"

	"github.com/ambit-mesh/ambit/e2e/cluster/machine"
)

// Down ends the cluster and removes every trace of it. It needs no readable
// state: what is ours is found by name. A cluster that does not exist is fine.
func (c *Cluster) Down() error {
	if os.Geteuid() != 0 {
		return errors.New("taking down a cluster needs root")
	}
	release, err := lock(c.dir(), true)
	if err != nil {
		return err
	}
	defer release()
	if err := c.sweep(); err != nil {
		return fmt.Errorf("take down cluster %s: %w", c.name, err)
	}
	if err := os.RemoveAll(c.dir()); err != nil {
		return err
	}
	if err := c.leave(); err != nil {
		return err
	}
	c.log.Info("cluster is down")
	return nil
}

// leave removes, when this was the last cluster, what all of them share.
func (c *Cluster) leave() error {
	release, err := lock(c.root, false)
	if errors.Is(err, os.ErrNotExist) {
		return nil // another one that left at the same time was the last
	}
	if err != nil {
		return err
	}
	defer release()
	names, err := stateNames(c.root)
	if err != nil || len(names) > 0 {
		return err
	}
	if err := limitsOf(c.root).restore(hostLimits); err != nil {
		return err
	}
	// One that comes at this moment keeps the directory: then it is not empty.
	_ = os.Remove(c.root)
	return nil
}

// sweep removes everything of the cluster but its (then empty) directory.
func (c *Cluster) sweep() error {
	p := plan{name: c.name}
	if err := machine.KillCgroup(p.cgroup(), 20*time.Second); err != nil {
		return err
	}
	if err := machine.RemoveCgroup(p.cgroup(), 10*time.Second); err != nil {
		return err
	}
	machine.RemoveEmptyCgroup(cgroupParent)
	if err := removeHostLinks(c.name); err != nil {
		return err
	}
	if err := c.removeNamespaces(); err != nil {
		return err
	}
	return c.emptyDir()
}

// removeNamespaces unpins exactly the namespaces that this cluster's machines
// may have; another cluster's name may begin with ours.
func (c *Cluster) removeNamespaces() error {
	ours := regexp.MustCompile(`^ambit-` + regexp.QuoteMeta(c.name) + `-(lan|control|node[0-9]+)$`)
	entries, err := os.ReadDir(netnsDir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		if ours.MatchString(e.Name()) {
			if err := removeNetns(e.Name()); err != nil {
				return err
			}
		}
	}
	_ = os.Remove(netnsDir) // only if it is empty: then it was made for us
	return nil
}

func (c *Cluster) emptyDir() error {
	root, err := os.OpenRoot(c.dir())
	if err != nil {
		return err
	}
	defer root.Close()
	dir, err := root.Open(".")
	if err != nil {
		return err
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := root.RemoveAll(name); err != nil {
			return err
		}
	}
	return nil
}
