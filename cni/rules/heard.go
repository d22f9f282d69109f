package rules

import (
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/ambit-mesh/ambit/internal/linux"
)

// Heard reports whether ztunnel takes the datagrams that the rules of Spec.UDP
// would give to it.
func Heard(ns *linux.NetNS) (bool, error) {
	var packets []socket
	if err := ns.Do(func() (err error) { packets, err = socketsOf(unix.IPPROTO_UDP, boundStates); return err }); err != nil {
		return false, fmt.Errorf("looking who takes datagrams: %w", err)
	}
	at := func(port uint16) bool {
		return slices.ContainsFunc(packets, func(s socket) bool { return s.mark == linux.Mark && s.local.Port() == port })
	}
	return at(outboundPort) && at(inboundPort), nil
}
