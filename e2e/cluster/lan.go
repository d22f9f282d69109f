package cluster

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// bridgeName is the bridge in the LAN's namespace.
const bridgeName = "br0"

// hostPort is the bridge's port that leads to the host.
const hostPort = "host"

// aliasPrefix marks the host's interfaces as ours, with the cluster's name.
const aliasPrefix = "ambit-e2e "

// openNs returns a netlink handle that works in a namespace.
func openNs(name string) (*netlink.Handle, netns.NsHandle, error) {
	ns, err := netns.GetFromPath(netnsPath(name))
	if err != nil {
		return nil, 0, fmt.Errorf("open network namespace %s: %w", name, err)
	}
	h, err := netlink.NewHandleAt(ns, unix.NETLINK_ROUTE)
	if err != nil {
		ns.Close()
		return nil, 0, fmt.Errorf("netlink in %s: %w", name, err)
	}
	return h, ns, nil
}

// withNs calls f with a netlink handle in a namespace.
func withNs(name string, f func(*netlink.Handle) error) error {
	h, ns, err := openNs(name)
	if err != nil {
		return err
	}
	defer ns.Close()
	defer h.Close()
	return f(h)
}

// makeLAN makes the bridge in its namespace and connects the host to it.
func makeLAN(p plan) error {
	if err := makeNetns(p.lanNetns()); err != nil {
		return err
	}
	return withNs(p.lanNetns(), func(lan *netlink.Handle) error {
		br := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: bridgeName}}
		// Snooping forgets listeners of neighbour discovery when no router asks.
		off := false
		br.MulticastSnooping = &off
		if err := lan.LinkAdd(br); err != nil {
			return fmt.Errorf("create bridge: %w", err)
		}
		for _, name := range []string{"lo", bridgeName} {
			if err := setUp(lan, name); err != nil {
				return err
			}
		}
		return connectHost(p, lan)
	})
}

func connectHost(p plan, lan *netlink.Handle) error {
	host, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer host.Close()
	self, err := netns.Get()
	if err != nil {
		return err
	}
	defer self.Close()
	if err := addPort(lan, hostPort, self, p.hostInterface(), p.mac(hostNumber)); err != nil {
		return fmt.Errorf("connect the host: %w", err)
	}
	link, err := host.LinkByName(p.hostInterface())
	if err != nil {
		return err
	}
	if err := host.LinkSetAlias(link, aliasPrefix+p.name); err != nil {
		return err
	}
	return configure(host, p.hostInterface(), p.onLAN(hostNumber), nil)
}

// plug makes a machine's namespace and connects it to the LAN.
func plug(p plan, name string, number int) error {
	if err := makeNetns(p.netns(name)); err != nil {
		return err
	}
	m, ns, err := openNs(p.netns(name))
	if err != nil {
		return err
	}
	defer ns.Close()
	defer m.Close()
	err = withNs(p.lanNetns(), func(lan *netlink.Handle) error { return addPort(lan, name, ns, "eth0", p.mac(number)) })
	if err != nil {
		return fmt.Errorf("connect %s to the LAN: %w", name, err)
	}
	if err := setUp(m, "lo"); err != nil {
		return err
	}
	return configure(m, "eth0", p.onLAN(number), addrs(p.onLAN(hostNumber)))
}

// unplug removes a machine's port and its namespace. Missing is fine.
func unplug(p plan, name string) error {
	err := withNs(p.lanNetns(), func(lan *netlink.Handle) error {
		link, err := lan.LinkByName(name)
		if err != nil {
			return ignoreNoLink(err)
		}
		return lan.LinkDel(link)
	})
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("disconnect %s: %w", name, err)
	}
	return removeNetns(p.netns(name))
}

// addPort makes a veth pair: one end a port of the bridge, the other in ns.
func addPort(lan *netlink.Handle, port string, ns netns.NsHandle, peer, mac string) error {
	hw, err := net.ParseMAC(mac)
	if err != nil {
		return err
	}
	br, err := lan.LinkByName(bridgeName)
	if err != nil {
		return err
	}
	veth := &netlink.Veth{
		LinkAttrs: netlink.LinkAttrs{Name: port, MasterIndex: br.Attrs().Index},
		PeerName:  peer, PeerHardwareAddr: hw, PeerNamespace: netlink.NsFd(ns),
	}
	if err := lan.LinkAdd(veth); err != nil {
		return err
	}
	return setUp(lan, port)
}

