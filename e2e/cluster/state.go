package cluster

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/ambit-mesh/ambit/e2e/cluster/machine"
)

// DefaultRoot is where clusters keep their state: outside of any checkout, so
// that a checkout that is moved or deleted leaves no cluster that nobody can end.
const DefaultRoot = "/var/lib/ambit-e2e"

// cgroupParent holds the cgroups of all clusters.
const cgroupParent = "ambit-e2e"

// controlName is the machine of the control plane.
const controlName = "control"

// state is what a cluster remembers. It is written after every step that
// changes it, so that a crash leaves at most what the sweep finds by name.
type state struct {
	Name   string `json:"name"`
	Index  int    `json:"index"`
	Family Family `json:"family"`
	Bin    string `json:"bin"`
	Images string `json:"images"`
	Nodes  []node `json:"nodes"`
	// Loaded is the archives that every node should have, also one that comes later.
	Loaded []string `json:"loaded"`
	// Procs is the first process of every machine that was started.
	Procs map[string]machine.Process `json:"procs"`
}

// node is one worker. Its number gives its addresses and is never used again.
type node struct {
	Name   string `json:"name"`
	Number int    `json:"number"`
}

func (s *state) plan() plan { return plan{name: s.Name, index: s.Index, family: s.Family} }

func (s *state) node(name string) (node, error) {
	for _, n := range s.Nodes {
		if n.Name == name {
			return n, nil
		}
	}
	return node{}, fmt.Errorf("cluster %s has no node %q; it has %v", s.Name, name, s.nodeNames())
}

func (s *state) nodeNames() []string {
	var names []string
	for _, n := range s.Nodes {
		names = append(names, n.Name)
	}
	return names
}

// addNode appends a node with the next number.
func (s *state) addNode() (node, error) {
	number := 1
	if len(s.Nodes) > 0 {
		number = s.Nodes[len(s.Nodes)-1].Number + 1
	}
	if number > maxNodes {
		return node{}, fmt.Errorf("cluster %s is full: %d nodes", s.Name, maxNodes)
	}
	n := node{Name: fmt.Sprintf("node%d", number), Number: number}
	s.Nodes = append(s.Nodes, n)
	return n, nil
}

// machines are the names of all machines, the control plane first.
func (s *state) machines() []string { return append([]string{controlName}, s.nodeNames()...) }

func (s *state) alive(machineName string) bool { return s.Procs[machineName].Running() }

func readState(dir string) (*state, error) {
	data, err := os.ReadFile(filepath.Join(dir, "state.json"))
	if err != nil {
		return nil, err
	}
	s := &state{}
	if err := json.Unmarshal(data, s); err != nil {
		return nil, fmt.Errorf("read cluster state: %w", err)
	}
	if s.Procs == nil {
		s.Procs = map[string]machine.Process{}
	}
	return s, nil
}

func (s *state) save(dir string) error {
	data, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	tmp := filepath.Join(dir, ".state.json")
	if err := os.WriteFile(tmp, append(data, '\n'), 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, filepath.Join(dir, "state.json"))
}

// stateNames lists the clusters that have a directory below root, broken ones too.
func stateNames(root string) ([]string, error) {
	entries, err := os.ReadDir(root)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if e.IsDir() && CheckName(e.Name()) == nil {
			names = append(names, e.Name())
		}
	}
	slices.Sort(names)
	return names, nil
}

// lock holds a directory for one process at a time and returns its release.
// The directory itself is the lock: nothing is left beside it.
func lock(dir string, make bool) (release func(), err error) {
	for {
		if make {
			err := os.MkdirAll(dir, 0o700)
			if errors.Is(err, fs.ErrNotExist) {
				continue // its parent was removed meanwhile
			}
			if err != nil {
				return nil, err
			}
		}
		f, err := os.Open(dir)
		if make && errors.Is(err, fs.ErrNotExist) {
			continue // removed between the two calls
		}
		if err != nil {
			return nil, err
		}
		if err := flock(f); err != nil {
			f.Close()
			return nil, fmt.Errorf("lock %s: %w", dir, err)
		}
		// While this one waited, the directory may have been removed by the holder.
		if same(f, dir) {
			return func() { f.Close() }, nil
		}
		f.Close()
	}
}

func flock(f *os.File) error {
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX)
		if err != unix.EINTR {
			return err
		}
	}
}

func same(f *os.File, path string) bool {
	a, err1 := f.Stat()
	b, err2 := os.Stat(path)
	return err1 == nil && err2 == nil && os.SameFile(a, b)
}

// chooseIndex returns the lowest index whose addresses neither another cluster
// nor the host uses.
func chooseIndex(name string, taken map[int]string, used []netip.Prefix) (int, error) {
	var why string
	for i := range maxClusters {
		if other, ok := taken[i]; ok {
			why = "cluster " + other + " has the last range"
			continue
		}
		own, other, clash := plan{name: name, index: i, family: Dual}.conflict(used)
		if !clash {
			return i, nil
		}
		why = fmt.Sprintf("%s overlaps %s, which this host already routes", own, other)
	}
	return 0, fmt.Errorf("no free address range for cluster %s (%s); take down a cluster (`cluster list`) or free 10.208.0.0/12, 10.230.0.0/15 or fd7a:ab17::/32", name, why)
}
