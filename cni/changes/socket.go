package changes

import (
	"errors"

	"golang.org/x/sys/unix"

	"github.com/ambit-mesh/ambit/internal/linux"
)

// groups are what is subscribed to, by netlink family: bit n-1 is group n.
var groups = map[int]uint32{
	unix.NETLINK_NETFILTER: bit(unix.NFNLGRP_NFTABLES),
	unix.NETLINK_ROUTE: bit(unix.RTNLGRP_IPV4_RULE) | bit(unix.RTNLGRP_IPV6_RULE) |
		bit(unix.RTNLGRP_IPV4_ROUTE) | bit(unix.RTNLGRP_IPV6_ROUTE) |
		bit(unix.RTNLGRP_IPV4_IFADDR) | bit(unix.RTNLGRP_IPV6_IFADDR),
}

func bit(group int) uint32 { return 1 << (group - 1) }

// open makes the sockets of a namespace.
func open(ns *linux.NetNS) (sockets []int, err error) {
	err = ns.Do(func() error {
		for family, mask := range groups {
			fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, family)
			if err != nil {
				return err
			}
			sockets = append(sockets, fd)
			if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: mask}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, errors.Join(err, closeAll(sockets))
	}
	return sockets, nil
}

// drain throws away what a socket has received. What did not fit into it (the
// error ENOBUFS) was a change as well.
func drain(fd int) {
	var b [64]byte
	for {
		_, _, err := unix.Recvfrom(fd, b[:], unix.MSG_DONTWAIT|unix.MSG_TRUNC)
		if err != nil && !errors.Is(err, unix.EINTR) && !errors.Is(err, unix.ENOBUFS) {
			return
		}
	}
}

func closeAll(sockets []int) error {
	var errs []error
	for _, fd := range sockets {
		errs = append(errs, unix.Close(fd))
	}
	return errors.Join(errs...)
}
