package rules

import (
	"errors"
	"fmt"
	"net"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/ambit-mesh/ambit/internal/linux"
)

// The policy route: packets with the return mark are local (dataplane spec
// 0.2), and the datagrams of programs where these are captured.
const (
	returnTable      = 100
	returnPriority   = 32764
	datagramPriority = 32763
)

// marked is a policy rule for packets of one mark.
type marked struct {
	what     string
	mark     uint32
	priority int
}

var (
	replies   = marked{"the return rule", returnMark, returnPriority}
	datagrams = marked{"the rule of datagrams", datagramMark, datagramPriority}
)

// marks are the policy rules that the pod is to have.
func (s Spec) marks() []marked {
	if s.datagrams() {
		return []marked{replies, datagrams}
	}
	return []marked{replies}
}

// families are the IP families that ns has; asked inside it.
func families() []int {
	if linux.HasIPv6() {
		return []int{unix.AF_INET, unix.AF_INET6}
	}
	return []int{unix.AF_INET}
}

// inside runs f with rtnetlink of ns and each family there.
func inside(ns *linux.NetNS, f func(h *netlink.Handle, family int) error) error {
	return ns.Do(func() error {
		h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
		if err != nil {
			return fmt.Errorf("connecting to rtnetlink: %w", err)
		}
		defer h.Close()
		for _, family := range families() {
			if err := f(h, family); err != nil {
				return err
			}
		}
		return nil
	})
}

func (m marked) rule(family int) *netlink.Rule {
	mask := uint32(0xfff)
	r := netlink.NewRule()
	r.Family, r.Mark, r.Mask, r.Table, r.Priority = family, m.mark, &mask, returnTable, m.priority
	return r
}

func returnRoute(family, lo int) *netlink.Route {
	all := &net.IPNet{IP: net.IPv4zero.To4(), Mask: net.CIDRMask(0, 32)}
	if family == unix.AF_INET6 {
		all = &net.IPNet{IP: net.IPv6zero, Mask: net.CIDRMask(0, 128)}
	}
	return &netlink.Route{
		LinkIndex: lo, Table: returnTable, Family: family, Dst: all,
		Type: unix.RTN_LOCAL, Scope: netlink.SCOPE_HOST, Protocol: unix.RTPROT_STATIC,
	}
}

// applyRoutes adds what checkRoutes finds missing.
func applyRoutes(ns *linux.NetNS, s Spec) error {
	return inside(ns, func(h *netlink.Handle, family int) error {
		lo, err := h.LinkByName("lo")
		if err != nil {
			return fmt.Errorf("finding lo: %w", err)
		}
		if err := h.RouteReplace(returnRoute(family, lo.Attrs().Index)); err != nil {
			return fmt.Errorf("adding the return route: %w", err)
		}
		for _, m := range s.marks() {
			if err := m.add(h, family); err != nil {
				return err
			}
		}
		return nil
	})
}

func (m marked) add(h *netlink.Handle, family int) error {
	if found, err := m.find(h, family); err != nil || found {
		return err
	}
	if err := h.RuleAdd(m.rule(family)); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("adding %s: %w", m.what, err)
	}
	return nil
}

func checkRoutes(ns *linux.NetNS, s Spec) (drift []string, err error) {
	err = inside(ns, func(h *netlink.Handle, family int) error {
		route, err := findRoute(h, family)
		if err != nil {
			return err
		}
		if !route {
			drift = append(drift, fmt.Sprintf("the return route (%s) is missing", familyName(family)))
		}
		for _, m := range []marked{replies, datagrams} {
			found, err := m.find(h, family)
			if err != nil {
				return err
			}
			switch wanted := slices.Contains(s.marks(), m); {
			case wanted && !found:
				drift = append(drift, fmt.Sprintf("%s (%s) is missing", m.what, familyName(family)))
			case found && !wanted:
				drift = append(drift, fmt.Sprintf("%s (%s) does not belong there", m.what, familyName(family)))
			}
		}
		return nil
	})
	return drift, err
}

// removeMarks removes policy rules, if they are there.
func removeMarks(ns *linux.NetNS, all ...marked) error {
	return inside(ns, func(h *netlink.Handle, family int) error {
		for _, m := range all {
			if err := h.RuleDel(m.rule(family)); err != nil && !gone(err) {
				return fmt.Errorf("removing %s: %w", m.what, err)
			}
		}
		return nil
	})
}

func removeRoutes(ns *linux.NetNS) error {
	if err := removeMarks(ns, replies, datagrams); err != nil {
		return err
	}
	return inside(ns, func(h *netlink.Handle, family int) error {
		lo, err := h.LinkByName("lo")
		if err != nil {
			return fmt.Errorf("finding lo: %w", err)
		}
		if err := h.RouteDel(returnRoute(family, lo.Attrs().Index)); err != nil && !gone(err) {
			return fmt.Errorf("removing the return route: %w", err)
		}
		return nil
	})
}

func gone(err error) bool { return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ESRCH) }

func (m marked) find(h *netlink.Handle, family int) (bool, error) {
	rules, err := h.RuleList(family)
	if err != nil {
		return false, fmt.Errorf("listing ip rules: %w", err)
	}
	for _, r := range rules {
		if r.Mark == m.mark && r.Mask != nil && *r.Mask == 0xfff && r.Table == returnTable &&
			r.Priority == m.priority && r.Src == nil && r.Dst == nil && r.IifName == "" && !r.Invert {
			return true, nil
		}
	}
	return false, nil
}

func findRoute(h *netlink.Handle, family int) (bool, error) {
	lo, err := h.LinkByName("lo")
	if err != nil {
		return false, fmt.Errorf("finding lo: %w", err)
	}
	routes, err := h.RouteListFiltered(family, &netlink.Route{Table: returnTable}, netlink.RT_FILTER_TABLE)
	if err != nil {
		return false, fmt.Errorf("listing routes: %w", err)
	}
	for _, r := range routes {
		all := r.Dst == nil
		if !all {
			ones, _ := r.Dst.Mask.Size()
			all = ones == 0
		}
		if all && r.Type == unix.RTN_LOCAL && r.LinkIndex == lo.Attrs().Index {
			return true, nil
		}
	}
	return false, nil
}

func familyName(family int) string {
	if family == unix.AF_INET6 {
		return "IPv6"
	}
	return "IPv4"
}