// configure gives an interface its addresses and, if any, default gateways.
func configure(h *netlink.Handle, name string, on []netip.Prefix, gateways []netip.Addr) error {
	link, err := h.LinkByName(name)
	if err != nil {
		return err
	}
	for _, a := range on {
		addr := &netlink.Addr{IPNet: ipNet(a)}
		if a.Addr().Is6() {
			addr.Flags = unix.IFA_F_NODAD // at once usable; the plan makes duplicates impossible
		}
		if err := h.AddrReplace(link, addr); err != nil {
			return fmt.Errorf("address %s on %s: %w", a, name, err)
		}
	}
	if err := h.LinkSetUp(link); err != nil {
		return err
	}
	for _, gw := range gateways {
		all := netip.PrefixFrom(netip.IPv4Unspecified(), 0)
		if gw.Is6() {
			all = netip.PrefixFrom(netip.IPv6Unspecified(), 0)
		}
		if err := h.RouteReplace(&netlink.Route{LinkIndex: link.Attrs().Index, Dst: ipNet(all), Gw: gw.AsSlice()}); err != nil {
			return fmt.Errorf("default route by %s: %w", gw, err)
		}
	}
	return nil
}

// route makes the pods of other nodes reachable from one machine, or from the
// host when machine is "".
func route(p plan, machineName string, nodes []node) error {
	set := func(h *netlink.Handle, dev string) error {
		link, err := h.LinkByName(dev)
		if err != nil {
			return err
		}
		for _, n := range nodes {
			if n.Name == machineName {
				continue
			}
			for i, pods := range p.podsOf(n.Number) {
				r := &netlink.Route{LinkIndex: link.Attrs().Index, Dst: ipNet(pods), Gw: p.nodeAddrs(n.Number)[i].AsSlice()}
				if err := h.RouteReplace(r); err != nil {
					return fmt.Errorf("route to %s: %w", pods, err)
				}
			}
		}
		return nil
	}
	if machineName != "" {
		return withNs(p.netns(machineName), func(h *netlink.Handle) error { return set(h, "eth0") })
	}
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer h.Close()
	return set(h, p.hostInterface())
}

// setLink cuts (up=false) or heals the wire of one machine.
func setLink(p plan, name string, up bool) error {
	return withNs(p.lanNetns(), func(lan *netlink.Handle) error {
		link, err := lan.LinkByName(name)
		if err != nil {
			return fmt.Errorf("the wire of %s: %w", name, err)
		}
		if up {
			return lan.LinkSetUp(link)
		}
		return lan.LinkSetDown(link)
	})
}

func linkUp(p plan, name string) bool {
	up := false
	_ = withNs(p.lanNetns(), func(lan *netlink.Handle) error {
		link, err := lan.LinkByName(name)
		if err == nil {
			up = link.Attrs().Flags&net.FlagUp != 0
		}
		return err
	})
	return up
}

// removeHostLinks deletes the host's interfaces of a cluster, found by the mark
// they carry, so that no state is needed.
func removeHostLinks(name string) error {
	links, err := netlink.LinkList()
	if err != nil {
		return err
	}
	for _, l := range links {
		if l.Attrs().Alias == aliasPrefix+name {
			if err := netlink.LinkDel(l); err != nil && ignoreNoLink(err) != nil {
				return fmt.Errorf("delete interface %s: %w", l.Attrs().Name, err)
			}
		}
	}
	return nil
}

// hostRanges lists what the host routes or owns, without what clusters of ours put there.
func hostRanges() ([]netip.Prefix, error) {
	ours := map[int]bool{}
	links, err := netlink.LinkList()
	if err != nil {
		return nil, err
	}
	for _, l := range links {
		ours[l.Attrs().Index] = strings.HasPrefix(l.Attrs().Alias, aliasPrefix)
	}
	routes, err := netlink.RouteList(nil, netlink.FAMILY_ALL)
	if err != nil {
		return nil, err
	}
	var used []netip.Prefix
	for _, r := range routes {
		if r.Dst == nil || ours[r.LinkIndex] {
			continue
		}
		if a, ok := netip.AddrFromSlice(r.Dst.IP); ok {
			ones, _ := r.Dst.Mask.Size()
			used = append(used, netip.PrefixFrom(a.Unmap(), ones))
		}
	}
	return used, nil
}

func setUp(h *netlink.Handle, name string) error {
	link, err := h.LinkByName(name)
	if err != nil {
		return err
	}
	return h.LinkSetUp(link)
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

func ignoreNoLink(err error) error {
	var missing netlink.LinkNotFoundError
	if errors.As(err, &missing) || errors.Is(err, unix.ENODEV) {
		return nil
	}
	return err
}
