package advanced

import (
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"
)

// description is what a server tells: NAME=VALUE, one a line. The suite finds
// the names by unanchored patterns, so no value may be in front of the name
// that it could be taken for.
type description struct{ strings.Builder }

func (d *description) add(name, value string) {
	fmt.Fprintf(d, "%s=%s\n", name, value)
}

// headers adds one line for each value of each header, without a blank: the
// suite does not trim.
func (d *description) headers(name string, h map[string][]string) {
	for _, key := range slices.Sorted(maps.Keys(h)) {
		for _, value := range h[key] {
			d.add(name, key+":"+value)
		}
	}
}

func portOf(addr net.Addr) string {
	if addr == nil {
		return ""
	}
	_, port, _ := net.SplitHostPort(addr.String())
	return port
}

func hostOf(hostport string) string {
	host, _, err := net.SplitHostPort(hostport)
	if err != nil {
		return hostport
	}
	return host
}
