package head

import (
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"

	"github.com/ambit-mesh/ambit/internal/hbone"
)

// The default template of RFC 9298, 3.1.
const (
	udpPrefix = "/.well-known/masque/udp/"
	capsules  = "capsule-protocol" // RFC 9297, 3.4
)

// Request makes the head of a CONNECT; proxy is the other end of the tunnel.
func Request(r hbone.Request, proxy string) (pseudo []Field, header map[string]string, err error) {
	if r.Authority == "" {
		return nil, nil, fmt.Errorf("no authority")
	}
	switch r.Protocol {
	case "":
		return []Field{{":method", "CONNECT"}, {":authority", r.Authority}}, r.Header, nil
	case hbone.ProtocolUDP:
	default:
		return nil, nil, fmt.Errorf("protocol %q is not known", r.Protocol)
	}
	path, err := udpPath(r.Authority)
	if err != nil {
		return nil, nil, err
	}
	return []Field{
		{":method", "CONNECT"}, {":protocol", hbone.ProtocolUDP}, {":scheme", "https"},
		{":authority", proxy}, {":path", path},
	}, WithCapsules(r, r.Header), nil
}

// WithCapsules adds to the head of a CONNECT-UDP, or of its answer, that the
// stream speaks in capsules.
func WithCapsules(r hbone.Request, header map[string]string) map[string]string {
	if r.Protocol != hbone.ProtocolUDP {
		return header
	}
	with := map[string]string{capsules: "?1"}
	for name, value := range header {
		with[name] = value
	}
	return with
}

func udpPath(authority string) (string, error) {
	host, port, err := net.SplitHostPort(authority)
	if err != nil || host == "" || !isPort(port) {
		return "", fmt.Errorf("authority %q is not host:port", authority)
	}
	// What a template expands leaves only unreserved characters (RFC 6570, 3.2.2).
	return udpPrefix + strings.ReplaceAll(url.PathEscape(host), ":", "%3A") + "/" + port + "/", nil
}

// target is the host:port that a path names.
func target(path string) (string, bool) {
	rest, ok := strings.CutPrefix(path, udpPrefix)
	if !ok {
		return "", false
	}
	parts := strings.Split(rest, "/")
	if len(parts) != 3 || parts[2] != "" || !isPort(parts[1]) {
		return "", false
	}
	host, err := url.PathUnescape(parts[0])
	if err != nil || host == "" || strings.ContainsAny(host, "/[]%@ ") {
		return "", false
	}
	return net.JoinHostPort(host, parts[1]), true
}

func isPort(s string) bool {
	n, err := strconv.ParseUint(s, 10, 16)
	return err == nil && n > 0 && strconv.FormatUint(n, 10) == s
}
