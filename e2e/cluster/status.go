package cluster

import (
	"context"
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Status is everything somebody may need to find the parts of a cluster.
type Status struct {
	Name       string          `json:"name"`
	Family     Family          `json:"family"`
	Server     string          `json:"server"`
	Kubeconfig string          `json:"kubeconfig"`
	StateDir   string          `json:"stateDir"`
	LAN        LANStatus       `json:"lan"`
	Pods       []netip.Prefix  `json:"podRanges"`
	Services   []netip.Prefix  `json:"serviceRanges"`
	Machines   []MachineStatus `json:"machines"`
}

// LANStatus says where the wire between the machines is.
type LANStatus struct {
	Netns         string         `json:"netns"`         // path of the namespace of the bridge
	Bridge        string         `json:"bridge"`        // in that namespace
	HostInterface string         `json:"hostInterface"` // the host's end
	HostAddresses []netip.Addr   `json:"hostAddresses"`
	Range         []netip.Prefix `json:"range"`
}

// MachineStatus is one machine, node or control plane.
type MachineStatus struct {
	Name       string            `json:"name"`
	PID        int               `json:"pid"` // its first process, as the host sees it; 0 when stopped
	Running    bool              `json:"running"`
	Link       string            `json:"link"` // "up", "cut", or "none" of a stopped machine
	Port       string            `json:"port"` // of the bridge
	Netns      string            `json:"netns"`
	Addresses  []netip.Addr      `json:"addresses"`
	Pods       []netip.Prefix    `json:"podRanges,omitempty"`
	Disk       string            `json:"disk"`
	Cgroup     string            `json:"cgroup"`
	Components []ComponentStatus `json:"components"`
}

// ComponentStatus is one service of a machine.
type ComponentStatus struct {
	Name   string `json:"name"`
	PID    int    `json:"pid"`    // 0 when it does not run
	Health string `json:"health"` // "ok", or what is wrong
	Log    string `json:"log"`
}

// Healthy says whether everything that should run does and is well.
func (s Status) Healthy() bool {
	for _, m := range s.Machines {
		if !m.Running || m.Link != "up" {
			return false
		}
		for _, c := range m.Components {
			if c.Health != "ok" {
				return false
			}
		}
	}
	return true
}

// Status looks at every part of the cluster.
func (c *Cluster) Status(ctx context.Context) (Status, error) {
	s, err := c.read()
	if err != nil {
		return Status{}, err
	}
	p := s.plan()
	st := Status{
		Name: s.Name, Family: s.Family, Server: p.server(), Kubeconfig: c.Kubeconfig(), StateDir: c.dir(),
		LAN: LANStatus{
			Netns: netnsPath(p.lanNetns()), Bridge: bridgeName, HostInterface: p.hostInterface(),
			HostAddresses: addrs(p.onLAN(hostNumber)), Range: p.lan(),
		},
		Pods: p.pods(), Services: p.services(),
	}
	st.Machines = append(st.Machines, c.machineStatus(s, controlName, controlNumber))
	for _, n := range s.Nodes {
		m := c.machineStatus(s, n.Name, firstNode+n.Number)
		m.Pods = p.podsOf(n.Number)
		st.Machines = append(st.Machines, m)
	}
	c.addHealth(ctx, s, &st)
	return st, nil
}

func (c *Cluster) machineStatus(s *state, name string, number int) MachineStatus {
	p := s.plan()
	m := MachineStatus{
		Name: name, Running: s.alive(name), Link: "none", Port: name, Netns: netnsPath(p.netns(name)),
		Addresses: addrs(p.onLAN(number)), Disk: diskOf(c.dir(), name), Cgroup: p.cgroupOf(name),
	}
	running := map[string]int{}
	if m.Running {
		m.Link = "cut"
		if linkUp(p, name) {
			m.Link = "up"
		}
		m.PID = s.Procs[name].PID
		running = children(m.PID)
	}
	for _, service := range servicesOf(name) {
		cs := ComponentStatus{Name: service, PID: running[service], Health: "ok", Log: c.logOf(name, service)}
		if cs.PID == 0 {
			cs.Health = "not running"
		}
		m.Components = append(m.Components, cs)
	}
	return m
}

func servicesOf(name string) []string {
	if name == controlName {
		return []string{"etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"}
	}
	return []string{"containerd", "kubelet", "kube-proxy"}
}

// addHealth asks the API server how it is and what it thinks of the nodes.
func (c *Cluster) addHealth(ctx context.Context, s *state, st *Status) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	api, err := c.newAPI()
	if err == nil && s.alive(controlName) {
		err = api.do(ctx, http.MethodGet, "/readyz", nil, nil)
	}
	note := func(m *MachineStatus, component string, err error) {
		for i := range m.Components {
			if m.Components[i].Name == component && m.Components[i].PID != 0 && err != nil {
				m.Components[i].Health = strings.ReplaceAll(err.Error(), "\n", " ")
			}
		}
	}
	note(&st.Machines[0], "kube-apiserver", err)
	if err != nil {
		return
	}
	for i := range st.Machines[1:] {
		m := &st.Machines[i+1]
		var n kubeNode
		err := api.do(ctx, http.MethodGet, "/api/v1/nodes/"+m.Name, nil, &n)
		if err == nil {
			err = n.ready(time.Time{})
		}
		note(m, "kubelet", err)
	}
}

// children maps the program name of every child of a process to its id.
func children(pid int) map[string]int {
	found := map[string]int{}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return found
	}
	for _, e := range entries {
		id, err := strconv.Atoi(e.Name())
		if err != nil || parent(id) != pid {
			continue
		}
		cmdline, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", id))
		if err == nil && len(cmdline) > 0 {
			name, _, _ := strings.Cut(string(cmdline), "\x00")
			found[filepath.Base(name)] = id
		}
	}
	return found
}

func parent(pid int) int {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(data), ") ")
	f := strings.Fields(rest)
	if len(f) < 2 {
		return 0
	}
	id, _ := strconv.Atoi(f[1])
	return id
}
